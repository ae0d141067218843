"""``%lepton panel``: forms and tables where widgets are drawn, what to type and the same tables where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.panels.words import TABLES, WORDS
from lepton_jupyter.faces.verbs import find

WIDGET = "application/vnd.jupyter.widget-view+json"


class Panel(Shown):
    """The panel of one word, or of all.

    Attributes
    ----------
    word : str or None
    controls : Controls or None
        The widgets; None where nobody could press them (a shell, papermill, nbconvert): a notebook that ran there
        holds no widget state, and shows the static panel.
    """

    def __init__(self, asker: Asker, word: str | None) -> None:
        self.word = word
        self._asker = asker
        self.controls: Any = None
        if is_pressable(asker):
            from lepton_jupyter.faces.panels.controls import Controls  # ipywidgets is loaded when a panel is drawn

            self.controls = Controls(asker, word)

    @property
    def forms(self) -> Mapping[str, Any]:
        """The forms that have been drawn, by verb."""
        return self.controls.forms if self.controls is not None else {}

    def _words(self) -> Iterable[str]:
        return [self.word] if self.word else WORDS

    def _tables(self) -> tuple[str, ...]:
        return WORDS[self.word].tables if self.word else TABLES

    def _verbs(self) -> list[tuple[str, str, str]]:
        specs = [(word, find(verb).spec) for word in self._words() for verb in WORDS[word].verbs]
        return [(word, f"%lepton {(spec.examples or (spec.verb,))[0]}", spec.does) for word, spec in specs]

    def _line(self) -> str:
        return f"panel {self.word}" if self.word else "panel"

    def _text(self) -> str:
        verbs = html.plain_table(("word", "type", "to"), self._verbs())
        tables = [f"{name}\n{look(self._asker, name, is_text=True)}" for name in self._tables()]
        return "\n\n".join([f"{self._line()}: its forms need a notebook; the same by lines:\n{verbs}", *tables])

    def _html(self) -> str:
        tables = [html.card(name, look(self._asker, name)) for name in self._tables()]
        said = "Forms are drawn where a notebook is open in a browser; these lines do the same."
        return html.card(self._line(), html.lines([said]), html.table(("word", "type", "to"), self._verbs())) + "".join(
            tables
        )

    def _more(self) -> dict[str, Any]:
        return {WIDGET: self.controls.widget._repr_mimebundle_()[WIDGET]} if self.controls is not None else {}


def is_pressable(asker: Asker) -> bool:
    """Whether somebody is there who could press a button: a kernel whose cell may ask for input.

    Papermill, nbconvert and nbval forbid it; Lab, Notebook and VS Code allow it.
    """
    kernel = getattr(asker.shell, "kernel", None)
    return kernel is not None and bool(getattr(kernel, "_allow_stdin", False)) and asker.parent is None


def look(asker: Asker, verb: str, *, is_text: bool = False) -> str:
    """Return a verb's table as HTML or text; an error of ours in its place."""
    command = find(verb)
    try:
        found: Any = command.load()(asker, command.spec(), {})
    except LeptonError as error:
        return str(error) if is_text else html.lines([str(error)], colour=html.BAD)
    return str(found._text() if is_text else found._html())
