"""Schedules: defined, fired when they are due, gone on with after whatever ended the driver before.

A tick does only what the tables say is still to be done, so that it may end anywhere: due times are claimed with the
id of the run that will be made, the run's folder is written under that id, the run is submitted (twice is once), and
what follows its end is done before the firing is closed.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Engine

from lepton_jupyter.backend.firing import LAST_RETRY_S, asked_by, passed, read_schedule, retry_pause_s, write_run
from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.backend.schedule_store import FiringRow, ScheduleRow, ScheduleStore
from lepton_jupyter.backend.schedule_views import ScheduleViews, window_start
from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.names import check_name
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.schedule import ScheduleView, TickResult
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.runner.timing import Timing, parse_every

log = logging.getLogger("lepton.backend")

N_REPORTS = 20  # how many firings of a schedule keep their HTML
OPEN_LOOK_S = 0.5  # how often the end of a run is looked for
SET_BACK_S = 3600.0  # a clock that was set back by more makes schedules due again by the new time
ABANDONED_S = 3600.0  # a definition's folder that nobody has handed over by then is removed
PASSING = "unavailable"  # the code of an error that says: later


class Listener(Protocol):
    """Who hears what became of firings. After a crash the same may be told once more."""

    def run_ended(self, schedule: ScheduleRow, run: RunView) -> None:
        """Hear that a firing's run has ended and will not be tried again."""

    def could_not_fire(self, schedule: ScheduleRow, why: str) -> None:
        """Hear that no run could be made."""

    def came_too_late(self, schedule: ScheduleRow, n_missed: int, due_at: float) -> None:
        """Hear that due times, the newest of them `due_at` or just before it, were passed over."""

    def schedule_removed(self, name: str) -> None:
        """Hear that a schedule is gone."""


class Submits(Protocol):
    """Takes a run whose folder is written; once more is no harm."""

    def submit(self, run_id: str) -> RunView:
        """Take it."""


