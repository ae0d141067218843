"""The watch over endpoints' processes: started, had back with back-off, ended."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from subprocess import Popen

import msgspec

from lepton_jupyter.backend.keeper import backend_environment
from lepton_jupyter.backend.store import EndpointRow, Store
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held, spawn
from lepton_jupyter.formats.endpoint import EndpointStatus

log = logging.getLogger("lepton.backend")

STOP_S = 12.0  # an endpoint answers what was asked for 10 s
KILL_S = 2.0
LOCKLESS_S = 15.0  # a process without its lock is starting, or going: it has this long
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 30.0
STEADY_S = 60.0  # alive this long: the next start is the first again


@dataclass
class Watch:
    """What the backend remembers of one endpoint's process."""

    child: Popen[bytes] | None = None  # of this backend; None where it was adopted
    started_at: float = 0.0
    lockless_since: float | None = None
    next_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    n_starts: int = 0
    last_error: str = ""
    is_reconciled: bool = False  # whether what it follows is what the last backend decided
    lock: threading.RLock = field(default_factory=threading.RLock)

    def forget(self) -> None:
        """Begin anew: the next start is the first."""
        self.child, self.lockless_since, self.next_at = None, None, 0.0
        self.pause_s, self.n_starts, self.last_error = FIRST_PAUSE_S, 0, ""


class Watcher:
    """Every endpoint's process."""

    def __init__(self, home: Home, store: Store) -> None:
        self.home = home
        self.store = store
        self._watches: dict[str, Watch] = {}

    def of(self, name: str) -> Watch:
        """Return what is remembered of an endpoint."""
        return self._watches.setdefault(name, Watch())

    def drop(self, name: str) -> None:
        """Remember it no more."""
        self._watches.pop(name, None)

    def names(self) -> list[str]:
        """Return the endpoints of which something is remembered."""
        return list(self._watches)

    def signature(self, name: str) -> tuple[object, ...]:
        """Return what an endpoint's state hangs on, besides its row; cheap."""
        watch = self.of(name)
        folder = self.home.endpoint(name)
        said_at = [_written_at(path) for path in (folder.status, folder.figures)]
        has_ended = watch.child is None or watch.child.poll() is not None
        return self.is_alive(name), *said_at, watch.n_starts, watch.last_error, has_ended

    def is_alive(self, name: str) -> bool:
        """Whether the endpoint holds its lock."""
        return is_held(self.home.runtime().endpoint_lock(name))

    def status(self, row: EndpointRow) -> EndpointStatus | None:
        """Return what the endpoint's present process says of itself; None where it has said nothing yet."""
        try:
            status = msgspec.json.decode(self.home.endpoint(row.name).status.read_bytes(), type=EndpointStatus)
        except (OSError, msgspec.DecodeError):
            return None
        who = process_of(row)
        return status if who is None or who.pid == status.pid else None

    def keep_up(self, row: EndpointRow) -> None:
        """Start an endpoint that should be up and is not, with growing pauses. Its watch's lock is held."""
        watch, now = self.of(row.name), time.monotonic()
        if self.is_alive(row.name):
            watch.lockless_since = None
            if now - watch.started_at > STEADY_S:
                watch.pause_s, watch.n_starts = FIRST_PAUSE_S, min(watch.n_starts, 1)
            return
        if watch.child is not None:
            watch.child.poll()  # a zombie is no process
        who = process_of(row)
        if who is not None and who.is_alive():
            watch.lockless_since = watch.lockless_since or now
            if now - watch.lockless_since > LOCKLESS_S:
                who.send(SIGKILL)
            return
        watch.lockless_since = None
        if now >= watch.next_at:
            said = self.status(row)
            if said is not None and said.state == "error":
                watch.last_error = said.error  # shown until it is ready: it will say the same, or get over it
            self.start(row)

    def start(self, row: EndpointRow) -> None:
        """Start an endpoint's process; one that finds the lock taken goes away."""
        folder, watch = self.home.endpoint(row.name), self.of(row.name)
        folder.empty.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self.home.runtime().make().endpoint_lock(row.name)
        argv = [sys.executable, "-P", "-m", "lepton_jupyter.serving", str(folder.root), str(lock)]
        watch.started_at = time.monotonic()
        watch.next_at = watch.started_at + watch.pause_s
        watch.pause_s = min(watch.pause_s * 2, LAST_PAUSE_S)
        watch.n_starts += 1
        try:
            watch.child = spawn(argv, env=backend_environment(self.home), cwd=folder.empty, log=folder.log)
        except OSError as error:
            log.warning("endpoint %s cannot be started: %s", row.name, error)
            return
        who = Identity.of(watch.child.pid)
        if who is not None:
            self.store.save_process(row.name, json.dumps(who.to_dict()))

    def end(self, row: EndpointRow) -> None:
        """End an endpoint's process and wait until it is gone."""
        row, watch = self.store.endpoint(row.name) or row, self.of(row.name)
        lock, who = self.home.runtime().endpoint_lock(row.name), process_of(row)
        for number, patience_s in ((SIGTERM, STOP_S), (SIGKILL, KILL_S)):
            deadline = time.monotonic() + patience_s
            if who is not None:
                who.send(number)
            while time.monotonic() < deadline and (is_held(lock) or (who is not None and who.is_alive())):
                time.sleep(0.02)
                if watch.child is not None:
                    watch.child.poll()
        lock.unlink(missing_ok=True)
        watch.forget()


def process_of(row: EndpointRow) -> Identity | None:
    """Return the process that was last started for an endpoint."""
    return Identity(**json.loads(row.process)) if row.process else None


def _written_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
