"""What fires when, and what is written for it: which due times count, how long a retry waits, the run's folder."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, ScheduleFolder
from lepton_jupyter.formats.schedule import CatchUp, ScheduleRecord
from lepton_jupyter.runner.request import prepare_run
from lepton_jupyter.runner.scheduled import run_of
from lepton_jupyter.runner.timing import Timing

LATE_S = 60.0  # a due time this long ago, or half the way to the next one, was missed
MAX_CAUGHT_UP = 1000
FIRST_RETRY_S = 10.0
LAST_RETRY_S = 600.0
BY_ALERT = re.compile(r"alert \d+\b")


class Due(NamedTuple):
    """A due time that shall fire, or was missed, and how many missed ones before it go with it."""

    due_at: float
    is_missed: bool = False
    n_missed: int = 0


class Passed(NamedTuple):
    """What to do about the due times that have come, oldest first, and when the next one comes."""

    dues: tuple[Due, ...]
    next_due_at: float


def passed(timing: Timing, due_at: float, *, now: float, anchor_at: float, catch_up: CatchUp) -> Passed:
    """Decide about every due time from `due_at` to `now`.

    Each of them is in the answer once: as a `Due`, or in the count of one.

    Parameters
    ----------
    timing : Timing
    due_at : float
        The first that has not been decided.
    now, anchor_at : float
    catch_up : {"skip", "latest", "all"}
        ``skip``: those that were missed do not fire; ``latest``: the newest fires for all; ``all``: each fires, the
        oldest first, 1000 at most.
    """
    times, n_times = timing.passed(due_at, now=now, anchor_at=anchor_at, limit=MAX_CAUGHT_UP)
    newest = times[-1]
    next_due_at = timing.next_after(newest, anchor_at)
    if catch_up == "all":
        first = Due(times[0], n_missed=n_times - len(times))
        return Passed((first, *map(Due, times[1:])), next_due_at)
    if catch_up == "latest":
        return Passed((Due(newest, n_missed=n_times - 1),), next_due_at)
    if now - newest > min(LATE_S, (next_due_at - newest) / 2):
        return Passed((Due(newest, is_missed=True, n_missed=n_times - 1),), next_due_at)
    missed = (Due(times[-2], is_missed=True, n_missed=n_times - 2),) if n_times > 1 else ()
    return Passed((*missed, Due(newest)), next_due_at)


def retry_pause_s(attempt: int) -> float:
    """Return how long a run that failed waits for its next try, after `attempt` earlier ones."""
    return float(min(FIRST_RETRY_S * 2**attempt, LAST_RETRY_S))


def asked_by(why: str) -> str:
    """Return who asked for a firing, by the reason that was recorded with it."""
    if not why:
        return "schedule"
    return "alert" if BY_ALERT.match(why) else "person"


def read_schedule(folder: ScheduleFolder) -> ScheduleRecord:
    """Return what was defined.

    Raises
    ------
    LeptonError
        If the folder is not there or cannot be read.
    """
    try:
        return msgspec.json.decode(folder.record.read_bytes(), type=ScheduleRecord)
    except (OSError, msgspec.DecodeError) as error:
        raise LeptonError(
            f"The definition of schedule '{folder.name}' cannot be read: {error}.", "Define it again.", code="not_found"
        ) from error


def write_run(
    home: Home,
    folder: ScheduleFolder,
    schedule: ScheduleRecord,
    *,
    run_id: str,
    now: float,
    due_at: float | None,
    attempt: int,
    window_start: float | None,
    why: str,
) -> None:
    """Write the folder of a firing's run, unless an earlier driver has.

    Raises
    ------
    LeptonError
        If its notebook is gone, or the folder cannot be written.
    """
    if home.run(run_id).record.exists():
        return
    record, notebook = run_of(
        home,
        schedule,
        run_id=run_id,
        now=now,
        due_at=due_at,
        attempt=attempt,
        window_start=window_start,
        asked_by=asked_by(why),
    )
    try:
        environment: dict[str, str] = json.loads(folder.environment.read_bytes())
    except (OSError, ValueError) as error:
        raise LeptonError(
            f"The environment of schedule '{schedule.name}' cannot be read: {error}.", "Define it again.", code="failed"
        ) from error
    try:
        prepare_run(home, record, notebook=notebook, captured=None, environment=environment)
    except LeptonError:
        if not home.run(run_id).record.exists():  # else: another driver was quicker
            raise
