"""A request log as it was written to a file."""

from __future__ import annotations

from pathlib import Path

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.objects.when import clock
from lepton_jupyter.stages.deploy.requests.export import Written


class RequestLog(Shown):
    """One Parquet file of an endpoint's requests.

    Attributes
    ----------
    record : Written
        What it holds.
    """

    def __init__(self, record: Written, endpoint: str) -> None:
        self.record = record
        self.endpoint = endpoint

    @property
    def path(self) -> Path:
        """The file."""
        return self.record.path

    @property
    def n_requests(self) -> int:
        """Requests that were answered."""
        return self.record.n_requests

    @property
    def n_rows(self) -> int:
        """Rows that were scored."""
        return self.record.n_rows

    @property
    def n_refused(self) -> int:
        """Requests that were refused, or failed: a line each, without values."""
        return self.record.n_refused

    def _remarks(self) -> list[str]:
        record, gone = self.record, self.record.removed
        found = []
        if record.n_unknown:
            found.append(f"{record.n_unknown:,} rows are without their values: the version that answered is gone.")
        if gone.n_requests:
            found.append(f"{gone.n_requests:,} older requests, until {clock(gone.until)}, are kept no more.")
        return found

    def _line(self) -> str:
        refused = f", {self.n_refused:,} refused" if self.n_refused else ""
        return f"{self.n_rows:,} rows of {self.n_requests:,} requests{refused}"

    def _text(self) -> str:
        return "\n".join(
            [f"request log of {self.endpoint} · {self._line()}", f"  {self.path}", *(f"  {r}" for r in self._remarks())]
        )

    def _html(self) -> str:
        return html.card(
            f"request log of {self.endpoint}",
            html.lines([str(self.path)], is_code=True),
            html.facts([("holds", self._line()), ("columns", ", ".join(self.record.columns))]),
            html.lines(self._remarks(), colour=html.WARN),
        )
