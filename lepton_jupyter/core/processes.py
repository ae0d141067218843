"""Start processes, know whether they live, and end them: locks, never pids, are the proof of life."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PR_SET_PDEATHSIG = 1
PROBE_TRIES = 6
PROBE_PAUSE_S = 0.004

_children: list[subprocess.Popen[bytes]] = []


class Lock:
    """An exclusive ``flock`` on a file, held until `release` or the end of every process that has its descriptor.

    Examples
    --------
    >>> lock = Lock.take(Path("/tmp/doctest-lock"))
    >>> Lock.take(Path("/tmp/doctest-lock")) is None, is_held(Path("/tmp/doctest-lock"))
    (True, True)
    >>> lock.release()
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, is_waiting: bool = False) -> Lock | None:
        """Take the lock, or return None where another holds it (with `is_waiting`: wait for it).

        Raises
        ------
        OSError
            If the file cannot be opened, for instance because its folder was swept.
        """
        tries = 0
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(descriptor)
                tries += 1
                if tries >= PROBE_TRIES:
                    return None
                pause_of_a_probe()
                continue
            lock = cls(path, descriptor)
            if not lock.is_swept():
                return lock
            os.close(descriptor)  # the file was replaced while we waited: take the new one

    def is_swept(self) -> bool:
        """Whether the path no longer leads to the file that is held: its holder must go."""
        try:
            found = self.path.stat()
        except OSError:
            return True
        held = os.fstat(self.descriptor)
        return (found.st_ino, found.st_dev) != (held.st_ino, held.st_dev)

    def release(self) -> None:
        """Let go. The file stays, so that its inode does."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def pause_of_a_probe() -> None:
    """Wait a moment: a look at a lock, by another process, holds it that long."""
    time.sleep(PROBE_PAUSE_S)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on this file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@cache
def boot_id() -> str:
    """Return the id of this boot of the machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Identity:
    """One process, told apart from a later one with the same pid.

    Attributes
    ----------
    pid : int
    start_ticks : int
        Clock ticks between boot and the process's start; 0 where the system does not tell.
    boot_id : str
    """

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the identity of a living process, or None (a zombie counts as dead)."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        if fields[0] in ("Z", "X"):
            return None
        return cls(pid, int(fields[19]), boot_id())

    def is_alive(self) -> bool:
        """Whether this very process is there."""
        return Identity.of(self.pid) == self

    def send(self, number: int) -> bool:
        """Send a signal to this very process; False where it is gone."""
        if not self.is_alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def send_group(self, number: int) -> bool:
        """Send a signal to the process group that this process leads; False where no member is left.

        The leader itself may be gone: a group's number is not given away while a member lives.
        """
        if self.boot_id != boot_id():
            return False
        leader = Identity.of(self.pid)
        if leader is not None and leader != self:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def to_dict(self) -> dict[str, int | str]:
        """Return a record that `Identity(**record)` reads."""
        return {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self.boot_id}


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to a file: the one spawner of the house.

    The process outlives us. Call `reap` now and then while we live.

    Raises
    ------
    OSError
        If the program, the folder or the log cannot be used.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
    finally:
        os.close(descriptor)
    _children.append(child)
    return child


def reap() -> None:
    """Collect the exit status of children that have ended, so that no zombie stays."""
    _children[:] = [child for child in _children if child.poll() is None]


def how_ended(code: int) -> str:
    """Return in words how a process ended, by its exit code: negative for a signal.

    Examples
    --------
    >>> how_ended(3), how_ended(-11)
    ('ended by itself with exit code 3', 'was killed by SIGSEGV')
    """
    if code >= 0:
        return f"ended by itself with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def die_with_parent() -> Callable[[], None]:
    """Return a ``preexec_fn`` by which a child is killed when the thread that forked it ends.

    Call it, and start the child, in the main thread: the signal belongs to the forking *thread*.
    """
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if hasattr(signal, "SIGKILL") else None

    def before_exec() -> None:
        if libc is not None and hasattr(libc, "prctl"):
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return before_exec


KEPT_VARIABLES = (
    "HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_DATA_HOME",
    "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
KEPT_PREFIXES = ("LC_", "LEPTON_", "MLFLOW_")


def kept_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the allow-listed part of an environment: what the backend and endpoints get."""
    environment = os.environ if environment is None else environment
    return {
        name: value for name, value in environment.items() if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
    }
