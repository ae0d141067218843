"""What came of a feedback."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.stages.monitor.feedback import Fed


class Feedback(Shown):
    """Labels that were given, and how predictions do by them.

    Attributes
    ----------
    record : Fed
        All of it.
    """

    def __init__(self, record: Fed, endpoint: str) -> None:
        self.record = record
        self.endpoint = endpoint

    @property
    def n_labels(self) -> int:
        """Rows that a label was given for."""
        return self.record.n_labels

    @property
    def n_new(self) -> int:
        """Of these, those whose label was not known, or was another."""
        return self.record.n_new

    @property
    def n_matched(self) -> int:
        """Of these, those that were found in the log."""
        return self.record.n_matched

    @property
    def n_unknown(self) -> int:
        """Of these, those that the log does not have (yet)."""
        return self.record.n_unknown

    @property
    def n_conflicting(self) -> int:
        """Of these, those that had another label before, or got two at once."""
        return self.record.n_conflicting

    @property
    def metrics(self) -> dict[str, float]:
        """Plain floats by name, over the logged rows that were found."""
        return dict(self.record.metrics)

    def _pairs(self) -> list[tuple[str, Any]]:
        record = self.record
        return [
            ("labels", f"{record.n_labels:,}, {record.n_new:,} of them new"),
            ("found in the log", f"{record.n_matched:,} ({record.n_rows:,} logged rows)"),
        ]

    def _remarks(self) -> list[str]:
        record, found = self.record, []
        if record.n_unknown:
            found.append(f"{record.n_unknown:,} are not in the log; they are kept, and count once their row is there.")
        if record.n_conflicting:
            found.append(f"{record.n_conflicting:,} differ from a label that was given before; the last one counts.")
        return found

    def _text(self) -> str:
        lines = [f"feedback for {self.endpoint}"]
        lines += [f"  {name}: {value}" for name, value in self._pairs()]
        if self.metrics:
            lines.append("  " + "  ".join(f"{name} {html.number(value)}" for name, value in self.metrics.items()))
        return "\n".join([*lines, *(f"  {text}" for text in self._remarks())])

    def _html(self) -> str:
        return html.card(
            f"feedback for {self.endpoint}",
            html.facts(self._pairs()),
            html.facts((name, html.number(value)) for name, value in self.metrics.items()),
            html.lines(self._remarks(), colour=html.WARN),
        )
