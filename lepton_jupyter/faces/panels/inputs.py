"""One field of a verb's struct as a widget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from lepton_jupyter.faces.arguments import Field, pair_of
from lepton_jupyter.faces.objects import html

WIDTH = "340px"
LABEL = "120px"


class Input:
    """One field: a widget, what it means beside it, and what was put in.

    Parameters
    ----------
    field : Field
    """

    def __init__(self, field: Field) -> None:
        self.field = field
        self.widget = _widget(field)
        self.row = widgets.HBox(
            [self.widget, widgets.HTML(f'<span style="opacity:.7">{html.escape(_says(field))}</span>')]
        )

    @property
    def value(self) -> Any:
        """What was put in, as `arguments.build` takes it; None where nothing was.

        Raises
        ------
        LeptonError
            If a line of KEY=VALUE is none.
        """
        found = self.widget.value
        if isinstance(found, str):
            found = found.strip()
        if found in ("", None):
            return None
        if self.field.kind == "repeat":
            return _lines(found)
        if self.field.kind == "pairs":
            return dict(pair_of(self.field, line) for line in _lines(found))
        return found

    def offer(self, names: Sequence[str]) -> None:
        """Offer the names that live now and fit here; others may be typed."""
        if isinstance(self.widget, widgets.Combobox):
            self.widget.options = tuple(dict.fromkeys([*self.field.choices, *names]))

    def watch(self, changed: Callable[[Any], None]) -> None:
        """Call a function when it changes."""
        self.widget.observe(changed, names="value")


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _label(field: Field) -> str:
    return field.name.strip("_").replace("_", " ")


def _says(field: Field) -> str:
    more = {"repeat": "one a line", "pairs": "KEY=VALUE, one a line"}.get(field.kind, field.bounds)
    return field.help + (f" ({more})" if more else "")


def _widget(field: Field) -> Any:
    """Return the plainest widget that fits; every host draws these."""
    common: dict[str, Any] = {
        "description": _label(field),
        "tooltip": field.help,
        "style": {"description_width": LABEL},
        "layout": {"width": WIDTH},
    }
    if field.kind == "switch":
        return widgets.Checkbox(value=bool(field.default), indent=True, **common)
    if field.kind in ("repeat", "pairs"):
        return widgets.Textarea(rows=2, **common)
    if field.choices and not field.scalars:
        nothing = [("", None)] if field.default is None else []
        return widgets.Dropdown(
            options=[*nothing, *((word, word) for word in field.choices)], value=field.default, **common
        )
    if field.scalars == (int,) and isinstance(field.default, int):
        return widgets.IntText(value=field.default, **common)
    if field.scalars == (float,) and isinstance(field.default, float):
        return widgets.FloatText(value=field.default, **common)
    text = "" if field.default is None else str(field.default)
    return widgets.Combobox(value=text, options=field.choices, **common)
