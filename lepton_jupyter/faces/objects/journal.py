"""What happened to a model, newest first."""

from __future__ import annotations

from collections.abc import Sequence

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.table import Table
from lepton_jupyter.faces.objects.when import clock
from lepton_jupyter.formats.views import JournalEntry

SHOWN = 12
COLUMNS = ("when", "what", "")


class Journal(Table[JournalEntry]):
    """The lines of a model's journal, newest first."""

    def __init__(self, model: str, entries: Sequence[JournalEntry]) -> None:
        """Take the entries in the order in which they happened."""
        newest = list(reversed(entries))
        rows = [(clock(entry.at), entry.what, entry.text) for entry in newest]
        super().__init__(
            f"journal of {model}", newest, columns=COLUMNS, rows=rows, empty="Nothing happened to it so far."
        )

    def text(self) -> str:
        """Return its newest lines below a card."""
        lines = html.plain_table(COLUMNS, self._few()).split("\n")[1:]
        return "\n".join(["  journal:", *(f"    {line}" for line in lines)])

    def html(self) -> str:
        """Return its newest lines as part of a card."""
        return html.table(COLUMNS, self._few())

    def _few(self) -> list[list[str]]:
        left_out = len(self._rows) - SHOWN
        more = [["", "", f"… and {left_out} before"]] if left_out > 0 else []
        return self._rows[:SHOWN] + more
