"""Start and end the exporter; light, and free of torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lepton_jupyter.core.processes import die_with_parent

EXPORT = "export"  # its folder below the run's


_waiting: list[subprocess.Popen[bytes]] = []  # one that was started before it was known for which run


def start_exporter(folder: Path) -> subprocess.Popen[bytes]:
    """Start the second process of a training run, or take the one that waits; it dies with us.

    It leaves ■ to the training itself.

    Parameters
    ----------
    folder : Path
        Is made. The process gets the model there and writes ``log.txt``.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "log.txt").open("ab") as log:  # empty where one waited: what it prints is in the run's log
        while _waiting:
            process = _waiting.pop()
            if process.poll() is None:
                return process
        return _started(log.fileno())


def keep_waiting() -> subprocess.Popen[bytes]:
    """Start an exporter before it is known for which run: `start_exporter` takes it."""
    _waiting.append(_started(None))
    return _waiting[-1]


def _started(log: int | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "lepton_jupyter.stages.train.exporter"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        preexec_fn=_before_exec(),
    )


def end_exporter(process: subprocess.Popen[bytes]) -> None:
    """End it and collect it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # it was gone with a request unread
                pass
    process.kill()
    process.wait()


def _before_exec() -> Callable[[], None]:
    with_parent = die_with_parent()

    def before() -> None:
        with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    return before
