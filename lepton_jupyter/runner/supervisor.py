"""The supervisor of one run: ``python -m lepton_jupyter.runner.supervisor RUN_FOLDER``.

It holds the run's lock for as long as it lives, starts the kernel, lets papermill execute the notebook, and writes
how it ended. A runtime folder that is swept does not end a run: nothing that was asked for may be lost by it. So,
unlike backend and endpoints, the supervisor makes its lock file again (within `LOCK_LOOK_S`); a lock *file that is
missing* is therefore no proof that a supervisor is dead, a lock that is free is.

The order of events is the promise: the notebook is saved, the copy of ``--to`` is made and the kernel's session is
swept before the last event is written, and the lock is let go last.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.core.processes import Identity, Lock
from lepton_jupyter.core.runtime import Runtime
from lepton_jupyter.formats.events import EventWriter
from lepton_jupyter.runner import ending

if TYPE_CHECKING:
    from lepton_jupyter.runner.warm import WaitingKernel

LOCK_LOOK_S = 0.25
LEASE_VARIABLE = "LEPTON_LEASE_FDS"


class HeldLock:
    """The run's lock, kept even when its file is swept."""

    def __init__(self, runtime: Runtime, lock: Lock) -> None:
        self._runtime = runtime
        self._lock = lock
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, home: Home, run_id: str) -> HeldLock | None:
        """Take the lock of a run, or return None where a supervisor has it."""
        runtime = home.runtime().make()
        lock = Lock.take(runtime.run_lock(run_id))
        return cls(runtime, lock) if lock is not None else None

    def release(self) -> None:
        """Let go, and remove the file: no other run has its name."""
        self._end.set()
        self._thread.join(timeout=2)
        if not self._lock.is_swept():
            self._lock.path.unlink(missing_ok=True)
        self._lock.release()

    def _keep(self) -> None:
        while not self._end.wait(LOCK_LOOK_S):
            if not self._lock.is_swept():
                continue
            try:
                self._runtime.make()
                again = Lock.take(self._lock.path)
            except (OSError, LeptonError):
                continue  # the next look tries again
            if again is not None:
                self._lock.release()
                self._lock = again


def lease_descriptors() -> tuple[int, ...]:
    """Return the lease descriptors that the backend left open for us, less those that are not."""
    found: list[int] = []
    for text in os.environ.get(LEASE_VARIABLE, "").split(","):
        if text.strip().isdigit():
            try:
                os.fstat(int(text))
            except OSError:
                continue
            found.append(int(text))
    return tuple(found)


def main(argv: list[str]) -> int:
    """Run the run in the folder that is named; return 0 unless it could not even begin."""
    folder = RunFolder(Path(argv[1]).absolute())
    home = Home(folder.root.parent.parent)
    lock = HeldLock.take(home, folder.run_id)
    if lock is not None:
        supervise(folder, lock, lease_descriptors())
    return 0


def supervise(
    folder: RunFolder, lock: HeldLock, lease_fds: tuple[int, ...], *, waiting: WaitingKernel | None = None
) -> None:
    """Run a run whose lock is held to its end, and let go.

    Parameters
    ----------
    folder : RunFolder
    lock : HeldLock
    lease_fds : tuple of int
    waiting : WaitingKernel, optional
        One that was started before it was known for which run.
    """
    home = Home(folder.root.parent.parent)
    early: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: early.append(number))
    events = EventWriter(folder.supervisor_events)
    try:
        me = Identity.of(os.getpid())
        events.write("state", state="starting", process=me.to_dict() if me else {})
        from lepton_jupyter.runner.supervised import Supervised  # jupyter_client: not before the lock is held

        try:
            end = Supervised(home, folder, events, lease_fds, waiting).run(early)
        except LeptonError as error:
            end = ending.Ending("failed", ending.failure(error))
        except Exception as error:
            end = ending.Ending("failed", ending.unexpected(error, folder))
        ending.write(events, end, folder)
    finally:
        events.close()
        lock.release()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
