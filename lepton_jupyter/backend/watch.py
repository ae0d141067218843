"""The watch over endpoints' processes: started, had back with back-off, let go, ended."""

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
from typing import NamedTuple

import msgspec

from lepton_jupyter.backend.keeper import backend_environment
from lepton_jupyter.backend.store import EndpointRow, Store
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held, spawn
from lepton_jupyter.core.replicas import is_any_held, make_folders, own_folder, replica_lock
from lepton_jupyter.formats.endpoint import EndpointStatus, Options

log = logging.getLogger("lepton.backend")

STOP_S = 12.0  # an endpoint answers what was asked for 10 s
KILL_S = 2.0
LOCKLESS_S = 15.0  # a process without its lock is starting, or going: it has this long
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 30.0
LEAVE_S = 20.0  # a process that is too many answers what it was asked, and waits 10 s for its clients
STEADY_S = 60.0  # alive this long: the next start is the first again


@dataclass
class Process:
    """What the backend remembers of one of an endpoint's processes."""

    child: Popen[bytes] | None = None  # of this backend; None where it was adopted
    started_at: float = 0.0
    lockless_since: float | None = None
    leaving_since: float | None = None
    next_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    n_starts: int = 0
    last_error: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether it is no child of this backend that lives."""
        return self.child is None or self.child.poll() is not None

    def forget(self) -> None:
        """Begin anew: the next start is the first."""
        self.child, self.lockless_since, self.leaving_since, self.next_at = None, None, None, 0.0
        self.pause_s, self.n_starts, self.last_error = FIRST_PAUSE_S, 0, ""


@dataclass
class Watch:
    """What the backend remembers of one endpoint."""

    processes: dict[int, Process] = field(default_factory=dict)
    is_reconciled: bool = False  # whether what it follows is what the last backend decided
    lock: threading.RLock = field(default_factory=threading.RLock)

    def process(self, number: int) -> Process:
        """Return what is remembered of a process; the first is 1."""
        return self.processes.setdefault(number, Process())

    @property
    def n_restarts(self) -> int:
        """How often its processes were started again."""
        return sum(max(0, process.n_starts - 1) for process in list(self.processes.values()))


class Said(NamedTuple):
    """One of an endpoint's processes.

    Attributes
    ----------
    status : EndpointStatus or None
        What it says of itself; None where it has said nothing yet.
    """

    number: int
    is_alive: bool
    status: EndpointStatus | None

    @property
    def is_serving(self) -> bool:
        """Whether it answers requests."""
        return self.is_alive and self.status is not None and self.status.state == "ready"


class Watcher:
    """Every endpoint's processes."""

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
        found: list[object] = []
        for number, process in sorted(dict(self.of(name).processes).items()):
            own = own_folder(self.home.endpoint(name), number)
            said_at = [_written_at(path) for path in (own.status, own.figures)]
            found += [is_held(self._lock(name, number)), *said_at, process.n_starts, process.last_error]
            found.append(process.has_ended)
        return tuple(found)

    def is_alive(self, name: str) -> bool:
        """Whether any of the endpoint's processes holds its lock."""
        return is_any_held(self._lock(name))

    def said(self, row: EndpointRow) -> list[Said]:
        """Return an endpoint's processes as they stand: as many as it should have."""
        known = processes_of(row)
        return [self._said(row.name, number, known.get(number)) for number in range(1, replicas_of(row) + 1)]

    def status(self, row: EndpointRow) -> EndpointStatus | None:
        """Return what speaks for all: what could not take the last release, else what is furthest behind."""
        said = [each for each in self.said(row) if each.status is not None]
        if len(said) > 1:
            said = [each for each in said if each.is_serving] or said
        found = [each.status for each in said if each.status is not None]
        refused = [status for status in found if status.error_release == row.release]
        return min(refused or found, key=lambda status: status.release, default=None)

    def _said(self, name: str, number: int, who: Identity | None) -> Said:
        is_alive = is_held(self._lock(name, number))
        try:
            content = own_folder(self.home.endpoint(name), number).status.read_bytes()
            status = msgspec.json.decode(content, type=EndpointStatus)
        except (OSError, msgspec.DecodeError):
            return Said(number, is_alive, None)
        return Said(number, is_alive, status if who is None or who.pid == status.pid else None)

    def keep_up(self, row: EndpointRow) -> None:
        """Start an endpoint's processes that should be up and are not, with growing pauses. Its lock is held."""
        said = self.said(row)
        for each in said:
            self._keep_up(row, each)
        for number, who in processes_of(row).items():
            if number > len(said):
                self._let_go(row, number, who)

    def forget_the_dead(self, row: EndpointRow) -> None:
        """Let the processes that are not there be started as if for the first time."""
        for number, process in list(self.of(row.name).processes.items()):
            if not is_held(self._lock(row.name, number)):
                process.forget()

    def _keep_up(self, row: EndpointRow, said: Said) -> None:
        process, now = self.of(row.name).process(said.number), time.monotonic()
        process.leaving_since = None
        if said.is_alive:
            process.lockless_since = None
            if now - process.started_at > STEADY_S:
                process.pause_s, process.n_starts = FIRST_PAUSE_S, min(process.n_starts, 1)
            return
        if process.child is not None:
            process.child.poll()  # a zombie is no process
        who = processes_of(row).get(said.number)
        if who is not None and who.is_alive():
            process.lockless_since = process.lockless_since or now
            if now - process.lockless_since > LOCKLESS_S:
                who.send(SIGKILL)
            return
        process.lockless_since = None
        if now >= process.next_at:
            if said.status is not None and said.status.state == "error":
                process.last_error = said.status.error  # until it is ready: it says the same, or gets over it
            self._start(row, said.number)

    def _start(self, row: EndpointRow, number: int) -> None:
        """Start one of an endpoint's processes; one that finds the lock taken goes away."""
        folder, process = self.home.endpoint(row.name), self.of(row.name).process(number)
        folder.empty.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_folders(folder, replicas_of(row))
        self.home.runtime().make()
        lock = self._lock(row.name, number)
        argv = [sys.executable, "-P", "-m", "lepton_jupyter.serving", str(folder.root), str(lock)]
        argv += [str(number)] if number > 1 else []
        process.started_at = time.monotonic()
        process.next_at = process.started_at + process.pause_s
        process.pause_s = min(process.pause_s * 2, LAST_PAUSE_S)
        process.n_starts += 1
        try:
            process.child = spawn(argv, env=backend_environment(self.home), cwd=folder.empty, log=folder.log)
        except OSError as error:
            log.warning("endpoint %s cannot be started: %s", row.name, error)
            return
        self._save(row.name, number, Identity.of(process.child.pid))

    def _let_go(self, row: EndpointRow, number: int, who: Identity) -> None:
        """Have a process that is too many gone: it goes by itself, once it has answered what it was asked."""
        process, now = self.of(row.name).process(number), time.monotonic()
        if process.child is not None:
            process.child.poll()
        if who.is_alive() or is_held(self._lock(row.name, number)):
            process.leaving_since = process.leaving_since or now
            over_s = now - process.leaving_since - LEAVE_S
            if over_s > 0:
                who.send(SIGKILL if over_s > STOP_S else SIGTERM)
            return
        self._lock(row.name, number).unlink(missing_ok=True)
        self.of(row.name).processes.pop(number, None)
        self._save(row.name, number, None)

    def _save(self, name: str, number: int, who: Identity | None) -> None:
        row = self.store.endpoint(name)
        if row is None:
            return
        known = processes_of(row)
        known.pop(number, None)
        if who is not None:
            known[number] = who
        self.store.save_process(name, _told(known))

    def end(self, row: EndpointRow) -> None:
        """End an endpoint's processes and wait until they are gone."""
        row, watch = self.store.endpoint(row.name) or row, self.of(row.name)
        known = processes_of(row)
        locks = [self._lock(row.name, number) for number in {1, *known, *watch.processes}]
        for number, patience_s in ((SIGTERM, STOP_S), (SIGKILL, KILL_S)):
            deadline = time.monotonic() + patience_s
            for who in known.values():
                who.send(number)
            while time.monotonic() < deadline and (
                any(is_held(lock) for lock in locks) or any(who.is_alive() for who in known.values())
            ):
                time.sleep(0.02)
                for process in watch.processes.values():
                    if process.child is not None:
                        process.child.poll()
        for lock in locks:
            lock.unlink(missing_ok=True)
        watch.processes.clear()

    def _lock(self, name: str, number: int = 1) -> Path:
        return replica_lock(self.home.runtime().endpoint_lock(name), number)


def processes_of(row: EndpointRow) -> dict[int, Identity]:
    """Return the processes that were last started for an endpoint, by number; the first is 1."""
    found = json.loads(row.process) if row.process else {}
    if "pid" in found:
        found = {"1": found}
    return {int(number): Identity(**who) for number, who in found.items()}


def replicas_of(row: EndpointRow) -> int:
    """Return how many processes an endpoint should have."""
    return msgspec.json.decode(row.options, type=Options).replicas or 1


def _told(known: dict[int, Identity]) -> str:
    """Return processes as JSON: one alone as it was told before there were several."""
    if known.keys() == {1}:
        return json.dumps(known[1].to_dict())
    return json.dumps({number: who.to_dict() for number, who in sorted(known.items())})


def _written_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
