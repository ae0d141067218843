"""Schedules and firings as clients see them, and where the next report begins."""

from __future__ import annotations

from pathlib import Path

from lepton_jupyter.backend.schedule_store import FiringRow, ScheduleRow, ScheduleStore
from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.schedule import FiringView, ScheduleView
from lepton_jupyter.runner.request import read_record
from lepton_jupyter.runner.scheduled import source_hash

N_SHOWN = 20


class ScheduleViews:
    """Makes views; a notebook's hash is taken again only where its file has changed."""

    def __init__(self, store: ScheduleStore) -> None:
        self.store = store
        self._sources: dict[Path, tuple[tuple[float, int], str]] = {}

    def view(self, row: ScheduleRow, n_alerts: dict[str, int]) -> ScheduleView:
        """Return one schedule as it stands."""
        record = row.record
        firings = tuple(map(firing_view, self.store.firings(row.name, N_SHOWN)))
        hashed = self._source_hash(Path(record.notebook)) if record.notebook else record.source_hash
        return ScheduleView(
            name=row.name, kind=record.kind, subject=record.subject, every=record.every, tz=record.tz,
            state="active" if row.state == "active" else "paused", created_at=row.created_at,
            next_due_at=row.next_due_at, last=firings[0] if firings else None, firings=firings, n_fired=row.n_fired,
            n_missed=row.n_missed, alerts=record.alerts, n_alerts=n_alerts.get(row.name, 0), notify=record.notify,
            on_alert=record.on_alert, catch_up=record.catch_up, overlap=record.overlap, notebook=record.notebook,
            command=record.command, is_source_changed=bool(hashed and record.source_hash != hashed),
            error="" if hashed or not record.notebook else f"Its notebook '{record.notebook}' is gone.",
        )  # fmt: skip

    def _source_hash(self, path: Path) -> str:
        try:
            found = path.stat()
        except OSError:
            return ""
        stamp = (found.st_mtime, found.st_size)
        known = self._sources.get(path)
        if known is None or known[0] != stamp:
            known = self._sources[path] = (stamp, source_hash(path))
        return known[1]


def firing_view(row: FiringRow) -> FiringView:
    """Return one firing as it stands."""
    is_retry = row.state == "waiting" and row.run_id is not None
    return FiringView(
        due_at=row.due_at, at=row.at, state=row.state, run_id=row.run_id, run_state=row.run_state or "",
        verdict=row.verdict or "", attempt=row.attempt, n_missed=row.n_missed,
        why=f"try {row.attempt + 1} failed; the next one waits" if is_retry else row.why,
    )  # fmt: skip


def window_start(home: Home, store: ScheduleStore, endpoint: str, schedule: str | None) -> float:
    """Return where the next report on an endpoint begins: at the end of the last one that completed, else with it.

    Parameters
    ----------
    home : Home
    store : ScheduleStore
    endpoint : str
    schedule : str or None
        Whose reports; None: those for which a person asked.

    Raises
    ------
    LeptonError
        If there is no such endpoint.
    """
    created_at = store.endpoint_created_at(endpoint)
    if created_at is None:
        raise unknown("endpoint", endpoint, store.endpoint_names())
    report = store.newest_report(endpoint, schedule)
    if report is None:
        return created_at
    try:
        said = read_record(home.run(report.run_id)).parameters.get("window_end")
    except LeptonError:  # its folder was removed
        said = None
    end = said if said is not None else report.result.get("window_end", report.created_at)
    return max(float(end), created_at) if isinstance(end, int | float) else created_at
