"""Runs that are killed with -9 at any step and go on: the same weights to the last bit, every epoch once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.stages.data.store import Dataset

PROGRAM = Path(__file__).with_name("killed_run.py")
N_STEPS = 40 * 11


def run(home: Path, folder: Path, kill_at: int) -> int:
    folder.mkdir(exist_ok=True)
    argv = [sys.executable, str(PROGRAM), str(home), str(folder), str(kill_at)]
    return subprocess.run(argv, capture_output=True, check=False, timeout=200).returncode


def told(folder: Path) -> Any:
    return json.loads((folder / "told.json").read_text())


def check(wdbc: Dataset, tmp_path: Path, n_runs: int) -> int:
    """Kill so many runs at a random step, some of them twice; return how many went on from a checkpoint."""
    home = wdbc.folder.parents[2]
    assert run(home, tmp_path / "whole", 0) == 0
    whole, n_resumed = told(tmp_path / "whole"), 0
    assert whole["history"]["epoch"] == list(range(1, 41))
    chance = random.Random(5)
    for number in range(n_runs):
        folder = tmp_path / f"killed{number}"
        for _ in range(1 + number % 2):
            assert run(home, folder, chance.randrange(1, N_STEPS // 2)) == -signal.SIGKILL
        n_resumed += (folder / "checkpoints" / "last.safetensors").exists()
        assert run(home, folder, 0) == 0
        assert told(folder) == whole
    return n_resumed


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_weights(wdbc: Dataset, tmp_path: Path) -> None:
    check(wdbc, tmp_path, 1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_thirty_runs_that_were_killed_end_with_the_same_weights(wdbc: Dataset, tmp_path: Path) -> None:
    assert check(wdbc, tmp_path, 30) >= 20
