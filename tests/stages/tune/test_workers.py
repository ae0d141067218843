"""Trials in parallel processes, and what a kill -9 leaves."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch

from lepton_jupyter.core.processes import Identity
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.tune.engine import open_search, run_search
from lepton_jupyter.stages.tune.spec import Tune
from lepton_jupyter.stages.tune.study import record_of
from tests.stages.tune.one_search import TRIALS, Net, search

ROOT = Path(__file__).parents[3]
WAIT_S = 100.0


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which every process that makes a model leaves its number."""
    folder = tmp_path / "seen"
    folder.mkdir()
    monkeypatch.setenv("SEEN", str(folder))
    monkeypatch.setenv("FIRST", str(os.getpid()))
    return folder


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + WAIT_S
    while not condition():
        assert monotonic() < deadline, "waited too long"
        threading.Event().wait(0.02)


class Together(Net):
    """Trains only once a second process does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        until(lambda: len(list(Path(os.environ["SEEN"]).iterdir())) > 1)
        return super().forward(x)


class Killed(Together):
    """Ends every process but the first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() != int(os.environ["FIRST"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def on_two(session: Any, dataset: Dataset, model: Any) -> Any:
    session.devices = ("cpu-0", "cpu-1")
    texts = ("lr=loguniform(1e-4,1e-1)",)
    spec = Tune(model="Net", data=dataset.ref, search=texts, trials=6, epochs=2, batched="no", pruner="none")
    found = open_search(session, model, dataset, spec, {})
    assert run_search(found).startswith("on 2 devices, one after the other")
    return found


def gone(seen: Path) -> bool:
    others = [int(path.name) for path in seen.iterdir() if int(path.name) != os.getpid()]
    return all(Identity.of(pid) is None for pid in others)


def test_two_devices_train_trials_at_the_same_time(session: Any, wdbc: Dataset, seen: Path) -> None:
    found = on_two(session, wdbc, Together)
    assert len(list(seen.iterdir())) == 2
    assert [record_of(trial).state for trial in found.study.trials()] == ["complete"] * 6
    kept = found.keeper.read()
    assert kept is not None
    assert kept.value == found.study.best.value
    assert gone(seen)


def test_a_process_that_is_killed_costs_its_trial_alone(session: Any, wdbc: Dataset, seen: Path) -> None:
    found = on_two(session, wdbc, Killed)
    trials = [record_of(trial) for trial in found.study.trials()]
    assert sorted(trial.state for trial in trials) == ["complete"] * 5 + ["failed"]
    assert [trial.reason for trial in trials if trial.state == "failed"] == [
        "The process that trained it ended with -9."
    ]


def n_written(folder: Path) -> int:
    try:
        with sqlite3.connect(folder / "study.db") as connection:
            return int(connection.execute("select count(*) from trials").fetchone()[0])
    except sqlite3.Error:  # not there yet, or being written
        return 0


@pytest.mark.parametrize(("batched", "devices"), [("yes", ["cpu-0"]), ("no", ["cpu-0", "cpu-1"])])
def test_a_search_that_is_killed_goes_on_without_repeating_a_trial(
    tmp_path: Path, wdbc: Dataset, seen: Path, batched: str, devices: list[str]
) -> None:
    folder = tmp_path / "searched"
    folder.mkdir()
    argv = [
        sys.executable,
        "-m",
        "tests.stages.tune.one_search",
        str(folder),
        str(tmp_path / "home"),
        batched,
        *devices,
    ]
    first = subprocess.Popen(argv, cwd=ROOT)
    until(lambda: n_written(folder) >= 3 and len(list(seen.iterdir())) >= len(devices))
    first.kill()
    assert first.wait() == -signal.SIGKILL  # it was still at it
    until(lambda: gone(seen))
    n_before = n_written(folder)
    found = search(folder, tmp_path / "home", batched, (), epochs=2)
    trials = [record_of(trial) for trial in found.study.trials()]
    assert n_before < TRIALS == len(trials) == n_written(folder)
    assert [trial.epochs for trial in trials[:n_before]] == [30] * n_before
    assert len({(trial.params["lr"], trial.params["weight_decay"]) for trial in trials}) == TRIALS
