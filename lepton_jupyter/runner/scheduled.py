"""The run that a schedule makes: its record and its notebook, as they are now."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.schedule import ScheduleRecord
from lepton_jupyter.runner.request import stage_notebook, user_notebook

STAGES = {"monitor": "monitor", "retrain": "maintain"}
ASKED_BY_HAND = ("kernel", "shell")  # "once, now": no schedule is meant, though its record says what to do


def run_of(
    home: Home,
    schedule: ScheduleRecord,
    *,
    run_id: str,
    now: float,
    due_at: float | None = None,
    attempt: int = 0,
    window_start: float | None = None,
    asked_by: str = "schedule",
    parent: str | None = None,
) -> tuple[RunRecord, dict[str, Any]]:
    """Return what a firing executes.

    Parameters
    ----------
    home : Home
    schedule : ScheduleRecord
    run_id : str
    now : float
        Seconds since 1970, UTC. A report's window ends now, or at `due_at` where every missed time is caught up.
    due_at : float or None
        When it was due; None: a person or an alert asks.
    attempt : int
        How often it was tried before.
    window_start : float or None
        Where a report's window begins, unless the schedule says how far back it looks.
    asked_by : str
        ``schedule``, ``person`` or ``alert``; with ``kernel`` or ``shell`` the run belongs to no schedule.
    parent : str or None

    Raises
    ------
    LeptonError
        If the user's notebook is gone or is no notebook any more.
    """
    window_end = due_at if due_at is not None and schedule.catch_up == "all" else now
    if schedule.window_s is not None:
        window_start = window_end - schedule.window_s
    path = Path(schedule.notebook) if schedule.notebook else None
    record = RunRecord(
        run_id=run_id,
        kind=schedule.kind,
        title=path.name if path and schedule.kind == "notebook" else schedule.subject,
        created_at=now,
        python=schedule.python,
        cwd=str(path.parent) if path else schedule.cwd,
        command=schedule.command,
        spec=schedule.spec,
        parameters=_parameters(schedule, min(window_start or 0.0, window_end), window_end),
        kernel=schedule.kernel,
        parent=parent,
        asked_by=asked_by,
        lepton_version=schedule.lepton_version,
        endpoint=schedule.subject if schedule.kind == "monitor" else None,
        schedule=None if asked_by in ASKED_BY_HAND else schedule.name,
        due_at=due_at,
        attempt=attempt,
        timeout_s=schedule.timeout_s,
    )
    if path:
        return record, user_notebook(path)
    return record, stage_notebook(STAGES[schedule.kind], title=schedule.subject, source=schedule.command)


def _parameters(schedule: ScheduleRecord, window_start: float, window_end: float) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if schedule.kind == "monitor":
        said = {"endpoint": schedule.subject, "window_start": window_start, "window_end": window_end}
    if schedule.kind == "retrain":
        spec = schedule.spec
        said = {
            "model": schedule.subject,
            "require": list(spec.get("require", ())),
            "approve": bool(spec.get("approve", False)),
        }
    return said | schedule.parameters


def source_hash(path: Path) -> str:
    """Return the sha256 of a notebook's file; empty where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
