"""Many trainings while kernels, supervisors, keeper and backend are killed at random: each ends once, and truly.

``LEPTON_CHAOS_RUNS`` says how many (100), ``LEPTON_CHAOS_SEED`` what is random about it.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from lepton_jupyter.backend.keeper import holder
from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.leases import LeaseFolder
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.views import RunView
from tests.life.conftest import SLOW_NET, Notebook

pytestmark = [pytest.mark.soak, pytest.mark.timeout(5400)]

N_RUNS = int(os.environ.get("LEPTON_CHAOS_RUNS", "100"))
SEED = int(os.environ.get("LEPTON_CHAOS_SEED", "0"))
EPOCHS = 8
EVERY_S = (0.5, 6.0)  # between two kills
SHARES = {"kernel": 0.6, "supervisor": 0.6, "backend": 0.5, "keeper": 0.5}  # of each, as many a run are killed


class Killer(Thread):
    """Kills one of a home's processes now and then, until its share of them is killed, or it is told to end."""

    def __init__(self, home: Home, seed: int) -> None:
        super().__init__(name="killer", daemon=True)
        self.home = home
        self.killed: Counter[str] = Counter()
        self.end = Event()
        self._random = random.Random(seed)

    def run(self) -> None:
        while not self.end.wait(self._random.uniform(*EVERY_S)):
            left = [word for word, share in SHARES.items() if self.killed[word] < share * N_RUNS]
            if not left:
                return
            word = self._random.choice(left)
            who = self._find(word)
            if who is not None and who.send(signal.SIGKILL):
                self.killed[word] += 1

    def _find(self, word: str) -> Identity | None:
        runtime = self.home.runtime()
        if word == "backend":
            return holder(runtime.backend_lock)
        if word == "keeper":
            return holder(runtime.keeper_lock)
        found = [
            Identity(**event["kernel" if word == "kernel" else "process"])
            for folder in self.home.runs.glob("*/run.json")
            for event in supervisors(self.home, folder.parent.name)
            if ("kernel" if word == "kernel" else "process") in event
        ]
        alive = [who for who in found if who.is_alive()]
        return self._random.choice(alive) if alive else None


def supervisors(home: Home, run_id: str) -> Iterator[dict[str, Any]]:
    """Yield what the supervisors of a run said, one life after the other."""
    yield from (event for _, event in EventReader(home.run(run_id).supervisor_events).read())


def steps(path: Path) -> list[int]:
    """Return the steps of which a file of events tells."""
    return [event["step"] for _, event in EventReader(path).read() if event["kind"] == "metric"]


def lives(path: Path) -> list[list[int]]:
    """Return the steps that a run's kernels logged, one list a kernel: two at once would be mixed up."""
    found: list[list[int]] = []
    for _, event in EventReader(path).read():
        if event["kind"] == "note" and event["key"] == "task":  # the first word of every training
            found.append([])
        elif event["kind"] == "metric":
            found[-1].append(event["step"])
    return found


def views(home: Home) -> list[RunView]:
    """Return every run; none while the backend is not to be had."""
    try:
        return Client.connect(home).runs(limit=10 * N_RUNS)
    except LeptonError:
        return []


def test_every_run_ends_once_and_truly_whatever_is_killed(
    notebook: Notebook, home: Home, eventually: Callable[..., Any]
) -> None:
    notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    notebook.run(SLOW_NET.format(pause=0.02))
    train = f"lepton.train(TumorNet, data='wdbc', epochs={EPOCHS}, batch_size=64, detach=True)"
    notebook.run(f"for _ in range({N_RUNS}):\n    {train}", timeout_s=60 + 5 * N_RUNS)
    killer = Killer(home, SEED)
    killer.start()
    try:
        ended = eventually(
            lambda: len(found := views(home)) == N_RUNS and all(run.state in ENDED for run in found) and found,
            timeout_s=120 + 50 * N_RUNS,
            what="every run ends",
        )
    finally:
        killer.end.set()
        killer.join()
    print(f"killed {dict(killer.killed)}; ended {Counter(run.state for run in ended)}")
    for run in ended:
        _check(home, run)
    _check_record(home, ended, eventually)
    _check_nothing_is_left(home, eventually)


def _check(home: Home, run: RunView) -> None:
    folder = home.run(run.run_id)
    assert run.state in ("completed", "failed"), run
    for life in lives(folder.kernel_events):
        assert life == list(range(life[0], life[0] + len(life))) if life else True, run.run_id
    told = steps(folder.events)
    assert told == list(range(1, len(told) + 1)), run.run_id
    if run.state == "completed":
        assert len(told) == EPOCHS and run.version is not None
        return
    assert run.error is not None
    assert "killed" in run.error.message and "started again twice" in run.error.hint
    deaths = [event for event in supervisors(home, run.run_id) if event.get("died")]
    starts = [event for event in supervisors(home, run.run_id) if "process" in event]
    assert len(starts) >= 3 or deaths, run.run_id
    assert run.version is None


def _check_record(home: Home, ended: list[RunView], eventually: Callable[..., Any]) -> None:
    """See that MLflow has every metric once, and a version for every run that was completed."""
    n_told = sum(len(steps(home.run(run.run_id).events)) for run in ended)

    def logged() -> int:
        with sqlite3.connect(home.mlflow_db) as database:
            return int(database.execute("select count(*) from metrics where key = 'val_loss'").fetchone()[0])

    eventually(lambda: views(home) and logged() >= n_told, timeout_s=60, what="MLflow has it all")
    assert logged() == n_told
    versions = Client.connect(home).models()
    assert {one.run_id for one in versions} == {run.run_id for run in ended if run.state == "completed"}
    assert len({one.number for one in versions}) == len(versions)


def _check_nothing_is_left(home: Home, eventually: Callable[..., Any]) -> None:
    leases = LeaseFolder.current()

    def held() -> list[str]:
        holders = [leases.holder(path.name.removeprefix("lepton-")) for path in leases.root.iterdir()]
        return [f"{holder.text}: {_command(holder.pid)}" for holder in holders if holder is not None]

    eventually(lambda: not held(), timeout_s=10, what=f"leases are free: {held()}")
    runtime = home.runtime()
    eventually(lambda: not list(runtime.kernels.iterdir()), timeout_s=10, what="no kernel's socket is left")
    assert list(runtime.locks.glob("run-*")) == []
    assert list(home.runs.glob("*/reserve.bin")) == []
    assert list(home.runs.glob("**/.*.tmp")) == []
    subprocess.run([sys.executable, "-m", "lepton_jupyter.faces.cli", "backend", "stop"], check=True)
    eventually(lambda: not _processes(home), timeout_s=20, what="no process is left")
    assert not runtime.socket.exists()


def _command(pid: int | None) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "gone"


def _processes(home: Home) -> list[str]:
    """Return the command lines of whatever runs for this home, but for the notebook that asked and this test."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        is_ours = b"LEPTON_RUN=" + os.fsencode(home.runs) in environment or os.fsencode(home.root) in argv
        if is_ours:
            found.append(argv.replace(b"\0", b" ").decode())
    return found
