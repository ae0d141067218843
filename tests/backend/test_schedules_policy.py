"""What was missed, what is still going, what fails, and clocks that move: by a clock that the tests move."""

from __future__ import annotations

import pytest

from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.runner.request import read_record

from .bench import START, Bench

# -- what was missed


@pytest.mark.parametrize(
    ("catch_up", "states", "n_missed"),
    [("latest", ["fired"], [4]), ("all", ["fired", *["waiting"] * 4], [0] * 5), ("skip", ["missed", "fired"], [3, 0])],
)
def test_what_was_missed_is_caught_up_by_policy(
    bench: Bench, catch_up: str, states: list[str], n_missed: list[int]
) -> None:
    bench.ledger.takes_s = 10
    bench.define(catch_up=catch_up)
    bench.forward(5 * 3600 + 1)  # the newest is on time
    assert bench.states() == states
    assert [row.n_missed for row in bench.rows()] == n_missed
    assert sum(1 + row.n_missed for row in bench.rows()) == 5


def test_a_due_time_that_nobody_saw_for_a_minute_is_missed(bench: Bench) -> None:
    bench.define(catch_up="skip")
    bench.define("quick", every="10s", catch_up="skip")
    bench.forward(3600 + 59)
    bench.forward(3600 + 10)
    assert bench.states() == ["fired", "missed"]
    assert [row.n_missed for row in bench.rows("quick")] == [364, 360], "half the way to the next one is too late"
    assert bench.driver.view("report").n_missed == 1
    assert bench.driver.view("quick").n_missed == 365 + 361
    assert ("too late", "report", 1, START + 7200) in bench.listener.told


def test_a_due_time_is_late_for_nobody_where_the_latest_fires(bench: Bench) -> None:
    bench.define()
    bench.forward(3600 + 3000)
    bench.forward(5 * 3600)
    assert [(row.state, row.n_missed) for row in bench.rows()] == [("fired", 0), ("fired", 4)]
    assert bench.listener.told[0] == ("ended", "report", bench.rows()[0].run_id, "completed")
    assert bench.listener.told[1] == ("too late", "report", 4, START + 6 * 3600)


def test_what_all_catches_up_runs_one_after_the_other_the_oldest_first(bench: Bench) -> None:
    bench.ledger.takes_s = 60
    bench.define(catch_up="all")
    bench.forward(3 * 3600)
    bench.forward(300, step_s=10)
    assert bench.states() == ["fired"] * 3
    started = [bench.rows()[index].at for index in range(3)]
    assert started == sorted(started)
    assert started[1] - started[0] >= 60
    records = [read_record(RunFolder(bench.home.run(str(row.run_id)).root)) for row in bench.rows()]
    assert [record.due_at for record in records] == [START + 3600 * (1 + index) for index in range(3)]


def test_at_most_a_thousand_are_caught_up_and_the_older_ones_are_counted(bench: Bench) -> None:
    bench.define(every="1s", catch_up="all")
    bench.forward(10_000)
    rows = bench.rows()
    assert len(rows) == 1000
    assert rows[0].n_missed == 9000
    assert sum(1 + row.n_missed for row in rows) == 10_000


# -- a run that is still going


def test_a_due_time_is_skipped_while_the_run_before_is_going(bench: Bench) -> None:
    bench.ledger.takes_s = 5000
    bench.define()
    bench.forward(3 * 3600, step_s=60)
    assert bench.states() == ["fired", "skipped", "fired"]
    assert bench.rows()[1].why == "the run before was still going"


def test_due_times_queue_where_the_schedule_says_so(bench: Bench) -> None:
    bench.ledger.takes_s = 5000
    bench.define(overlap="queue")
    bench.forward(3 * 3600, step_s=60)
    assert bench.states() == ["fired", "fired", "waiting"]
    bench.forward(3600, step_s=60)
    assert bench.states() == ["fired", "fired", "fired", "waiting"]
    assert len(bench.ledger.taken) == 3


# -- runs that fail


def test_a_run_that_fails_is_tried_again_after_growing_pauses_and_told_of_once(bench: Bench) -> None:
    bench.ledger.outcome = "failed"
    bench.define(retries=2)
    bench.forward(3600 + 120, step_s=1)
    row = bench.rows()[0]
    assert (row.state, row.attempt, row.is_closed) == ("fired", 2, True)
    assert len(bench.ledger.taken) == 3
    attempts = {record.attempt: record for record in map(read_record, map(bench.home.run, bench.ledger.taken))}
    assert attempts[1].created_at - attempts[0].created_at >= 10
    assert attempts[2].created_at - attempts[1].created_at >= 20
    assert {record.due_at for record in attempts.values()} == {START + 3600}
    assert bench.listener.told == [("ended", "report", row.run_id, "failed")]
    assert bench.driver.view("report").n_fired == 1


def test_a_stopped_run_is_not_tried_again(bench: Bench) -> None:
    bench.ledger.outcome = "stopped"
    bench.define(retries=2)
    bench.forward(3600 + 120, step_s=10)
    assert len(bench.ledger.taken) == 1
    assert bench.rows()[0].is_closed


def test_a_next_try_gives_way_to_the_next_due_time(bench: Bench) -> None:
    bench.ledger.outcome = "failed"
    bench.define(every="5s", retries=3)
    bench.forward(6, step_s=1)
    assert bench.driver.view("report").last == bench.driver.view("report").firings[0]
    assert "try 1 failed" in bench.driver.view("report").firings[0].why
    bench.forward(20, step_s=1)
    rows = bench.rows()
    assert [row.state for row in rows[:4]] == ["fired"] * 4
    assert {row.attempt for row in rows} == {0}
    assert [said[0] for said in bench.listener.told].count("ended") >= 3


# -- a clock that moves


def test_a_clock_that_was_set_back_for_long_fires_by_the_new_time_and_nothing_twice(bench: Bench) -> None:
    bench.define()
    bench.clock.at = START + 2 * 3600
    bench.tick()
    bench.clock.at = START + 1000 * 3600  # set forward, wrongly
    bench.tick()
    fired = {row.due_at for row in bench.rows()}
    bench.clock.at = START + 2 * 3600 + 60
    bench.forward(3 * 3600, step_s=60)
    again = {row.due_at for row in bench.rows()} - fired
    assert again == {START + index * 3600 for index in (3, 4, 5)}
    assert set(bench.ledger.taken.values()) == {1}


def test_a_clock_that_is_set_back_a_little_repeats_nothing(bench: Bench) -> None:
    bench.define(every="10m")
    bench.forward(3600, step_s=60)
    bench.clock.at -= 1500
    bench.forward(3600, step_s=60)
    assert [row.due_at for row in bench.rows()] == [START + 600 * (1 + index) for index in range(9)]
    assert set(bench.ledger.taken.values()) == {1}
