"""What a report's run writes and says at its end: its record, its picture, its summary."""

from __future__ import annotations

import msgspec

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.session import Session
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.stages.monitor.picture import draw


def tell(session: Session, record: MonitorRecord) -> None:
    """Write ``result.json`` and ``report.png``, then say the result: who hears of it can read them."""
    folder = RunFolder(session.folder)
    write_atomic(folder.result, encode(msgspec.structs.replace(record, run_id=session.run_id)))
    picture = draw(record)
    if picture is not None:
        write_atomic(folder.picture, picture)
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
