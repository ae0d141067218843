"""Leases of devices: one lock file a device, in a folder that all users of a host share.

The folder is root's and sticky (``/run/lock``, ``/tmp``) or nobody's to write but root's; what others put in it is not
trusted: links are not followed, only plain files count, and nothing that a file *says* makes a device free or taken.
A device is taken while a living process holds the ``flock`` on its file, and only then.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.processes import PROBE_TRIES, Identity, Lock, boot_id, pause_of_a_probe

PREFIX = "lepton-"
NOTE_BYTES = 512
SHARED_BY_DEFAULT = ("/run/lock", "/tmp")  # noqa: S108  root's and sticky: checked


@dataclass(frozen=True)
class Holder:
    """Who holds a device; what the system does not tell is None.

    Attributes
    ----------
    pid, uid : int or None
    run_id : str
        As its backend says; empty where another user's does.
    """

    pid: int | None = None
    uid: int | None = None
    run_id: str = ""

    @property
    def user(self) -> str:
        """The user's name, or number."""
        if self.uid is None:
            return "somebody"
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"user {self.uid}"

    @property
    def text(self) -> str:
        """``alice (process 123)``."""
        return self.user + (f" (process {self.pid})" if self.pid is not None else "")


class LeaseFolder:
    """The lock files of a host's devices.

    Parameters
    ----------
    root : Path
        It is made, sticky and for everybody, where it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def current(cls) -> LeaseFolder:
        """Return this host's: ``LEPTON_LEASES``, else ``/run/lock`` or ``/tmp``."""
        said = os.environ.get("LEPTON_LEASES")
        if said:
            return cls(Path(said).expanduser().absolute())
        shared = (Path(path).resolve() for path in SHARED_BY_DEFAULT)
        return cls(next((path for path in shared if _is_shared(path)), Path("/tmp")))  # noqa: S108  checked when used

    def path(self, name: str) -> Path:
        """Return the file of a device."""
        return self.root / f"{PREFIX}{name.replace('/', '_')}"

    def check(self) -> None:
        """Make the folder where it is missing, and see that nobody can replace another one's file in it.

        Raises
        ------
        LeptonError
            If it cannot be made, or others could.
        """
        try:
            if not self.root.is_dir():
                self.root.mkdir(parents=True)
                self.root.chmod(0o1777)
            found = self.root.stat()
        except OSError as error:
            raise LeptonError(
                f"The folder of device leases '{self.root}' cannot be used: {error.strerror}.",
                "Set LEPTON_LEASES to a folder that all users share.",
                code="unavailable",
            ) from error
        is_open = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if is_open or (found.st_uid not in (0, os.getuid()) and not found.st_mode & stat.S_ISVTX):
            raise LeptonError(
                f"In the folder of device leases '{self.root}' anybody could replace another user's file.",
                f"Let root make it sticky: chmod 1777 {self.root}",
                code="unavailable",
            )

    def take(self, name: str) -> Lock | None:
        """Take a device, or return None where a living process has it.

        Raises
        ------
        LeptonError
            If its file is not one that can be locked.
        """
        for _ in range(PROBE_TRIES):
            lock = Lock(self.path(name), self._open(name))
            try:
                fcntl.flock(lock.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.release()
                pause_of_a_probe()
                continue
            if not lock.is_swept():
                return lock
            lock.release()  # the file was replaced since it was opened
        return None

    def is_held(self, name: str) -> bool:
        """Whether a living process holds a device."""
        try:
            descriptor = _opened(self.path(name))
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def holder(self, name: str) -> Holder | None:
        """Return who holds a device, None where it is free. Others can say that they are somebody else; not that
        they are nobody.
        """
        if not self.is_held(name):
            return None
        path = self.path(name)
        who, run_id = _note(path)
        if who is not None and who.is_alive():
            uid = _uid(who.pid)
            return Holder(who.pid, uid, run_id if uid == os.getuid() else "")
        for pid in (*_lockers(path), *_openers(path)):
            uid = _uid(pid)
            if uid is not None:
                return Holder(pid, uid)
        return Holder()

    def _open(self, name: str) -> int:
        """Open a device's file, made for everybody where it is missing."""
        path = self.path(name)
        try:
            for _ in range(PROBE_TRIES):
                try:
                    return _opened(path)
                except FileNotFoundError:
                    pass
                try:
                    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                except FileExistsError:
                    continue  # somebody was faster
                os.fchmod(descriptor, 0o666)  # whatever the umask is
                return descriptor
        except OSError as error:
            raise LeptonError(
                f"Device '{name}' cannot be leased: '{path}': {error.strerror}.",
                "Let root remove that file, or set LEPTON_LEASES to another folder that all users share.",
                code="unavailable",
            ) from error
        raise LeptonError(f"Device '{name}' cannot be leased: '{path}' comes and goes.", code="unavailable")


def sign(lock: Lock, pid: int, run_id: str) -> None:
    """Write into a device's file for whom it is held: told to people, never taken for a proof."""
    who = Identity.of(pid)
    if who is not None:
        content = json.dumps({**who.to_dict(), "run_id": run_id}).encode()
        os.ftruncate(lock.descriptor, 0)
        os.pwrite(lock.descriptor, content, 0)


def _is_shared(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and found.st_mode & 0o1777 == 0o1777


def _opened(path: Path) -> int:
    """Open a plain file that has one name; a link, a pipe or a device that somebody put there is refused."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError(22, "it is no plain file of its own", str(path))
    return descriptor


def _note(path: Path) -> tuple[Identity | None, str]:
    try:
        descriptor = _opened(path)
        try:
            said = json.loads(os.pread(descriptor, NOTE_BYTES, 0))
        finally:
            os.close(descriptor)
        who = Identity(int(said["pid"]), int(said["start_ticks"]), str(said["boot_id"]))
        return (who if who.boot_id == boot_id() else None), str(said.get("run_id", ""))
    except (OSError, ValueError, TypeError, KeyError):
        return None, ""


def _uid(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def _lockers(path: Path) -> list[int]:
    """Return who took the lock, as the system remembers it: it may have handed it on, and be gone."""
    try:
        found = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    rows = [line.split() for line in lines]
    return [int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5] == place and int(row[4]) > 0]


def _openers(path: Path) -> list[int]:
    """Return the processes that have a file open, of those that we may look at."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) == str(path) for link in (folder / "fd").iterdir()):
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]
