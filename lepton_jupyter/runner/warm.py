"""A supervisor that waits for a training: ``python -m lepton_jupyter.runner.warm HOME PYTHON CHANNEL [ENVIRONMENT]``.

It has papermill imported, and a kernel with the framework. Over the Unix socket CHANNEL, which it has from the backend,
it is told of one run, takes its lock and is its supervisor from then on. Before that it ends as soon as the backend
does, or lets go of the socket; after it the backend is nothing to it. It takes one run, never a second.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from jupyter_core.utils import run_sync

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.core.processes import Lock
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner.ahead import MAX_LEASES
from lepton_jupyter.runner.kernel import RunKernel
from lepton_jupyter.runner.supervisor import HeldLock, supervise

LOOK_S = 1.0
MESSAGE_BYTES = 65536
TAKEN = b"taken"


class WaitingKernel:
    """A kernel that was started before it was known for which run.

    Parameters
    ----------
    home : Home
    python : str
        Its interpreter.
    environment : dict
        What it is started with; that of its run takes its place.
    """

    def __init__(self, home: Home, python: str, environment: dict[str, str]) -> None:
        record = RunRecord(run_id="warm", kind="train", title="warm", created_at=0.0, python=python, cwd=str(home.warm))
        connections = home.runtime().make().kernels
        self.kernel = RunKernel(record, RunFolder(home.warm), connections, name=f"w{os.getpid()}")
        self._ours, self._theirs = socket.socketpair()
        self._environment = environment

    def start(self) -> None:
        """Start it; call it in the main thread."""
        self.kernel.start(self._environment, (self._theirs.fileno(),))

    async def get_ready(self) -> str:
        """Wait until it has imported all; return an empty string, or what went wrong."""
        await self.kernel.connect()
        code = f"from lepton_jupyter.runner import ahead as _ahead; _ahead.wait({self._theirs.fileno()}); del _ahead"
        problem = await self.kernel.execute_silently(code)
        self._theirs.close()
        return problem

    def is_alive(self) -> bool:
        """Whether its process is there."""
        return self.kernel.exit_code() is None

    def give(self, record: RunRecord, folder: RunFolder, lease_fds: tuple[int, ...]) -> RunKernel | None:
        """Make it a run's kernel and return it; None where it does not fit, and is ended."""
        self.kernel.record, self.kernel.folder = record, folder
        said = (str(folder.root), record.cwd, os.environ.get("LEPTON_DEVICES", ""), len(lease_fds))
        code = f"from lepton_jupyter.runner import ahead as _ahead; _ahead.take(*{said!r}); del _ahead"
        try:
            if not Path(record.cwd).is_dir():
                raise OSError(f"no folder '{record.cwd}'")
            if lease_fds:
                socket.send_fds(self._ours, [b"l"], list(lease_fds))
            problem = run_sync(self.kernel.execute_silently)(code)
        except OSError as error:
            problem = str(error)
        self._ours.close()
        if not problem:
            return self.kernel
        print(f"The kernel that waited is not used: {problem}", file=sys.stderr)  # noqa: T201  the run's log
        run_sync(self.end)()
        return None

    async def end(self) -> None:
        """End it and remove its files."""
        self.kernel.kill()
        await self.kernel.shut_down()
        self.kernel.remove_files()


class _Watch(threading.Thread):
    """Ends everything once the backend is gone or lets go, whatever the main thread is importing.

    Attributes
    ----------
    is_told : Event
        Set as soon as a run was heard of: from then on the socket's end means nothing.
    """

    def __init__(self, channel: socket.socket, waiting: WaitingKernel) -> None:
        super().__init__(name="backend", daemon=True)
        self.channel = channel
        self.waiting = waiting
        self.is_told = threading.Event()

    def run(self) -> None:
        select.select([self.channel], [], [])
        try:
            is_over = self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except OSError:  # the main thread has read it already
            return
        if is_over and not self.is_told.is_set():  # we may come so late that the backend has had its answer
            leave(self.waiting, 0)


def leave(waiting: WaitingKernel, status: int) -> None:
    """End at once, the kernel and its files with us."""
    waiting.kernel.kill()
    waiting.kernel.remove_files()
    sys.stderr.flush()
    os._exit(status)


def _import_all() -> None:
    """Import what a supervisor needs until the end of its run."""
    # as in supervised.py
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import nbformat
    import papermill.execute  # noqa: F401

    from lepton_jupyter.runner import execution, supervised  # noqa: F401

    nbformat.validate(nbformat.v4.new_notebook())


def _told(watch: _Watch, lock: Lock) -> tuple[dict[str, Any], tuple[int, ...]] | None:
    """Wait for a run, and return what is said of it; None where there will be none."""
    channel, waiting = watch.channel, watch.waiting
    while not select.select([channel], [], [], LOOK_S)[0]:
        if lock.is_swept() or not waiting.is_alive():
            return None
    content, leases, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, MAX_LEASES, socket.MSG_CMSG_CLOEXEC)
    if content:
        watch.is_told.set()
    if not content or not waiting.is_alive():
        return None
    return json.loads(content), tuple(leases)


def _serve(home: Home, channel: socket.socket, waiting: WaitingKernel) -> None:
    """Get ready, wait for one run, and run it."""
    waiting.start()
    watch = _Watch(channel, waiting)
    watch.start()
    _import_all()
    if problem := run_sync(waiting.get_ready)():
        raise LeptonError(problem)
    lock = Lock.take(home.runtime().warm_lock)
    told = _told(watch, lock) if lock is not None else None
    if lock is None or told is None:
        return
    said, leases = told
    folder = RunFolder(Path(said["run"]))
    held = HeldLock.take(home, folder.run_id)
    if held is None:
        return
    lock.release()
    os.environ["LEPTON_DEVICES"] = said["devices"]
    os.chdir(folder.root)
    (home.warm / "log.txt").rename(folder.log)
    channel.sendall(TAKEN)
    channel.close()
    supervise(folder, held, leases, waiting=waiting)


def main(argv: list[str]) -> int:
    """Wait in a home, with a kernel of an interpreter."""
    home = Home(Path(argv[1]))
    channel = socket.socket(fileno=int(argv[3]))
    os.set_inheritable(channel.fileno(), False)
    environment = json.loads(Path(argv[4]).read_bytes()) if len(argv) > 4 else dict(os.environ)
    waiting = WaitingKernel(home, argv[2], {"PATH": os.defpath, **environment, "LEPTON_HOME": str(home.root)})
    try:
        _serve(home, channel, waiting)
    except BaseException:
        traceback.print_exc()
        leave(waiting, 1)
    leave(waiting, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
