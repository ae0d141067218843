"""Where sockets and locks lie, away from the home: their paths must be short, and their file system local."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError

SOCKET_PATH_MAX = 104  # 108 bytes on Linux with the end, 104 on macOS


@dataclass(frozen=True)
class Runtime:
    """Sockets, locks, connection files: short paths, on a local file system, made again if swept."""

    root: Path

    @classmethod
    def of(cls, home: Path) -> Runtime:
        """Return the runtime folder of a home: ``$XDG_RUNTIME_DIR`` or ``/tmp``, ``lepton-UID-HASH``."""
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108  ownership is checked in make()
        digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:10]
        root = base / f"lepton-{os.getuid()}-{digest}"
        if len(os.fsencode(root)) > SOCKET_PATH_MAX - 40:
            root = Path("/tmp") / root.name  # noqa: S108  a socket's path has 108 bytes
        return cls(root)

    def make(self) -> Runtime:
        """Make the folder and those in it, and return self.

        Raises
        ------
        LeptonError
            If the folder belongs to another user or is a link.
        """
        for folder in (self.root, self.locks, self.kernels):
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
            except FileNotFoundError:  # swept between two of these
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.root.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise LeptonError(
                f"The runtime folder '{self.root}' is not a private folder of yours.",
                "Remove it, or set XDG_RUNTIME_DIR to a private folder.",
                code="unavailable",
            )
        return self

    @property
    def socket(self) -> Path:
        """The backend's HTTP socket."""
        return self.root / "backend.sock"

    @property
    def locks(self) -> Path:
        """One file a process."""
        return self.root / "locks"

    @property
    def kernels(self) -> Path:
        """Connection files and ipc sockets of runs' kernels."""
        return self.root / "k"

    @property
    def backend_lock(self) -> Path:
        """Held by the backend while it lives."""
        return self.locks / "backend"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper while it lives."""
        return self.locks / "keeper"

    @property
    def start_lock(self) -> Path:
        """Held by the client that is starting keeper and backend."""
        return self.locks / "start"

    @property
    def warm_lock(self) -> Path:
        """Held by the supervisor that waits for a training, once it is ready and until it has one."""
        return self.locks / "warm"

    def run_lock(self, run_id: str) -> Path:
        """Held by the run's supervisor while it lives."""
        return self.locks / f"run-{run_id}"

    def endpoint_lock(self, name: str) -> Path:
        """Held by the endpoint while it lives."""
        return self.locks / f"endpoint-{name}"
