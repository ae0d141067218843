"""Turns between the backends of a host: who has waited longest takes next."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Collection
from pathlib import Path

from lepton_jupyter.core.leases import PREFIX, LeaseFolder
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Lock

TICKET = f"{PREFIX}ticket-"
STALE_S = 10.0  # a backend that has not looked at its queue for so long (stopped by its host) holds nobody up
TICKET_BYTES = 2**16


class Turns:
    """The ticket of one backend, beside the lock files: it is held, as a lock, while runs wait for devices.

    A backend that took a device goes behind the others that wait; whoever is ahead keeps what it waits for free from
    those behind, so that a run that wants many devices gets them in the end. It is a courtesy, not a guard: a folder
    where no ticket can be written has no turns.
    """

    def __init__(self, folder: LeaseFolder, home: Home) -> None:
        self._folder = folder
        digest = hashlib.sha256(os.fsencode(home.root.resolve())).hexdigest()[:10]
        self._path = folder.root / f"{TICKET}{os.getuid()}-{digest}"
        self._lock: Lock | None = None
        self._since = 0.0

    def wait(self, names: Collection[str]) -> None:
        """Hold a ticket for any of these devices; an older one keeps its place."""
        try:
            if self._lock is None or self._lock.is_swept():
                self._lock = Lock.take(self._path)
                self._since = time.monotonic()
            if self._lock is None:
                return
            os.fchmod(self._lock.descriptor, 0o644)  # others read it, whatever the umask is
            content = json.dumps({"since": self._since, "names": sorted(names)}).encode()
            os.pwrite(self._lock.descriptor, content + b"\n", 0)
            os.ftruncate(self._lock.descriptor, len(content) + 1)
        except OSError:
            self._lock = None

    def end(self) -> None:
        """Give the ticket up: nothing waits, or it was our turn."""
        if self._lock is not None:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def ahead(self) -> set[str]:
        """Return the devices for which others have waited longer."""
        mine = (self._since, self._path.name) if self._lock is not None else (time.monotonic(), self._path.name)
        found: set[str] = set()
        try:
            tickets = [path for path in self._folder.root.glob(f"{TICKET}*") if path.name != self._path.name]
        except OSError:
            return found
        for path in tickets:
            since, names = _read(path)
            if names and (since, path.name) < mine:
                found |= names
        return found


def _read(path: Path) -> tuple[float, set[str]]:
    """Return since when the holder of a ticket waits, and for what; nothing where nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0.0, set()
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or time.time() - found.st_mtime > STALE_S:
            return 0.0, set()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            said = json.loads(os.pread(descriptor, TICKET_BYTES, 0))
            return float(said["since"]), set(map(str, said["names"]))
        if found.st_uid == os.getuid():
            path.unlink(missing_ok=True)  # of a backend that was killed
        return 0.0, set()
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0, set()
    finally:
        os.close(descriptor)
