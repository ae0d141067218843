"""What a report's run writes and says: its record, its picture, its checks, its summary."""

from __future__ import annotations

from typing import Protocol

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.session import Session
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.stages.monitor.picture import draw


class Checking(Session, Protocol):
    """The session of a run that makes checks."""

    def check(self, name: str, value: float | None) -> None:
        """Record a value by which alerts are judged."""


def tell(session: Checking, record: MonitorRecord) -> None:
    """Write ``result.json`` and ``report.png``, then say every check and the result: who hears of it can read it."""
    folder = RunFolder(session.folder)
    write_atomic(folder.result, encode(record))
    picture = draw(record)
    if picture is not None:
        write_atomic(folder.picture, picture)
    for name, value in record.checks.items():
        session.check(name, value)
    session.result(
        verdict=record.verdict,
        headline=record.headline,
        sentences=list(record.sentences),
        version=record.version,
        n_rows=record.window.n_rows,
        n_effective=record.window.n_effective,
        window_start=record.window.start,
        window_end=record.window.end,
    )
