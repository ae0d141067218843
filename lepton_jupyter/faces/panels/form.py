"""A verb's struct as a form, with the line that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.faces.arguments import build, fields_of, render
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.panels.inputs import Input
from lepton_jupyter.stages.verbs import Verb

SHOWN = 5  # fields without a flag, or without a default, and then so many; the others are folded away
LEFT_OUT = frozenset({"detach"})  # a panel never waits

Names = Callable[[str, str], Sequence[str]]


class Form:
    """The form of one verb.

    Parameters
    ----------
    spec : type
        The verb's struct. There is nothing else to say: a new flag is a new field of the form.
    go : callable
        Gets the struct and the line when the button is pressed.
    """

    def __init__(self, spec: type[Verb], go: Callable[[Verb, str], None]) -> None:
        self.spec = spec
        self._go = go
        fields = [field for field in fields_of(spec).values() if field.name not in LEFT_OUT]
        self.inputs = {field.name: Input(field) for field in fields}
        self.go = widgets.Button(description=spec.verb.capitalize(), button_style="primary", tooltip=spec.does)
        self._line = widgets.HTML()
        self._message = widgets.HTML()
        self.widget = widgets.VBox(
            [widgets.HTML(html.escape(spec.does)), *self._rows(), self._line, self._message, self.go]
        )
        for item in self.inputs.values():
            item.watch(self._changed)
        self.go.on_click(self._pressed)
        self._changed()

    def _rows(self) -> list[Any]:
        first = [item for item in self.inputs.values() if item.field.is_positional or item.field.is_required]
        others = [item for item in self.inputs.values() if item not in first]
        rows = [item.row for item in [*first, *others[:SHOWN]]]
        if others[SHOWN:]:
            folded = widgets.Accordion([widgets.VBox([item.row for item in others[SHOWN:]])])
            folded.set_title(0, f"{len(others) - SHOWN} more flags")
            folded.selected_index = None
            rows.append(folded)
        return rows

    def read(self) -> Verb:
        """Return the struct.

        Raises
        ------
        LeptonError
            As the line would: something is missing, unknown, or outside of its bounds.
        """
        values = {name: item.value for name, item in self.inputs.items()}
        return build(self.spec, {name: value for name, value in values.items() if value is not None})

    @property
    def line(self) -> str:
        """The line that does the same; empty while the form is not complete."""
        try:
            return line_of(self.read())
        except LeptonError:
            return ""

    @property
    def message(self) -> str:
        """What is missing or wrong; empty where the button may be pressed."""
        try:
            self.read()
        except LeptonError as error:
            return error.message
        return ""

    def offer(self, names: Names) -> None:
        """Offer the names that live now; `names` returns those that fit a field of a verb."""
        for name, item in self.inputs.items():
            item.offer(names(self.spec.verb, name))

    def _changed(self, _: Any = None) -> None:
        try:
            self._line.value = f"The same line: <code>{html.escape(line_of(self.read()))}</code>"
            self._message.value = ""
            self.go.disabled = False
        except LeptonError as error:
            self._line.value = ""
            self._message.value = f'<span style="opacity:.7">{html.escape(error.message)}</span>'
            self.go.disabled = True

    def _pressed(self, _: Any) -> None:
        try:
            spec = self.read()
        except LeptonError as error:  # the browser was quicker than what it had been told
            self._message.value = f'<span style="opacity:.7">{html.escape(error.message)}</span>'
            return
        self._go(spec, line_of(spec))


def line_of(spec: Verb) -> str:
    """Return the line that a person would type; a brace is doubled, because a line expands ``{expression}``."""
    return "%lepton " + render(spec).replace("{", "{{").replace("}", "}}")
