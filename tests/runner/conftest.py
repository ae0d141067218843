"""A run without a backend: its folder, its supervisor as a real process."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home, RunFolder, new_run_id
from lepton_jupyter.core.processes import Identity, kept_environment, spawn
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner.request import prepare_run
from lepton_jupyter.runner.sweep import sweep_session

ENDED = ("completed", "failed", "stopped")


class StartedRun:
    """A run folder and the supervisor that works on it."""

    def __init__(self, folder: RunFolder, process: Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    def events(self) -> list[dict[str, Any]]:
        """Return what the supervisor has said."""
        return [event for _, event in EventReader(self.folder.supervisor_events).read()]

    def told(self) -> list[dict[str, Any]]:
        """Return what the kernel has said."""
        return [event for _, event in EventReader(self.folder.kernel_events).read()]

    @property
    def kernel(self) -> Identity | None:
        """The kernel, once it runs."""
        found = [event["kernel"] for event in self.events() if "kernel" in event]
        return Identity(**found[-1]) if found else None

    def end(self) -> dict[str, Any]:
        """Wait until the supervisor is gone, and return its last word."""
        self.process.wait(timeout=90)
        return self.events()[-1]

    def statuses(self) -> list[str]:
        """Return papermill's status of every code cell of the executed notebook."""
        import json

        notebook = json.loads(self.folder.notebook.read_bytes())
        return [
            cell["metadata"]["papermill"]["status"]
            for cell in notebook["cells"]
            if cell["cell_type"] == "code" and "papermill" in cell["metadata"]
        ]


def code_cells(*sources: str) -> dict[str, Any]:
    """Return a notebook of these cells."""
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {
                "cell_type": "code",
                "id": f"c{i}",
                "metadata": {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for i, source in enumerate(sources)
        ],
    }


@pytest.fixture
def start(home: Home, tmp_path: Path) -> Iterator[Callable[..., StartedRun]]:
    """Start a run of some cells: ``start("print(1)", kind="cell")``."""
    started: list[StartedRun] = []

    def begin(
        *sources: str,
        notebook: dict[str, Any] | None = None,
        captured: Any = None,
        environment: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
        **record: Any,
    ) -> StartedRun:
        asked = RunRecord(
            run_id=new_run_id(),
            title="test",
            created_at=time.time(),
            python=sys.executable,
            cwd=str(record.pop("cwd", tmp_path)),
            kind=record.pop("kind", "notebook"),
            **record,
        )
        folder = prepare_run(
            home,
            asked,
            notebook=notebook or code_cells(*sources),
            captured=captured,
            environment={**os.environ, **(environment or {})},
        )
        env = {**kept_environment(), "LEPTON_HOME": str(home.root)}
        if pass_fds:
            env["LEPTON_LEASE_FDS"] = ",".join(map(str, pass_fds))
        argv = [sys.executable, "-P", "-m", "lepton_jupyter.runner.supervisor", str(folder.root)]
        run = StartedRun(folder, spawn(argv, env=env, cwd=folder.root, log=folder.log, pass_fds=pass_fds))
        started.append(run)
        return run

    yield begin
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
        if run.kernel is not None:
            sweep_session(run.kernel)
    shutil.rmtree(home.runtime().root, ignore_errors=True)  # no backend was there: nothing else to shut down
