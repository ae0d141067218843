"""Schedules as they are defined, asked for, unable to fire; and reports: by a clock that the tests move."""

from __future__ import annotations

import json
import os

import msgspec
import pytest
from sqlalchemy import event, select

from lepton_jupyter.backend.recorder import metric_key
from lepton_jupyter.backend.schedule_store import ScheduleRow
from lepton_jupyter.backend.tables import checks
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.runner.request import read_record

from .bench import START, Bench, KilledError, Listener
from .conftest import cells

# -- what is defined


def test_defining_the_same_again_changes_nothing(bench: Bench) -> None:
    bench.define()
    bench.forward(1800)
    before = bench.driver.view("report")
    bench.define()
    assert bench.driver.view("report") == before
    assert len(list((bench.home.schedules / "report").iterdir())) == 1


def test_the_same_definition_twice_on_the_wire_is_one(bench: Bench) -> None:
    generation = bench.write()
    assert bench.driver.define("report", generation) == bench.driver.define("report", generation)


def test_another_interval_counts_from_now_and_old_definitions_are_removed(bench: Bench) -> None:
    bench.define()
    bench.forward(1800)
    bench.define(every="2h")
    assert bench.driver.view("report").next_due_at == START + 1800 + 7200
    bench.define(every="2h", retries=3)
    assert bench.driver.view("report").next_due_at == START + 1800 + 7200, "its clock is the same"
    assert len(list((bench.home.schedules / "report").iterdir())) == 1


def test_a_paused_schedule_misses_nothing_and_goes_on_when_it_is_defined_again(bench: Bench) -> None:
    bench.define()
    bench.driver.pause("report")
    assert bench.driver.view("report").state == "paused"
    bench.forward(5 * 3600, step_s=600)
    assert bench.rows() == []
    bench.forward(100)
    bench.define()
    view = bench.driver.view("report")
    assert (view.state, view.next_due_at, view.n_missed) == ("active", START + 6 * 3600, 0)


def test_pausing_lets_nothing_wait(bench: Bench) -> None:
    bench.ledger.takes_s = 100_000
    bench.define(overlap="queue")
    bench.forward(3 * 3600, step_s=600)
    bench.driver.pause("report")
    assert bench.states() == ["fired", "skipped", "skipped"]
    assert bench.rows()[1].why == "the schedule was paused"


def test_a_name_of_another_kind_is_not_taken_over(bench: Bench) -> None:
    bench.watch()
    bench.define("monitor-diagnosis", kind="monitor", subject="diagnosis", notebook=None)
    with pytest.raises(LeptonError, match="monitor schedule already, of diagnosis"):
        bench.define("monitor-diagnosis")


@pytest.mark.parametrize(("name", "generation"), [("report", "gone12"), ("../x", "abc"), ("report", "../../x")])
def test_what_was_never_written_cannot_be_defined(bench: Bench, name: str, generation: str) -> None:
    with pytest.raises(LeptonError):
        bench.driver.define(name, generation)


def test_a_timing_that_is_none_is_refused_and_nothing_is_defined(bench: Bench) -> None:
    with pytest.raises(LeptonError, match="no interval"):
        bench.define(every="sometimes")
    assert bench.driver.views() == []


def test_an_unknown_schedule_is_named_with_the_known_ones(bench: Bench) -> None:
    bench.define()
    for ask in (
        bench.driver.view,
        bench.driver.pause,
        bench.driver.delete,
        lambda name: bench.driver.fire_now(name, ""),
    ):
        with pytest.raises(LeptonError, match=r"Known: report\. Did you mean 'report'"):
            ask("reprot")


def test_a_deleted_schedule_leaves_no_row_no_folder_and_no_secret(bench: Bench) -> None:
    bench.define()
    bench.forward(3600)
    bench.driver.delete("report")
    assert bench.driver.views() == []
    assert bench.rows() == []
    assert not (bench.home.schedules / "report").exists()
    assert bench.listener.told[-1] == ("removed", "report")
    bench.forward(7200, step_s=600)
    assert len(bench.ledger.taken) == 1
    assert bench.home.run(next(iter(bench.ledger.taken))).record.exists(), "its runs stay"


def test_a_deletion_that_was_killed_leaves_no_secret_and_can_be_asked_for_again(bench: Bench) -> None:
    bench.define()

    def kill(_: object) -> None:
        raise KilledError

    event.listen(bench.engine, "commit", kill)
    with pytest.raises(KilledError):
        bench.driver.delete("report")
    event.remove(bench.engine, "commit", kill)
    assert not (bench.home.schedules / "report").exists()
    bench.new_driver().delete("report")
    assert bench.driver.views() == []


