"""A bench for schedules: a clock that tests move, and runs that are only written down (a day of them takes a day)."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from lepton_jupyter.backend.schedule_store import FiringRow, ScheduleRow
from lepton_jupyter.backend.schedules import Schedules
from lepton_jupyter.backend.tables import endpoints, open_database, runs
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder, new_run_id
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.schedule import ScheduleRecord
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.runner.request import read_record

START = 1_790_000_000.25


class KilledError(BaseException):
    """The driver is gone, between two statements."""


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> float:
        return self.at


class Ledger:
    """Takes runs as `Runs` does, and lets them end when the test says."""

    def __init__(self, home: Home, engine: Engine, clock: Clock) -> None:
        self.home = home
        self.engine = engine
        self.clock = clock
        self.taken: Counter[str] = Counter()
        self.ends: dict[str, float] = {}
        self.takes_s = 0.0
        self.outcome = "completed"
        self.refuses: LeptonError | None = None
        self.before = self.after = lambda: None

    def submit(self, run_id: str) -> RunView:
        self.before()
        if self.refuses is not None:
            raise self.refuses
        record = read_record(RunFolder(self.home.run(run_id).root))
        view = RunView(
            run_id=run_id, kind=record.kind, title=record.title, state="running", created_at=record.created_at,
            schedule=record.schedule, endpoint=record.endpoint,
        )  # fmt: skip
        with self.engine.begin() as connection:
            values = {"run_id": run_id, "submitted_at": self.clock(), "kind": record.kind, "state": "running"}
            added = connection.execute(insert(runs).prefix_with("OR IGNORE").values(**values, view=_json(view)))
        if added.rowcount:
            self.taken[run_id] += 1
            self.ends[run_id] = self.clock() + self.takes_s
        self.after()
        return view

    def end_what_is_over(self) -> None:
        for run_id in [run_id for run_id, at in self.ends.items() if at <= self.clock()]:
            del self.ends[run_id]
            self.end(run_id, self.outcome)

    def end(self, run_id: str, state: str = "completed", **told: Any) -> None:
        self.ends.pop(run_id, None)
        with self.engine.begin() as connection:
            view = json.loads(connection.execute(select(runs.c.view).where(runs.c.run_id == run_id)).scalar_one())
            text = json.dumps({**view, "state": state, **told})
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(state=state, view=text))


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def run_ended(self, schedule: ScheduleRow, run: RunView) -> None:
        self.told.append(("ended", schedule.name, run.run_id, run.state))

    def could_not_fire(self, schedule: ScheduleRow, why: str) -> None:
        self.told.append(("could not", schedule.name, why))

    def came_too_late(self, schedule: ScheduleRow, n_missed: int, due_at: float) -> None:
        self.told.append(("too late", schedule.name, n_missed, due_at))

    def schedule_removed(self, name: str) -> None:
        self.told.append(("removed", name))


def _json(view: RunView) -> str:
    return encode(view).decode()


class Bench:
    """A database, a clock, runs that are only written down, and as many drivers as a test wants."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.clock = Clock()
        self.engine = open_database(home.state_db)
        self.ledger = Ledger(home, self.engine, self.clock)
        self.listener = Listener()
        self.driver = self.new_driver()
        (folder / "report.ipynb").write_text(
            json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
        )

    def new_driver(self, engine: Engine | None = None) -> Schedules:
        driver = Schedules(self.home, engine or self.engine, self.ledger, self.clock)
        driver.listeners.append(self.listener)
        return driver

    def write(self, name: str = "report", **more: Any) -> str:
        about = {
            "name": name,
            "kind": "notebook",
            "subject": "report.ipynb",
            "python": sys.executable,
            "cwd": str(self.folder),
            "created_at": self.clock(),
            "notebook": str(self.folder / "report.ipynb"),
            "every": "1h",
        }
        generation = new_run_id()
        folder = self.home.schedule(name, generation)
        folder.root.mkdir(parents=True)
        folder.environment.write_text("{}")
        folder.record.write_bytes(encode(ScheduleRecord(**{**about, **more})))
        return generation

    def define(self, name: str = "report", **more: Any) -> None:
        self.driver.define(name, self.write(name, **more))

    def watch(self, name: str = "diagnosis", created_at: float = START - 500) -> None:
        values = {"name": name, "created_at": created_at, "is_wanted": True, "model": "M", "run_id": "r"}
        with self.engine.begin() as connection:
            connection.execute(insert(endpoints).values(**values, port=1, release=1))

    def forward(self, seconds: float, step_s: float | None = None) -> None:
        """Let time pass: in steps, with a tick at each; without steps nobody is there until the end."""
        until = self.clock.at + seconds
        while self.clock.at < until:
            self.clock.at = min(self.clock.at + (step_s or seconds), until)
            self.ledger.end_what_is_over()
            if self.driver.is_due():
                self.driver.tick()

    def tick(self) -> None:
        self.ledger.end_what_is_over()
        self.driver.tick()

    def rows(self, name: str = "report") -> list[FiringRow]:
        """Return the firings of a schedule, oldest first."""
        return self.driver.store.firings(name, 100_000)[::-1]

    def states(self, name: str = "report") -> list[str]:
        return [row.state for row in self.rows(name)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a thousand folders, and no machine that is switched off
    made = Bench(Home(tmp_path / "home").make(), tmp_path)
    yield made
    made.engine.dispose()
