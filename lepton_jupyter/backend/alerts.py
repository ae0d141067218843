"""Alerts: what each report does to them, who is told, who has seen them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from lepton_jupyter.backend.alert_store import AlertRow, AlertStore
from lepton_jupyter.backend.schedule_store import ScheduleRow, ScheduleStore
from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.alerts import DID_NOT_FIRE, REPORT_FAILED, AlertChange, AlertView
from lepton_jupyter.formats.schedule import ScheduleRecord
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.monitor import messages
from lepton_jupyter.stages.monitor.alerting import Standing, next_standing
from lepton_jupyter.stages.monitor.rules import parse_rule

log = logging.getLogger("lepton.backend")

OURS = (REPORT_FAILED, DID_NOT_FIRE)
STARTED, NOT_STARTED = "started", "not started"  # what a firing alert was to start


class Finding(NamedTuple):
    """What a report (or its absence) says of one rule."""

    rule: str
    is_met: bool | None
    text: str
    value: float | None = None
    for_reports: int = 1


class Alerts:
    """Hears of runs and of schedules. Its methods may be called from any thread, and twice for the same run.

    Attributes
    ----------
    wake : threading.Event
        Set when there is something to tell or to start: `tick` wants to be called then.
    on_firing : callable or None
        Starts what a firing alert is to start, and returns the run's id. Called by `tick`, once an episode.
    """

    def __init__(self, home: Home, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self.home = home
        self.store = AlertStore(engine)
        self.wake = threading.Event()
        self.on_firing: Callable[[AlertView, ScheduleRecord], str | None] | None = None
        self._schedules = ScheduleStore(engine)
        self._now = now
        self._lock = threading.RLock()
        self.wake.set()  # what an earlier backend left

    # -- what schedules tell

    def run_ended(self, schedule: ScheduleRow, run: RunView) -> None:
        """Judge a report: every rule of its schedule, whether it failed, and that the schedule has fired."""
        record = schedule.record
        with self._lock:
            before = {row.rule: row for row in self.store.open_alerts(record.name)}
            with self.store.write() as connection:
                for rule in set(before) - {*record.alerts, *OURS}:
                    self._resolve(connection, before[rule], "no longer asked for")
                for finding in _findings(record, run):
                    self._judge(connection, schedule, finding, before.get(finding.rule), run)
                self._tell_report(connection, schedule, run)
        self.wake.set()

    def could_not_fire(self, schedule: ScheduleRow, why: str) -> None:
        """Let an alert fire: no run could be made."""
        self._did_not_fire(schedule, f"Schedule {schedule.name} did not fire: {why}")

    def came_too_late(self, schedule: ScheduleRow, n_missed: int, due_at: float) -> None:
        """Let an alert fire: due times passed while nobody was there."""
        times = "1 due time was" if n_missed == 1 else f"{n_missed} due times were"
        self._did_not_fire(
            schedule,
            f"Schedule {schedule.name} did not fire: {times} missed, the last one about "
            f"{messages.clock(due_at)}. Nobody was there: the machine or the backend was off.",
        )

    def _did_not_fire(self, schedule: ScheduleRow, text: str) -> None:
        with self._lock:
            before = {row.rule: row for row in self.store.open_alerts(schedule.name)}.get(DID_NOT_FIRE)
            with self.store.write() as connection:
                self._judge(connection, schedule, Finding(DID_NOT_FIRE, True, text), before, None)
        self.wake.set()

    def schedule_removed(self, name: str) -> None:
        """Resolve the alerts of a schedule that is gone; nobody is told."""
        with self._lock:
            left = self.store.open_alerts(name)
            with self.store.write() as connection:
                for row in left:
                    self._resolve(connection, row, "the schedule was deleted")
                self.store.take_back_all(connection, name)

    # -- one rule

    def _judge(
        self,
        connection: Connection,
        schedule: ScheduleRow,
        found: Finding,
        before: AlertRow | None,
        run: RunView | None,
    ) -> None:
        record, at = schedule.record, (run.ended_at if run is not None else None) or self._now()
        if before is not None and run is not None and found.rule != DID_NOT_FIRE and _is_known(before, run, at):
            return
        standing = Standing(before.state, before.n_met) if before is not None else Standing()
        after = next_standing(standing, found.is_met, found.for_reports)
        if found.is_met is None or after.state is None:
            return
        run_id = run.run_id if run is not None else None
        values = {
            "state": after.state, "n_met": after.n_met, "value": found.value, "run_id": run_id, "text": found.text,
        }  # fmt: skip
        if before is None:
            muted = self._still_silenced(record.name, found.rule)
            row = self.store.add(
                connection, schedule=record.name, subject=record.subject, rule=found.rule, since=at, changed_at=at,
                **values, **muted,
            )  # fmt: skip
        else:
            changed = {"changed_at": at} if after.state != before.state else {}
            row = self.store.change(connection, before.id, **values, **changed)
        if before is None or after.state != before.state:
            change = AlertChange(at=at, what=row.state, value=row.value, run_id=run_id)
            self.store.note(connection, row.id, change)
        self._tell_alert(connection, schedule, row, run)

    def _still_silenced(self, schedule: str, rule: str) -> dict[str, object]:
        """Return the silence of the last episode, where it goes on: an alert that flaps stays silenced."""
        last = self.store.newest(schedule, rule)
        if last is None or (last.silenced_until or 0.0) <= self._now():
            return {}
        return {name: getattr(last, name) for name in ("silenced_until", "silenced_by", "silenced_why")}

    def _resolve(self, connection: Connection, row: AlertRow, why: str) -> None:
        at = self._now()
        self.store.change(connection, row.id, state="resolved", n_met=0, changed_at=at)
        self.store.note(connection, row.id, AlertChange(at=at, what="resolved", why=why))
        self.store.take_back(connection, row.id)

    # -- messages

    def _tell_alert(self, connection: Connection, schedule: ScheduleRow, row: AlertRow, run: RunView | None) -> None:
        """Queue a message for each channel that has none: that the alert fires, or that what fired is resolved."""
        if row.state == "pending" or row.is_muted(self._now()):
            return
        told = self.store.told(connection, row.id, row.state)
        heard = self.store.told(connection, row.id, "firing") if row.state == "resolved" else schedule.record.notify
        result = run.result if run is not None else {}
        for channel in schedule.record.notify:
            if channel in told or channel not in heard:
                continue
            self._queue(
                connection, schedule, run, channel=channel, alert_id=row.id,
                title=messages.alert_title(row.view(), result),
                body=messages.alert_body(row.view(), result, where=self._where(run)),
            )  # fmt: skip

    def _tell_report(self, connection: Connection, schedule: ScheduleRow, run: RunView) -> None:
        record = schedule.record
        if record.notify_on != "report" or run.state != "completed":
            return
        if record.every and run.result.get("decision") == "nothing new":  # a retrain each night, with nothing to do
            return
        if self.store.is_report_told(connection, run.run_id):
            return
        for channel in record.notify:
            self._queue(
                connection, schedule, run, channel=channel, alert_id=None,
                title=messages.report_title(record.subject, run.result),
                body=messages.report_body(run.result, schedule=record.name, where=self._where(run)),
            )  # fmt: skip

    def _queue(
        self, connection: Connection, schedule: ScheduleRow, run: RunView | None, *, channel: str, alert_id: int | None,
        title: str, body: str,
    ) -> None:  # fmt: skip
        self.store.queue(
            connection, now=self._now(), alert_id=alert_id, run_id=run.run_id if run is not None else None,
            schedule=schedule.name, generation=schedule.generation, channel=channel, title=title, body=body,
            picture=str(self.home.run(run.run_id).picture) if run is not None else None,
        )  # fmt: skip

    def _where(self, run: RunView | None) -> str:
        return str(self.home.run(run.run_id).report) if run is not None else ""

    # -- what people do

    def views(self, schedule: str | None = None) -> list[AlertView]:
        """Return alerts: those that fire, those that are pending, the newest resolved."""
        self._sweep()
        return self.store.views(schedule)

    def acknowledge(self, alert_id: int, who: str, why: str) -> AlertView:
        """Record who has seen an alert; it is not sent again.

        Raises
        ------
        LeptonError
            If there is no such alert, it is resolved, or no reason is given.
        """
        row = self._open(alert_id, why, "ack")
        change = AlertChange(at=self._now(), what="acknowledged", who=who, why=why)
        return self._mute(row, change, acked_by=who or "somebody", acked_why=why)

    def silence(self, alert_id: int, until: float, who: str, why: str) -> AlertView:
        """Send nothing about an alert until a time; its next episodes are silent until then, too.

        Raises
        ------
        LeptonError
            If there is no such alert, it is resolved, the time has passed, or no reason is given.
        """
        row = self._open(alert_id, why, "silence")
        if not math.isfinite(until) or until <= self._now():
            raise LeptonError(f"{until!r} lies in the past: nothing would be silenced.", "Say how long: --hours 2.")
        change = AlertChange(at=self._now(), what=f"silenced until {messages.clock(until)}", who=who, why=why)
        return self._mute(row, change, silenced_until=until, silenced_by=who or "somebody", silenced_why=why)

    def _open(self, alert_id: int, why: str, flag: str) -> AlertRow:
        row = self.store.alert(alert_id)
        if row is None:
            known = [str(each.id) for each in self.store.open_alerts()]
            raise unknown("alert", str(alert_id), known, "List them: %lepton alerts")
        if row.state == "resolved":
            raise LeptonError(
                f"Alert {alert_id} ({row.rule}) was resolved {messages.clock(row.changed_at)}.",
                "Nothing is sent about it any more.",
                code="conflict",
            )
        if not why.strip():
            raise LeptonError("A reason is recorded with it.", f'Say it: %lepton alerts --{flag} {alert_id} --why "…"')
        return row

    def _mute(self, row: AlertRow, change: AlertChange, **values: object) -> AlertView:
        with self._lock, self.store.write() as connection:
            self.store.change(connection, row.id, **values)
            self.store.note(connection, row.id, change)
            self.store.take_back(connection, row.id)
        view = self.store.view(row.id)
        assert view is not None
        return view

    # -- by the clock

    def tick(self) -> None:
        """Resolve what nobody asks for any more, and start what firing alerts are to start."""
        self._sweep()
        if self.on_firing is None:
            return
        for row in self.store.open_alerts():
            schedule = self._schedules.row(row.schedule)
            if row.state != "firing" or row.rule in OURS or schedule is None or schedule.record.on_alert is None:
                continue
            if not self.store.has_change(row.id, (STARTED, NOT_STARTED)):
                self._start(row, schedule.record)

    def _start(self, row: AlertRow, record: ScheduleRecord) -> None:
        """Start it, then write that down: killed between the two it starts once more, and finds the first one going."""
        assert self.on_firing is not None
        what, run_id, why = STARTED, None, str(record.on_alert)
        try:
            run_id = self.on_firing(row.view(), record)
        except LeptonError as error:
            what, why = NOT_STARTED, f"{record.on_alert}: {error.message}"
        except Exception as error:
            log.exception("alert %d could not start %s", row.id, record.on_alert)
            what, why = NOT_STARTED, f"{record.on_alert}: {type(error).__name__}: {error}"
        with self._lock, self.store.write() as connection:
            self.store.note(connection, row.id, AlertChange(at=self._now(), what=what, run_id=run_id, why=why))

    def _sweep(self) -> None:
        """Resolve the alerts of rules and schedules that are gone."""
        with self._lock:
            gone = []
            for row in self.store.open_alerts():
                schedule = self._schedules.row(row.schedule)
                if schedule is None:
                    gone.append((row, "the schedule was deleted"))
                elif row.rule not in (*schedule.record.alerts, *OURS):
                    gone.append((row, "no longer asked for"))
            if gone:
                with self.store.write() as connection:
                    for row, why in gone:
                        self._resolve(connection, row, why)


def _is_known(row: AlertRow, run: RunView, at: float) -> bool:
    """Whether a run was judged already, or is older than the alert."""
    return row.run_id == run.run_id or at < row.since


def _findings(record: ScheduleRecord, run: RunView) -> list[Finding]:
    """Return what a run that has ended says of every rule of its schedule."""
    is_whole = run.state == "completed"
    found = [Finding(DID_NOT_FIRE, False, "The schedule has fired again.")]
    absent = []
    for text in record.alerts:
        try:
            rule = parse_rule(text, known=None)
        except LeptonError as error:  # typed to another version of ours
            log.warning("schedule %s: %s", record.name, error)
            continue
        value = run.checks.get(rule.check) if is_whole else None
        is_met = rule.is_met_by(value)
        says = {True: f"meets {text}", False: f"does not meet {text}", None: "was not measured"}[is_met]
        found.append(
            Finding(text, is_met, f"{rule.check} is {messages.figure(value)}: it {says}.", value, record.for_reports)
        )
        if is_whole and record.notebook is not None and rule.check not in run.checks:
            absent.append(rule.check)
    found.append(_report(run, absent))
    return found


def _report(run: RunView, absent: list[str]) -> Finding:
    if run.state in ("failed", "lost"):
        reason = f": {run.error.message}" if run.error is not None else "."
        return Finding(REPORT_FAILED, True, f"Run {run.run_id} of {run.title} is {run.state}{reason}")
    if absent:
        names = ", ".join(f"'{name}'" for name in absent)
        return Finding(REPORT_FAILED, True, f"The report made no check {names}, at which an alert looks.")
    is_met = False if run.state == "completed" else None  # one that a person stopped says nothing
    return Finding(REPORT_FAILED, is_met, "The report ran to its end.")