def test_a_definition_that_never_arrived_is_swept(bench: Bench) -> None:
    bench.define()
    bench.write("lost")
    for folder in bench.home.schedules.glob("*/*"):
        os.utime(folder, (1.0, 1.0))
    bench.driver.sweep_folders()
    assert [folder.parent.name for folder in bench.home.schedules.glob("*/*")] == ["report"]


def test_a_schedule_whose_zone_is_known_no_more_is_paused_and_told_and_the_others_go_on(bench: Bench) -> None:
    bench.define(every="daily", tz="Europe/Berlin")
    bench.define("other")
    row = bench.driver.store.row("report")
    assert row is not None
    gone = msgspec.structs.replace(row.record, tz="Europe/Atlantis")
    bench.driver.store.save(msgspec.structs.replace(row, record=gone))
    bench.forward(86_400, step_s=3600)
    assert bench.driver.view("report").state == "paused"
    assert any(said[0] == "could not" and "No time zone" in said[2] for said in bench.listener.told)
    assert bench.driver.view("other").n_fired == 24


# -- asked for


def test_a_schedule_without_a_clock_fires_when_it_is_asked(bench: Bench) -> None:
    bench.define(every="")
    bench.forward(100_000, step_s=10_000)
    assert bench.rows() == []
    run_id = bench.driver.fire_now("report", "alert 3: psi > 0.2")
    record = read_record(bench.home.run(run_id))
    assert (record.asked_by, record.schedule, record.due_at) == ("alert", "report", None)
    bench.tick()
    assert bench.listener.told == [("ended", "report", run_id, "completed")]
    second = bench.driver.fire_now("report", "alertmanager asked for it")
    assert read_record(bench.home.run(second)).asked_by == "person"
    assert bench.driver.view("report").next_due_at is None


def test_a_schedule_whose_run_is_going_is_not_fired_again(bench: Bench) -> None:
    bench.ledger.takes_s = 100
    bench.define()
    run_id = bench.driver.fire_now("report", "")
    with pytest.raises(LeptonError, match=f"run {run_id} has not ended"):
        bench.driver.fire_now("report", "")
    assert len(bench.rows()) == 1


def test_asking_moves_no_due_time(bench: Bench) -> None:
    bench.define()
    bench.driver.fire_now("report", "")
    bench.forward(7200, step_s=60)
    assert [row.due_at for row in bench.rows()] == [START, START + 3600, START + 7200]


def test_a_paused_schedule_fires_for_a_person_but_for_no_alert(bench: Bench) -> None:
    bench.define()
    bench.driver.pause("report")
    with pytest.raises(LeptonError, match="is paused"):
        bench.driver.fire_now("report", "alert 1")
    assert bench.driver.fire_now("report", "you asked for it")


def test_a_tick_tells_which_runs_are_going_whoever_fired_them(bench: Bench) -> None:
    bench.ledger.takes_s = 100
    bench.define()
    bench.forward(3600)
    told = bench.new_driver().tick()
    assert told.run_ids == tuple(bench.ledger.taken)
    assert told.next_due_at == START + 7200
    bench.forward(200, step_s=50)
    assert bench.driver.tick().run_ids == ()


# -- what cannot fire


def test_a_notebook_that_is_gone_is_said_and_tried_again_at_the_next_due_time(bench: Bench) -> None:
    bench.define()
    path = bench.folder / "report.ipynb"
    content = path.read_bytes()
    path.unlink()
    bench.forward(3600)
    assert bench.states() == ["failed"]
    assert "No notebook" in bench.rows()[0].why
    assert bench.listener.told[0][:2] == ("could not", "report")
    assert "is gone" in bench.driver.view("report").error
    path.write_bytes(content)
    bench.forward(3600)
    assert bench.states() == ["failed", "fired"]
    assert bench.driver.view("report").error == ""


def test_a_changed_notebook_is_shown_and_executed_as_it_is_now(bench: Bench) -> None:
    from lepton_jupyter.runner.scheduled import source_hash

    path = bench.folder / "report.ipynb"
    bench.define(source_hash=source_hash(path))
    assert not bench.driver.view("report").is_source_changed
    path.write_text(json.dumps(cells("2 + 2 == 4")))
    assert bench.driver.view("report").is_source_changed
    bench.forward(3600)
    assert "2 + 2 == 4" in bench.home.run(next(iter(bench.ledger.taken))).source.read_text()


def test_while_no_run_is_taken_a_firing_stays_claimed(bench: Bench) -> None:
    bench.define()
    bench.ledger.refuses = LeptonError("The backend is being stopped.", code="unavailable")
    bench.forward(3600)
    assert bench.states() == ["claimed"]
    with pytest.raises(LeptonError, match="is going"):
        bench.driver.fire_now("report", "")
    bench.define("other", every="")
    with pytest.raises(LeptonError, match="It will, when the backend is back"):
        bench.driver.fire_now("other", "")
    bench.ledger.refuses = None
    bench.tick()
    assert bench.states() == bench.states("other") == ["fired"]
    assert set(bench.ledger.taken.values()) == {1}


