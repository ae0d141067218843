"""The keeper: a small process that has the backend back whenever it dies. Standard library and core only."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import tail, write_atomic
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, Lock, is_held, kept_environment, spawn
from lepton_jupyter.core.runtime import Runtime

MAX_FAILED_STARTS = 3
FAILED_WITHIN_S = 60.0
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0
POLL_S = 0.25
EXIT_STOPPED = 0  # somebody asked the backend to end: the keeper goes too
EXIT_SWEPT = 3  # the runtime folder was swept: the next client starts again
EXIT_REFUSED = 78  # it cannot start here, and trying again would not help

OURS_ALONE = ("LEPTON_RUN", "LEPTON_LEASE_FDS")  # of a run, in which a client may have started us


def failure_path(runtime: Runtime) -> Path:
    """Return where a backend that does not start leaves the reason: ``backend.failed``."""
    return runtime.root / "backend.failed"


def backend_environment(home: Home) -> dict[str, str]:
    """Return the environment of keeper and backend: the allow-list, the home said, nothing of a run."""
    kept = {name: value for name, value in kept_environment().items() if name not in OURS_ALONE}
    return {**kept, "LEPTON_HOME": str(home.root)}


def spawn_keeper(home: Home) -> None:
    """Start a keeper; one that finds another one goes away."""
    argv = [sys.executable, "-P", "-m", "lepton_jupyter.backend.keeper", str(home.root)]
    spawn(argv, env=backend_environment(home), cwd=home.root, log=home.backend_log)


def sign(lock: Lock) -> None:
    """Write the holder's identity into its lock's file, so that a signal can find it (the lock alone proves life)."""
    me = Identity.of(os.getpid())
    if me is not None:
        os.ftruncate(lock.descriptor, 0)
        os.pwrite(lock.descriptor, json.dumps(me.to_dict()).encode(), 0)


def holder(path: Path) -> Identity | None:
    """Return who holds a lock that was signed, or None where nobody does."""
    if not is_held(path):
        return None
    try:
        return Identity(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_failure(runtime: Runtime, error: LeptonError) -> None:
    """Leave the reason for the next client."""
    write_atomic(failure_path(runtime), json.dumps(error.to_dict()).encode(), is_durable=False)


class Keeper:
    """Starts the backend, waits for its end, starts it again.

    Parameters
    ----------
    home : Home
    backend_argv : list of str, optional
        The program that is kept; the backend where it is None.
    """

    def __init__(self, home: Home, backend_argv: list[str] | None = None) -> None:
        self.home = home
        self.runtime = home.runtime().make()
        self.argv = backend_argv or [sys.executable, "-P", "-m", "lepton_jupyter.backend", str(home.root)]
        self._stop = threading.Event()
        self._failed_at: list[float] = []
        self._pause_s = FIRST_PAUSE_S

    def stop(self) -> None:
        """End soon, and leave the backend alone."""
        self._stop.set()

    def run(self) -> int:
        """Keep the backend until it is stopped, refused, or the runtime folder is swept; return the exit status."""
        lock = Lock.take(self.runtime.keeper_lock)
        if lock is None:
            return 0
        sign(lock)
        try:
            while self._wait_for_earlier(lock):
                status, was_up = self._one_life(lock)
                if self._stop.is_set() or lock.is_swept() or status in (EXIT_STOPPED, EXIT_SWEPT):
                    return 0
                if status == EXIT_REFUSED or self._is_hopeless(was_up):
                    self._give_up(status)
                    return 1
                self._stop.wait(self._pause_s)
            return 0
        finally:
            lock.release()

    def _wait_for_earlier(self, lock: Lock) -> bool:
        """Wait until no backend of an earlier keeper lives; False where the keeper must go."""
        while not self._stop.is_set() and not lock.is_swept():
            if not is_held(self.runtime.backend_lock):
                return True
            self._stop.wait(POLL_S)
        return False

    def _one_life(self, lock: Lock) -> tuple[int, bool]:
        """Start one backend and wait for its end; return its exit status and whether it ever answered."""
        began = time.monotonic()
        child = spawn(self.argv, env=backend_environment(self.home), cwd=self.home.root, log=self.home.backend_log)
        was_up = False
        while child.poll() is None and not self._stop.wait(POLL_S):
            was_up = was_up or answers(self.runtime.socket)
            if lock.is_swept():
                break  # the backend sees the same of its own lock
        if was_up and time.monotonic() - began > 10 * LAST_PAUSE_S:
            self._pause_s = FIRST_PAUSE_S
        return (child.returncode if child.returncode is not None else EXIT_STOPPED), was_up

    def _is_hopeless(self, was_up: bool) -> bool:
        now = time.monotonic()
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)
        if was_up:
            self._failed_at.clear()
        else:
            self._failed_at = [at for at in self._failed_at if now - at < FAILED_WITHIN_S] + [now]
        return len(self._failed_at) >= MAX_FAILED_STARTS

    def _give_up(self, status: int) -> None:
        if status == EXIT_REFUSED and failure_path(self.runtime).exists():
            return  # the backend itself said why
        error = LeptonError(
            f"The backend of '{self.home.root}' does not start: it ended {MAX_FAILED_STARTS} times within a minute, "
            f"last with status {status}.",
            f"Its log is {self.home.backend_log}.",
            code="unavailable",
            detail=tail(self.home.backend_log),
        )
        write_failure(self.runtime, error)


def answers(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def main(argv: list[str]) -> int:
    """Run the keeper of the home that the first argument names."""
    keeper = Keeper(Home(Path(argv[0])).make())
    signal.signal(signal.SIGTERM, lambda *_: keeper.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