class Schedules:
    """Every schedule of the home. Its methods may be called from any thread.

    Parameters
    ----------
    home : Home
    engine : Engine
        Of ``state.db``.
    runs : Submits
    now : callable
        Seconds since 1970, UTC.

    Attributes
    ----------
    listeners : list of Listener
    """

    def __init__(self, home: Home, engine: Engine, runs: Submits, now: Callable[[], float] = time.time) -> None:
        self.home = home
        self.store = ScheduleStore(engine)
        self.runs = runs
        self.now = now
        self.listeners: list[Listener] = []
        self._lock = threading.RLock()
        self._look_at = 0.0
        self._seen_at = float("inf")
        self._views = ScheduleViews(self.store)

    # -- what is defined

    def define(self, name: str, generation: str) -> ScheduleView:
        """Take a schedule whose folder the client has written; defined as it is already, it goes on as it was.

        Raises
        ------
        LeptonError
            If there is no such folder, it says nothing sensible, or the name belongs to a schedule of another kind.
        """
        check_name(name, "schedule")
        if not generation.isalnum():
            raise LeptonError(f"'{generation}' is no generation of a schedule.")
        folder = self.home.schedule(name, generation)
        record = read_schedule(folder)
        with self._lock:
            now, old = self.now(), self.store.row(name)
            if old is not None and old.record.kind != record.kind:
                raise LeptonError(
                    f"'{name}' is a {old.record.kind} schedule already, of {old.record.subject}.",
                    f"Take another name (--name), or remove it: %lepton delete schedule/{name}",
                    code="conflict",
                )
            timing = parse_every(record.every, record.tz, now) if record.every else None
            has_same_clock = old is not None and (old.record.every, old.record.tz) == (record.every, record.tz)
            anchor_at = old.anchor_at if old is not None and has_same_clock else now
            next_due_at = timing.next_after(now, anchor_at) if timing is not None else None
            if old is not None and has_same_clock and old.state == "active":
                next_due_at = old.next_due_at
            self.store.save(
                ScheduleRow(
                    name=name,
                    generation=generation,
                    record=record,
                    state="active",
                    created_at=now,
                    anchor_at=anchor_at,
                    next_due_at=next_due_at,
                )
            )
            self._look_at = 0.0
        self._remove_folders(name, keep=generation)
        return self.view(name)

    def pause(self, name: str) -> ScheduleView:
        """Let a schedule be due no more until it is defined again; a run that is going goes on."""
        with self._lock:
            self._row(name)
            self.store.pause(name)
        return self.view(name)

    def delete(self, name: str) -> None:
        """Forget a schedule; its runs stay. The row goes last: what a crash left is then still there to be deleted."""
        with self._lock:
            self._row(name)
            self._tell(lambda listener: listener.schedule_removed(name))
            shutil.rmtree(self.home.schedules / name, ignore_errors=True)
            self.store.drop(name)

    def delete_of_endpoint(self, endpoint: str) -> list[str]:
        """Forget the schedules that watch an endpoint, and return their names."""
        names = [
            row.name for row in self.store.rows() if (row.record.kind, row.record.subject) == ("monitor", endpoint)
        ]
        for name in names:
            self.delete(name)
        return names

    def names(self) -> list[str]:
        """Return the names of every schedule, newest first."""
        return [row.name for row in self.store.rows()]

    def _row(self, name: str) -> ScheduleRow:
        row = self.store.row(name)
        if row is None:
            raise unknown("schedule", name, self.names(), "List them with `%lepton schedules`.")
        return row

    def _remove_folders(self, name: str, keep: str) -> None:
        """Remove what earlier definitions left, and what one left that never arrived."""
        try:
            newest = (self.home.schedules / name / keep).stat().st_mtime
            for folder in (self.home.schedules / name).iterdir():
                if folder.name != keep and folder.stat().st_mtime <= newest:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            log.warning("old definitions of schedule %s could not be removed", name)

    def sweep_folders(self) -> None:
        """Remove the folders of definitions that no schedule has: what a crash in the middle of a change left."""
        kept = {(row.name, row.generation) for row in self.store.rows()}
        for folder in self.home.schedules.glob("*/*"):
            try:
                is_old = time.time() - folder.stat().st_mtime > ABANDONED_S
            except OSError:
                continue
            if is_old and (folder.parent.name, folder.name) not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    # -- how they stand

    def view(self, name: str) -> ScheduleView:
        """Return one schedule as it stands.

        Raises
        ------
        LeptonError
            If there is none; the message lists the known ones.
        """
        return self._views.view(self._row(name), self.store.n_alerts())

    def views(self) -> list[ScheduleView]:
        """Return every schedule as it stands, newest first."""
        n_alerts = self.store.n_alerts()
        return [self._views.view(row, n_alerts) for row in self.store.rows()]

    def window_start(self, endpoint: str, schedule: str | None = None) -> float:
        """Return where the next report on an endpoint begins: see `schedule_views.window_start`."""
        return window_start(self.home, self.store, endpoint, schedule)

    # -- the clock

    def is_due(self) -> bool:
        """Whether a tick would find something to do; costs nothing."""
        return self._look_at <= self.now() or self.now() < self._seen_at - OPEN_LOOK_S

    def tick(self) -> TickResult:
        """Do what is due, and go on with what is open.

        Returns
        -------
        TickResult
            With the runs of schedules that have not ended, whoever fired them: who wants to see everything through
            waits for them, and ticks again until there are none.
        """
        with self._lock:
            now = self.now()
            self._heed_clock(now)
            for row in self.store.due(now):
                self._claim(row, now)
            rows = {row.name: row for row in self.store.rows()}
            firings = self.store.open_firings()
            going = {each.schedule for each in firings if _is_going(each)}
            for firing in firings:
                row_of_it = rows.get(firing.schedule)
                if row_of_it is None:
                    self.store.close(firing)
                elif firing.state != "waiting":
                    self._go_on(row_of_it, firing, now)
                elif firing.schedule not in going:
                    going.add(firing.schedule)  # the oldest of those that wait goes first
                    self._release(row_of_it, firing, now)
            return self._look_again(now)

    def _heed_clock(self, now: float) -> None:
        """Where the clock was set back, let schedules be due by the new time; what has fired does not fire again."""
        if now < self._seen_at - OPEN_LOOK_S:
            for row in self.store.rows():
                if row.next_due_at is None or row.next_due_at <= now + SET_BACK_S:
                    continue
                timing = self._timing(row, now)
                next_due_at = timing.next_after(now, row.anchor_at) if timing is not None else row.next_due_at
                if row.next_due_at > next_due_at + SET_BACK_S:
                    self.store.put_back(row, next_due_at)
        self._seen_at = now

    def _claim(self, row: ScheduleRow, now: float) -> None:
        timing = self._timing(row, now)
        if timing is None or row.next_due_at is None:
            return
        found = passed(timing, row.next_due_at, now=now, anchor_at=row.anchor_at, catch_up=row.record.catch_up)
        self.store.claim(row, found.dues, next_due_at=found.next_due_at, now=now)

    def _timing(self, row: ScheduleRow, now: float) -> Timing | None:
        """Return when a schedule is due; one whose zone is known on this machine no more is paused."""
        try:
            return parse_every(row.record.every, row.record.tz, now) if row.record.every else None
        except LeptonError as error:
            why = f"It is paused: {error}"
            log.warning("schedule %s: %s", row.name, why)
            self.store.pause(row.name)
            self._tell(lambda listener: listener.could_not_fire(row, why))
            return None

    def _release(self, row: ScheduleRow, firing: FiringRow, now: float) -> None:
        """Let a firing that waits have its run, where it is time for it."""
        is_time = firing.retry_at is None or not now < firing.retry_at <= now + LAST_RETRY_S
        if is_time and self.store.release(firing, now=now):
            self._launch(row, self.store.firing(firing.id), now)

    def _go_on(self, row: ScheduleRow, firing: FiringRow, now: float) -> None:
        """Do the next thing about an open firing."""
        if firing.state == "claimed":
            self._launch(row, firing, now)
        elif firing.state != "fired":
            self._tell_failure(row, firing)
        elif not _is_going(firing):
            self._close(row, firing, now)

    def _launch(self, row: ScheduleRow, firing: FiringRow, now: float) -> str:
        """Make and submit the run of a claimed firing; return why that failed, or nothing."""
        assert firing.run_id is not None
        if firing.n_missed and not firing.attempt:
            self._tell(lambda listener: listener.came_too_late(row, firing.n_missed, firing.due_at))
        try:
            is_report = row.record.kind == "monitor"
            write_run(
                self.home,
                self.home.schedule(row.name, row.generation),
                row.record,
                run_id=firing.run_id,
                now=now,
                due_at=None if firing.why else firing.due_at,
                attempt=firing.attempt,
                window_start=self.window_start(row.record.subject, row.name) if is_report else None,
                why=firing.why,
            )
            self.runs.submit(firing.run_id)
        except LeptonError as error:
            if error.code == PASSING:
                return f"{error.message} It will, when the backend is back."  # the firing stays claimed
            why = f"{error.message} {error.hint}".rstrip()
        except Exception as error:
            log.exception("schedule %s could not fire", row.name)
            why = f"{type(error).__name__}: {error}"
        else:
            self.store.mark_fired(firing)
            return ""
        self.store.mark_failed(firing, why)
        self._tell_failure(row, self.store.firing(firing.id))
        return why

    def _close(self, row: ScheduleRow, firing: FiringRow, now: float) -> None:
        """Try a run that failed again, or do what follows its end."""
        may_retry = firing.attempt < row.record.retries and row.state == "active"
        if firing.run_state in ("failed", "lost") and may_retry and not self.store.has_newer(firing):
            self.store.wait_for_retry(firing, retry_at=now + retry_pause_s(firing.attempt))
            return
        run = self.store.run_of(firing)
        if run is not None:
            ended = run
            self._tell(lambda listener: listener.run_ended(row, ended))
        for old in self.store.firings(row.name, 5, offset=N_REPORTS):
            if old.run_id is not None:
                self.home.run(old.run_id).report.unlink(missing_ok=True)
        self.store.close(firing)

    def _tell_failure(self, row: ScheduleRow, firing: FiringRow) -> None:
        if firing.state == "failed":
            self._tell(lambda listener: listener.could_not_fire(row, firing.why))
        else:
            self._tell(lambda listener: listener.came_too_late(row, firing.n_missed + 1, firing.due_at))
        self.store.close(firing)

    def _tell(self, say: Callable[[Listener], None]) -> None:
        for listener in self.listeners:
            try:
                say(listener)
            except Exception:
                log.exception("a listener of the schedules stumbled")

    def _look_again(self, now: float) -> TickResult:
        """Decide when to look again, and return what is going."""
        still_open = self.store.open_firings()
        next_due_at = self.store.next_due_at()
        times = [next_due_at] if next_due_at is not None else []
        times += [now + OPEN_LOOK_S if each.retry_at is None else each.retry_at for each in still_open]
        self._look_at = min(times, default=float("inf"))
        run_ids = tuple(each.run_id for each in still_open if each.run_id and each.state in ("claimed", "fired"))
        return TickResult(run_ids=run_ids, next_due_at=next_due_at)

    # -- asked for

    def fire_now(self, name: str, why: str) -> str:
        """Fire a schedule, due or not, and return the run's id.

        Parameters
        ----------
        name : str
        why : str
            One sentence; one that begins with ``alert 3`` means that an alert asks, any other one that a person does.

        Raises
        ------
        LeptonError
            If there is none, its run is going, an alert asks and it is paused, or no run can be made.
        """
        with self._lock:
            row, now, why = self._row(name), self.now(), why or "asked for"
            if row.state != "active" and asked_by(why) == "alert":
                raise LeptonError(f"Schedule '{name}' is paused.", f"Fire it: %lepton tick {name}", code="conflict")
            firing = self.store.claim_now(name, now=now, why=why)
            self._look_at = 0.0
            failed = self._launch(row, firing, now)
            if failed:
                raise LeptonError(f"Schedule '{name}' could not fire: {failed}", code="failed")
            return str(firing.run_id)

    def on_run_end(self, run: FollowedRun, ended_at: float | None = None) -> None:
        """Keep what a run found, before anybody sees that it has ended; what follows is done by the next tick."""
        if run.view.checks:
            self.store.save_checks(run.view, ended_at or self.now())
        if run.record.schedule is not None:
            self._look_at = 0.0


def _is_going(firing: FiringRow) -> bool:
    has_run = firing.run_state is not None and firing.run_state not in ENDED
    return firing.state == "claimed" or (firing.state == "fired" and has_run)
