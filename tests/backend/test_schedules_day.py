"""A day of two hundred schedules, by drivers that are killed; and drivers in threads."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import event

from lepton_jupyter.backend.schedules import Schedules
from lepton_jupyter.backend.tables import open_database
from lepton_jupyter.runner.timing import parse_every

from .bench import START, Bench, KilledError

MIX = [("30m", "UTC", 8), ("hourly", "Europe/Berlin", 8), ("3h", "UTC", 60), ("5h", "UTC", 64),
       ("0 */6 * * *", "America/New_York", 40), ("daily", "Asia/Shanghai", 20)]  # fmt: skip


@pytest.mark.timeout(600)  # ten seconds, where nobody else wants the machine
def test_two_drivers_that_are_killed_at_random_fire_every_due_time_of_a_day_once(bench: Bench) -> None:
    seed = random.Random(7)
    schedules = [(every, tz, ("latest", "all", "skip")[index % 3]) for every, tz, n in MIX for index in range(n)]
    assert len(schedules) == 200
    for index, (every, tz, catch_up) in enumerate(schedules):
        bench.define(f"s{index}", every=every, tz=tz, catch_up=catch_up)
    bench.ledger.takes_s = 100.0
    n_kills, n_statements = 0, 0

    def maybe_kill(*_: Any) -> None:
        nonlocal n_statements, n_kills
        n_statements += 1
        if is_armed and seed.random() < 0.004:
            n_kills += 1
            raise KilledError

    is_armed = False
    event.listen(bench.engine, "before_cursor_execute", maybe_kill)
    event.listen(bench.engine, "after_cursor_execute", maybe_kill)
    event.listen(bench.engine, "commit", maybe_kill)
    bench.ledger.before = bench.ledger.after = maybe_kill
    drivers: list[Schedules | None] = [bench.new_driver(), bench.new_driver()]
    down_until = [0.0, 0.0]
    end = START + 86_400
    while bench.clock.at < end:
        bench.clock.at = min(bench.clock.at + 60.0, end)
        bench.ledger.end_what_is_over()
        for which in (0, 1):
            if drivers[which] is None and bench.clock() >= down_until[which]:
                drivers[which] = bench.new_driver()
            driver = drivers[which]
            if driver is None or not driver.is_due():
                continue
            is_armed = True
            try:
                driver.tick()
            except KilledError:
                drivers[which] = None
                down_until[which] = bench.clock() + seed.choice([0, 0, 0, 60, 60, 600, 5000])
            is_armed = False
    for _ in range(50):  # what was claimed at the end, and what waits in line
        bench.clock.at += 0.1 if bench.ledger.ends else 0.0
        bench.driver.tick()
        bench.ledger.end_what_is_over()
        for run_id in list(bench.ledger.ends):
            bench.ledger.end(run_id)
    assert n_kills > 50, n_statements
    fired = []
    for index, (every, tz, catch_up) in enumerate(schedules):
        rows, timing, now, expected = bench.rows(f"s{index}"), parse_every(every, tz, START), START, []
        while (now := timing.next_after(now, START)) <= end:
            expected.append(now)
        assert sum(1 + row.n_missed for row in rows) == len(expected), (every, catch_up)
        assert {row.due_at for row in rows} <= set(expected)
        if catch_up == "all":
            assert [row.due_at for row in rows] == expected
        assert {row.state for row in rows} <= {"fired", "missed", "skipped"}, [
            (r.state, r.due_at - START, r.run_id, r.retry_at, r.run.state if r.run else None, r.is_closed)
            for r in rows[-8:]
        ]
        assert all(row.is_closed for row in rows)
        fired += [row.run_id for row in rows if row.state == "fired"]
    assert len(set(fired)) == len(fired)
    assert set(fired) == set(bench.ledger.taken)
    assert set(bench.ledger.taken.values()) == {1}
    told = Counter(said[2] for said in bench.listener.told if said[0] == "ended")
    assert set(told) == set(fired)


def test_drivers_in_several_threads_fire_once(bench: Bench) -> None:
    for index in range(20):
        bench.define(f"s{index}", every="10s")
    engines = [open_database(bench.home.state_db) for _ in range(4)]
    drivers = [bench.new_driver(engine) for engine in engines]
    for _ in range(5):
        bench.clock.at += 10.0
        bench.ledger.end_what_is_over()
        threads = [threading.Thread(target=driver.tick) for driver in drivers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for engine in engines:
        engine.dispose()
    assert sum(bench.ledger.taken.values()) == 100
    assert set(bench.ledger.taken.values()) == {1}
    assert {state for index in range(20) for state in bench.states(f"s{index}")} == {"fired"}
