"""Alerts over real tables: what reports do to them, who is told, what people do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from lepton_jupyter.backend import alert_store
from lepton_jupyter.backend.alerts import Alerts
from lepton_jupyter.backend.schedule_store import ScheduleRow, ScheduleStore
from lepton_jupyter.backend.tables import open_database
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, new_run_id
from lepton_jupyter.formats.alerts import DID_NOT_FIRE, REPORT_FAILED, AlertView
from lepton_jupyter.formats.schedule import ScheduleRecord
from lepton_jupyter.formats.views import Failure, RunView

NOW = 1_000_000.0


class Watch:
    """A schedule with rules, and reports on it one after the other."""

    def __init__(self, home: Home) -> None:
        self.at = NOW
        self.engine = open_database(home.state_db)
        self.schedules = ScheduleStore(self.engine)
        self.alerts = Alerts(home, self.engine, now=lambda: self.at)
        self.record = ScheduleRecord(
            name="monitor-e", kind="monitor", subject="e", python="python", cwd="/", created_at=NOW, every="5m",
            alerts=("psi > 0.2",), notify=("env:OPS",),
        )  # fmt: skip
        self.define()

    def define(self, **changes: Any) -> None:
        """Define the schedule, again."""
        self.record = msgspec.structs.replace(self.record, **changes)
        self.row = ScheduleRow(
            name="monitor-e", generation=new_run_id(), record=self.record, state="active", created_at=NOW,
            anchor_at=NOW, next_due_at=None,
        )  # fmt: skip
        self.schedules.save(self.row)

    def report(self, psi: float | None = None, *, state: str = "completed", **more: Any) -> RunView:
        """Let a report end a minute later."""
        self.at += 60
        run = RunView(
            **{
                "run_id": new_run_id(), "kind": "monitor", "title": "report on e", "state": state,
                "created_at": self.at - 5, "ended_at": self.at, "checks": {"psi": psi},
                "result": {"verdict": "DRIFT" if psi else "OK", "headline": "h", "sentences": ["age drifted"]}, **more,
            }
        )  # fmt: skip
        self.alerts.run_ended(self.row, run)
        return run

    def only(self) -> AlertView:
        """Return the one alert there is."""
        (view,) = self.alerts.views()
        return view

    def titles(self) -> list[str]:
        """Return what was to be sent."""
        return [message.title for message in self.alerts.store.messages()]


@pytest.fixture
def watch(home: Home) -> Iterator[Watch]:
    watch = Watch(home)
    yield watch
    watch.engine.dispose()


def test_an_alert_is_pending_then_fires_then_is_resolved(watch: Watch) -> None:
    watch.report(0.1)
    assert watch.alerts.views() == []
    watch.report(0.41)
    assert (watch.only().state, watch.titles()) == ("pending", [])
    fired = watch.report(0.42)
    view = watch.only()
    assert (view.state, view.value, view.run_id) == ("firing", 0.42, fired.run_id)
    assert view.text == "psi is 0.42: it meets psi > 0.2."
    watch.report(0.5)
    watch.report(0.0)
    view = watch.only()
    assert (view.state, view.since, view.changed_at) == ("resolved", NOW + 120, NOW + 300)
    assert [change.what for change in view.history] == ["pending", "firing", "resolved"]
    assert watch.titles() == ["[FIRING] e: psi > 0.2 (0.42), DRIFT", "[RESOLVED] e: psi > 0.2 (0), OK"]
    assert [sent.channel for sent in view.deliveries] == ["env:OPS", "env:OPS"]


def test_what_was_not_measured_changes_nothing(watch: Watch) -> None:
    watch.report(0.41)
    watch.report(None)
    watch.report(checks={})
    assert watch.only().state == "pending"
    watch.report(0.41)
    watch.report(float("nan"))
    assert watch.only().state == "firing"


def test_a_report_that_is_judged_twice_counts_once(watch: Watch) -> None:
    first = watch.report(0.41)
    watch.alerts.run_ended(watch.row, first)
    assert watch.only().state == "pending"
    second = watch.report(0.41)
    for run in (second, first):  # told again after a crash
        watch.alerts.run_ended(watch.row, run)
    assert len(watch.titles()) == 1
    older = msgspec.structs.replace(first, run_id=new_run_id(), ended_at=NOW, checks={"psi": 0.0})
    watch.alerts.run_ended(watch.row, older)
    assert watch.only().state == "firing"


def test_a_report_that_fails_is_an_alert_at_once_and_a_good_one_resolves_it(watch: Watch) -> None:
    watch.report(0.41)
    watch.report(state="failed", error=Failure(message="KeyError: 'age'"), checks={"psi": 0.0})
    failed = next(view for view in watch.alerts.views() if view.rule == REPORT_FAILED)
    assert failed.state == "firing" and "KeyError: 'age'" in failed.text
    assert watch.titles()[-1].startswith("[FIRING] e: report failed")
    assert next(view for view in watch.alerts.views() if view.rule == "psi > 0.2").state == "pending"
    watch.report(state="stopped")
    assert next(view for view in watch.alerts.views() if view.rule == REPORT_FAILED).state == "firing"
    watch.report(0.41)
    assert next(view for view in watch.alerts.views() if view.rule == REPORT_FAILED).state == "resolved"


def test_a_notebook_of_ones_own_that_makes_no_such_check_has_failed(watch: Watch) -> None:
    watch.define(notebook="/own.ipynb", alerts=("sales < 3",))
    watch.report(checks={"sale": 2.0})
    assert "made no check 'sales'" in watch.only().text
    watch.report(checks={"sales": 5.0})
    assert watch.only().state == "resolved"


def test_a_schedule_that_did_not_fire_is_an_alert_until_it_does(watch: Watch) -> None:
    watch.alerts.could_not_fire(watch.row, "No notebook '/gone.ipynb'.")
    assert (watch.only().rule, watch.only().state) == (DID_NOT_FIRE, "firing")
    assert "No notebook '/gone.ipynb'" in watch.only().text
    watch.alerts.came_too_late(watch.row, 3, NOW)
    assert "3 due times were missed" in watch.only().text
    assert len(watch.titles()) == 1
    watch.report(0.0)
    assert watch.only().state == "resolved"
    assert watch.titles()[-1].startswith("[RESOLVED] e: schedule did not fire")


def test_what_a_person_has_seen_is_not_sent_again(watch: Watch) -> None:
    watch.report(0.41)
    number = watch.only().id
    view = watch.alerts.acknowledge(number, "ann", "new clinic")
    assert (view.acked_by, view.acked_why) == ("ann", "new clinic")
    assert (view.history[-1].what, view.history[-1].who) == ("acknowledged", "ann")
    for psi in (0.41, 0.41, 0.0):
        watch.report(psi)
    assert watch.only().state == "resolved" and watch.titles() == []
    watch.report(0.41)
    watch.report(0.41)  # a new episode
    assert len(watch.titles()) == 1


def test_a_message_that_waits_is_taken_back_when_its_alert_is_seen(watch: Watch) -> None:
    watch.report(0.41)
    watch.report(0.41)
    assert len(watch.titles()) == 1
    watch.alerts.acknowledge(watch.only().id, "ann", "seen")
    assert watch.titles() == []


def test_silence_ends_and_what_still_fires_is_told_then(watch: Watch) -> None:
    watch.report(0.41)
    watch.alerts.silence(watch.only().id, watch.at + 150, "ann", "deploying")
    watch.report(0.41)
    watch.report(0.41)
    assert watch.titles() == []
    watch.report(0.43)
    assert watch.titles() == ["[FIRING] e: psi > 0.2 (0.43), DRIFT"]


def test_an_alert_that_flaps_stays_silenced(watch: Watch) -> None:
    watch.define(for_reports=1)
    watch.report(0.41)
    watch.alerts.silence(watch.only().id, watch.at + 10_000, "ann", "deploying")
    for psi in (0.0, 0.41, 0.0):
        watch.report(psi)
    assert [view.silenced_by for view in watch.alerts.views()] == ["ann", "ann"]
    assert watch.titles() == []


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda alerts, n: alerts.acknowledge(99, "ann", "x"), "No alert named '99'. Known: 1."),
        (lambda alerts, n: alerts.acknowledge(n, "ann", " "), "--ack 1 --why"),
        (lambda alerts, n: alerts.silence(n, NOW, "ann", "x"), "lies in the past"),
        (lambda alerts, n: alerts.silence(n, float("inf"), "ann", "x"), "lies in the past"),
    ],
)
def test_what_cannot_be_seen_or_silenced_is_refused(watch: Watch, act: Callable[..., Any], says: str) -> None:
    watch.report(0.41)
    with pytest.raises(LeptonError) as caught:
        act(watch.alerts, watch.only().id)
    assert says in str(caught.value)


def test_an_alert_that_is_resolved_cannot_be_acknowledged(watch: Watch) -> None:
    watch.report(0.41)
    watch.report(0.0)
    with pytest.raises(LeptonError, match="was resolved"):
        watch.alerts.acknowledge(watch.only().id, "ann", "late")


def test_a_rule_that_is_no_longer_asked_for_is_resolved_and_nobody_is_told(watch: Watch) -> None:
    watch.report(0.41)
    watch.report(0.41)
    watch.define(alerts=("error_rate > 0.1",))
    view = watch.only()
    assert (view.state, view.history[-1].why) == ("resolved", "no longer asked for")
    assert watch.titles() == []  # the one that waited was taken back


def test_a_schedule_that_is_deleted_takes_its_alerts_along(watch: Watch) -> None:
    watch.report(0.41)
    watch.report(0.41)
    watch.schedules.drop("monitor-e")
    watch.alerts.schedule_removed("monitor-e")
    assert (watch.only().state, watch.only().history[-1].why) == ("resolved", "the schedule was deleted")
    assert watch.titles() == []


def test_every_report_is_told_where_that_is_asked_for(watch: Watch) -> None:
    watch.define(notify_on="report", alerts=())
    run = watch.report(0.41)
    watch.alerts.run_ended(watch.row, run)
    watch.report(state="failed")
    titles = watch.titles()
    assert titles[0] == "[REPORT] e: DRIFT: h"
    assert len(titles) == 2 and titles[1].startswith("[FIRING] e: report failed")


def test_a_channel_that_is_added_while_an_alert_fires_is_told(watch: Watch) -> None:
    watch.report(0.41)
    watch.report(0.41)
    watch.define(notify=("env:OPS", "env:MAIL"))
    watch.report(0.41)
    watch.report(0.0)
    sent = [(sent.channel, sent.title.split(" ")[0]) for sent in watch.only().deliveries]
    assert sorted(sent) == [
        ("env:MAIL", "[FIRING]"), ("env:MAIL", "[RESOLVED]"), ("env:OPS", "[FIRING]"), ("env:OPS", "[RESOLVED]"),
    ]  # fmt: skip


def test_a_firing_alert_starts_its_retrain_once_an_episode(watch: Watch) -> None:
    asked: list[str] = []

    def start(alert: AlertView, record: ScheduleRecord) -> str:
        asked.append(f"{alert.rule} of {record.subject}")
        return "run1"

    watch.define(on_alert="retrain")
    watch.alerts.on_firing = start
    watch.report(0.41)
    watch.alerts.tick()
    assert asked == []
    watch.report(0.41)
    watch.report(0.41)
    watch.report(state="failed")  # is no reason to train
    for _ in range(2):
        watch.alerts.tick()
    assert asked == ["psi > 0.2 of e"]
    firing = next(view for view in watch.alerts.views() if view.rule == "psi > 0.2")
    started = firing.history[-1]
    assert (started.what, started.run_id, started.why) == ("started", "run1", "retrain")
    for psi in (0.0, 0.41, 0.41):
        watch.report(psi)
    watch.alerts.tick()
    assert len(asked) == 2


def test_a_retrain_that_cannot_start_says_why_and_is_not_asked_for_again(watch: Watch) -> None:
    def refuse(*_: Any) -> str:
        raise LeptonError("Schedule 'retrain-Net' is going.")

    watch.define(on_alert="retrain", for_reports=1)
    watch.alerts.on_firing = refuse
    watch.report(0.41)
    watch.alerts.tick()
    watch.alerts.on_firing = pytest.fail
    watch.alerts.tick()
    last = watch.only().history[-1]
    assert (last.what, last.why) == ("not started", "retrain: Schedule 'retrain-Net' is going.")


def test_alerts_that_fire_come_first_and_every_view_travels(watch: Watch) -> None:
    watch.define(alerts=("psi > 0.2", "error_rate > 0.1", "missing > 0.1"))
    watch.report(0.41, checks={"psi": 0.4, "missing": 0.3, "error_rate": 0.0})
    watch.report(0.41, checks={"psi": 0.4, "missing": 0.0, "error_rate": 0.5})
    views = watch.alerts.views()
    assert [view.state for view in views] == ["firing", "pending", "resolved"]
    assert msgspec.json.decode(msgspec.json.encode(views), type=list[AlertView]) == views


def test_reports_that_were_told_are_forgotten_in_time_and_those_that_wait_are_not(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_store, "KEPT_REPORTS", 3)
    watch.define(notify_on="report", alerts=())
    for _ in range(6):
        watch.report(0.0)
    assert len(watch.titles()) == 6
    with watch.alerts.store.write() as connection:
        connection.exec_driver_sql("UPDATE deliveries SET state = 'delivered'")
    watch.report(0.0)
    assert len(watch.titles()) == 3
