"""The widgets of a panel: a tab a word, a form a verb, what was asked for below."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.completion import LiveNames, names_for
from lepton_jupyter.faces.panels.doing import Doing
from lepton_jupyter.faces.panels.form import Form
from lepton_jupyter.faces.panels.panel import look
from lepton_jupyter.faces.panels.tables import Tables
from lepton_jupyter.faces.panels.words import TABLES, WORDS
from lepton_jupyter.faces.verbs import find
from lepton_jupyter.stages.verbs import Verb

KEPT = 5  # boxes of what was asked for


class Controls:
    """Forms, tables, and boxes of what was asked for, newest first.

    Attributes
    ----------
    forms : dict of Form
        By verb; those of a tab come when it is opened.
    doings : list of Doing
        Newest first.
    """

    def __init__(self, asker: Asker, word: str | None) -> None:
        self._shell = asker.shell
        self._said = asker.namespace
        self._live = LiveNames()
        self.forms: dict[str, Form] = {}
        self.doings: list[Doing] = []
        self.tables: list[Tables] = []
        self._boxes = widgets.VBox()
        self.widget = self._word(word, self._boxes) if word else widgets.VBox([self._all(), self._boxes])

    @property
    def _namespace(self) -> Mapping[str, Any]:
        """The notebook's names as they are now, not as they were when the panel was drawn."""
        return self._shell.user_ns if self._shell is not None else self._said

    def _names(self, verb: str, field: str) -> list[str]:
        return names_for(verb, field, self._namespace, self._live)

    def _all(self) -> Any:
        tabs = widgets.Tab([self._tables(TABLES), *(widgets.VBox() for _ in WORDS)])
        for at, title in enumerate(("now", *WORDS)):
            tabs.set_title(at, title)

        def opened(change: Any) -> None:
            at = change["new"]
            if at and not tabs.children[at].children:
                tabs.children[at].children = (self._word(tuple(WORDS)[at - 1]),)

        tabs.observe(opened, names="selected_index")
        return tabs

    def _word(self, word: str, *between: Any) -> Any:
        held = WORDS[word]
        for verb in held.verbs:
            self.forms[verb] = Form(find(verb).spec, self._go)
        self._offer()
        inner = [self.forms[verb].widget for verb in held.verbs]
        if len(inner) > 1:
            folded = widgets.Accordion(inner)
            for at, verb in enumerate(held.verbs):
                folded.set_title(at, verb)
            folded.selected_index = 0
            inner = [folded]
        return widgets.VBox([*inner, *between, self._tables(held.tables)])

    def _tables(self, verbs: tuple[str, ...]) -> Any:
        tables = Tables(verbs, lambda verb: look(Asker("magic", namespace=self._namespace), verb))
        self.tables.append(tables)
        tables.refresh()
        return tables.widget

    def _go(self, spec: Verb, line: str) -> None:
        doing = Doing(spec, line, self._namespace, self._look_again)
        self.doings.insert(0, doing)
        self._boxes.children = tuple(item.widget for item in self.doings[:KEPT])
        doing.start()

    def _look_again(self) -> None:
        for tables in self.tables:
            tables.refresh()
        self._offer()

    def _offer(self) -> None:
        """Offer the names that live now, from a thread: a backend that is slow to say them keeps nobody waiting."""
        threading.Thread(target=self._tell_names, name="lepton-panel-names", daemon=True).start()

    def _tell_names(self) -> None:
        for form in list(self.forms.values()):
            form.offer(self._names)
