"""Tables of what there is, with a button that looks again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import ipywidgets as widgets

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.faces.objects import html


class Tables:
    """Some tables, one below the other.

    Parameters
    ----------
    verbs : sequence of str
        Whose tables: ``runs``, ``models`` …
    look : callable
        Returns a verb's table as HTML.
    """

    def __init__(self, verbs: Sequence[str], look: Callable[[str], str]) -> None:
        self._look = look
        self.places = {verb: widgets.HTML() for verb in verbs}
        self.refresh_button = widgets.Button(description="Refresh", icon="refresh", tooltip="look again")
        self.refresh_button.on_click(lambda _: self.refresh())
        self.widget = widgets.VBox([self.refresh_button, *self.places.values()])
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Look again, in a thread of its own."""
        threading.Thread(target=self._refresh, name="lepton-panel-tables", daemon=True).start()

    def _refresh(self) -> None:
        with self._lock:
            for verb, place in self.places.items():
                try:
                    place.value = self._look(verb)
                except LeptonError as error:
                    place.value = html.lines([str(error)], colour=html.BAD)
