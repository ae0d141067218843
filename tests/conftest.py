"""A home of its own for every test that asks for one, and no process left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A fresh LEPTON_HOME, runtime folder and devices; no warm kernel; whatever runs in them is ended afterwards."""
    runtime = Path(tempfile.mkdtemp(prefix="lp", dir="/tmp"))
    monkeypatch.setenv("LEPTON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("LEPTON_LEASES", str(runtime / "devices"))
    monkeypatch.setenv("LEPTON_WARM", "off")
    for name in ("LEPTON_RUN", "MLFLOW_TRACKING_URI", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    home = Home.current().make()
    yield home
    if home.runtime().root.exists():
        from lepton_jupyter.client.shutdown import shut_down

        shut_down(home)
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait for a condition with a deadline: ``eventually(lambda: x.state == "ready", timeout_s=20)``."""

    def wait(condition: Callable[[], Any], *, timeout_s: float = 30, what: str = "") -> Any:
        deadline = monotonic() + timeout_s
        while monotonic() < deadline:
            found = condition()
            if found:
                return found
            sleep(0.05)
        raise AssertionError(f"not within {timeout_s} s: {what or condition}")

    return wait
