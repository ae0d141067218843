"""Memory is named as the reason of a death only where the system's counters say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lepton_jupyter.runner import memory
from lepton_jupyter.runner.memory import MemoryWatch, oom_kills, peak_of_children


def test_the_peak_of_a_child_is_known_once_it_has_ended() -> None:
    subprocess.run([sys.executable, "-c", "x = b'x' * 300_000_000"], check=True)
    assert 300e6 < peak_of_children() < 2e9


def test_a_kill_for_memory_is_told_from_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tmp_path / "memory.events"
    monkeypatch.setattr(memory, "_of_group", lambda: [tmp_path / "none", counter])
    counter.write_text("low 0\noom 1\noom_kill 1\noom_group_kill 0\n")
    assert oom_kills()[str(counter)] == 1
    watch = MemoryWatch()
    assert "(SIGKILL), perhaps for memory: it had used" in watch.text()
    counter.write_text("low 0\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert watch.text().startswith("for memory: it had used")