def test_a_listener_that_stumbles_holds_nobody_up(bench: Bench) -> None:
    class Broken(Listener):
        def run_ended(self, schedule: ScheduleRow, run: RunView) -> None:
            raise RuntimeError("no")

    bench.driver.listeners.insert(0, Broken())
    bench.define()
    bench.forward(7200, step_s=60)
    bench.tick()
    assert len([said for said in bench.listener.told if said[0] == "ended"]) == 2


def test_only_the_newest_twenty_firings_keep_their_html(bench: Bench) -> None:
    bench.define(every="10m")
    for _ in range(25):
        bench.forward(600)
        for run_id in bench.ledger.taken:
            bench.ledger.end(run_id)
        newest = bench.home.run(str(bench.rows()[-1].run_id))
        newest.report.write_text("<html>")
        bench.tick()
    kept = [bench.home.run(str(row.run_id)).report.exists() for row in bench.rows()]
    assert kept == [False] * 5 + [True] * 20


# -- reports on endpoints


def test_a_report_begins_where_the_last_one_that_completed_ended(bench: Bench) -> None:
    bench.watch(created_at=START - 500)
    bench.define("monitor-diagnosis", kind="monitor", subject="diagnosis", notebook=None)
    bench.ledger.outcome = "failed"
    bench.forward(3600)
    bench.tick()
    bench.ledger.outcome = "completed"
    bench.forward(7200, step_s=3600)
    bench.tick()
    records = [read_record(bench.home.run(str(row.run_id))) for row in bench.rows("monitor-diagnosis")]
    windows = [(record.parameters["window_start"], record.parameters["window_end"]) for record in records]
    since = START - 500
    assert windows == [(since, START + 3600), (since, START + 7200), (START + 7200, START + 10_800)]
    assert {(record.kind, record.endpoint, record.title) for record in records} == {
        ("monitor", "diagnosis", "diagnosis")
    }
    assert bench.driver.window_start("diagnosis", "monitor-diagnosis") == START + 10_800
    assert bench.driver.window_start("diagnosis") == since, "reports for which a person asks have their own"


def test_a_window_of_its_own_looks_back_as_far_as_it_says(bench: Bench) -> None:
    bench.watch()
    bench.define("monitor-diagnosis", kind="monitor", subject="diagnosis", notebook=None, window_s=600.0)
    bench.forward(3600)
    (run_id,) = bench.ledger.taken
    parameters = read_record(bench.home.run(run_id)).parameters
    assert (parameters["window_start"], parameters["window_end"]) == (START + 3000, START + 3600)


def test_a_report_on_an_endpoint_that_is_gone_cannot_fire(bench: Bench) -> None:
    bench.define("monitor-diagnosis", kind="monitor", subject="diagnosis", notebook=None)
    bench.forward(3600)
    assert bench.states("monitor-diagnosis") == ["failed"]
    assert "No endpoint named 'diagnosis'" in bench.rows("monitor-diagnosis")[0].why


def test_an_endpoint_s_schedules_go_with_it(bench: Bench) -> None:
    bench.watch()
    bench.define("monitor-diagnosis", kind="monitor", subject="diagnosis", notebook=None)
    bench.define("retrain-diagnosis", kind="retrain", subject="diagnosis", notebook=None)
    assert bench.driver.delete_of_endpoint("diagnosis") == ["monitor-diagnosis"]
    assert bench.driver.names() == ["retrain-diagnosis"]


def test_checks_are_rows_and_once_more_are_the_same_rows(bench: Bench) -> None:
    view = RunView(
        run_id="r1", kind="monitor", title="diagnosis", state="completed", created_at=START, endpoint="diagnosis",
        schedule="monitor-diagnosis", checks={"psi": 0.41, "missing(age)": None},
    )  # fmt: skip
    for _ in range(2):
        bench.driver.store.save_checks(view, START + 1)
    with bench.engine.connect() as connection:
        rows = connection.execute(select(checks.c.name, checks.c.value, checks.c.subject, checks.c.schedule)).all()
    assert {tuple(row) for row in rows} == {
        ("psi", 0.41, "diagnosis", "monitor-diagnosis"),
        ("missing(age)", None, "diagnosis", "monitor-diagnosis"),
    }
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("check", "key"),
    [
        ("psi", "psi"),
        ("missing(age)", "missing/age"),
        ("psi(größe in %)", "psi/größe in _"),
        ("psi(a/b)", "psi/a_b"),
        ("psi(..)", "psi/_.."),
        ("psi(f(x))", "psi/f_x_"),
        ("psi(" + "x" * 300 + ")", "psi/" + "x" * 246),
    ],
)
def test_mlflow_takes_the_name_of_every_check(check: str, key: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert metric_key(check) == key
    _validate_metric_name(key)
