"""Keep one supervisor with a kernel warm, hand it a run that fits, and give it back when nobody wants it.

What waits is our child, and ends when we do: its socket's other end is ours. It is ours alone, and used once. Whatever
goes wrong with it, the run is started as if nobody had waited.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import psutil

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.backend.keeper import backend_environment
from lepton_jupyter.backend.queue import Lease
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held, spawn

log = logging.getLogger("lepton.backend")

WAITER = (sys.executable, "-P", "-m", "lepton_jupyter.runner.warm")
KINDS = ("train", "tune", "cell")
IDLE_S = 900.0  # without a training, and without anybody who began to work
CALM_S = 30.0  # the first half minute of a run is its own: many are over by then
FREE_CORE = 0.8  # of a core that nobody used of late: what starts beside a run shall not slow it down
QUIET_S = 2.0  # since somebody typed: a run may come of it in a moment
ANSWER_S = 2.0
PAUSE_S = 60.0  # after one that did not get ready; longer each time
LEAST_TO_START = 2 * 2**30  # bytes that must be left; one that waits takes about half a gigabyte
LEAST_TO_KEEP = 2**30

# Read when a process or a library begins: one that began with another value cannot be given this one.
READ_AT_START = re.compile(
    r"PYTHON(?!UNBUFFERED$|DONTWRITEBYTECODE$)[A-Z0-9]+|PYTHON_(GIL|CPU_COUNT|JIT|PERF.*)|LD_.*|DYLD_.*|GLIBC_.*|MALLOC_.*|LANG|LANGUAGE|LC_.*|TZ|HOME"
    r"|XDG_CONFIG_HOME|IPYTHON.*|JUPYTER_(PATH|DATA_DIR|CONFIG_.*|NO_CONFIG|PLATFORM_DIRS)"
    r"|(OMP|GOMP|KMP|MKL|OPENBLAS|GOTO|BLIS|VECLIB|NUMEXPR|POLARS|RAYON|ARROW|NPY|NUMPY|TORCH|PYTORCH|ATEN|ONNX|ORT"
    r"|CUBLAS|CUDNN|NVIDIA|SCIPY|SKLEARN|JOBLIB|LOKY|DNNL|ONEDNN)_.*|CUDA_(?!VISIBLE_DEVICES$).*|MPLBACKEND"
    r"|VIRTUAL_ENV|CONDA_PREFIX|LEPTON_HOME"
)


def is_off() -> bool:
    """Whether the setting ``LEPTON_WARM`` says that nobody shall wait."""
    return os.environ.get("LEPTON_WARM", "").lower() in ("off", "0", "no", "false")


def is_ready(home: Home) -> bool:
    """Whether a warm supervisor waits in a home."""
    return is_held(home.runtime().warm_lock)


def available_bytes() -> int:
    """Return how much memory the machine, or what limits us, has left; a great deal where it does not tell."""
    left = [1 << 62]
    try:
        told = Path("/proc/meminfo").read_text()
        left += [int(line.split()[1]) * 1024 for line in told.splitlines() if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        left.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no such limit
        pass
    return min(left)


class Warming:
    """The one that waits. Its methods may be called from any thread.

    Parameters
    ----------
    home : Home
    waiter : sequence of str
        The program; it gets the home, an interpreter, a descriptor and perhaps a file with an environment.
    """

    def __init__(self, home: Home, waiter: Sequence[str] = WAITER) -> None:
        self.home = home
        self._waiter = waiter
        self._next: tuple[str, Path | None] = (sys.executable, None)  # interpreter, environment of the last training
        self._python = ""
        self._environment: dict[str, str] = {}
        self._child: Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._wanted_at: float | None = None
        self._trainings: set[str] = set()
        self._pause_until = 0.0
        self._n_failures = 0
        self._lock = threading.Lock()

    def want(self) -> None:
        """Hear that somebody is at work: another training may come soon."""
        self._wanted_at = time.monotonic()

    def tick(self, active: Sequence[FollowedRun]) -> None:
        """Start one where one is wanted and the machine is calm; give it back where it is not wanted any more."""
        trainings = {run.view.run_id for run in active if run.record.kind in KINDS}
        if self._trainings - trainings:  # one has ended
            self.want()
        self._trainings = trainings
        n_free = free_cores()
        now = time.monotonic()
        is_wanted = self._wanted_at is not None and now - self._wanted_at < IDLE_S
        with self._lock:
            if self._child is not None and self._child.poll() is not None:
                self._failed(self._child.returncode)
            if self._child is not None and (not is_wanted or available_bytes() < LEAST_TO_KEEP):
                self._give_back()
            since = max(self._pause_until, (self._wanted_at or 0.0) + QUIET_S)
            is_due = self._child is None and is_wanted and now >= since and not is_off()
            if is_due and _is_calm(active, n_free) and available_bytes() > LEAST_TO_START:
                self._start()

    def hand_over(self, run: FollowedRun, lease: Lease | None) -> Popen[bytes] | None:
        """Hand a run to the one that waits, and return its process; None where nobody waits or it does not fit."""
        if run.record.kind not in KINDS or run.record.kernel is not None or is_off():
            return None
        self.want()
        with self._lock:
            child, channel = self._child, self._channel
            fits = self._fits(run)
            self._next = run.record.python, run.folder.environment
            if child is None or channel is None:
                return None
            if not fits:
                if is_ready(self.home):  # the next one will
                    self._give_back()
                return None
            self._child = self._channel = None
        said = {"run": str(run.folder.root), "devices": ",".join(lease.names) if lease is not None else ""}
        try:
            channel.settimeout(ANSWER_S)
            socket.send_fds(channel, [json.dumps(said).encode()], lease.descriptors if lease is not None else [])
            if channel.recv(16):
                self._n_failures = 0
                return child
        except OSError:
            pass
        finally:
            channel.close()
        _end(child, 0.0)
        return None

    def close(self) -> None:
        """Give back what waits."""
        with self._lock:
            self._wanted_at = None
            child = self._give_back()
        if child is not None:
            _end(child, ANSWER_S)

    def _fits(self, run: FollowedRun) -> bool:
        """Whether a run may have the kernel that waits."""
        if run.record.python != self._python or run.folder.log.exists() or not is_ready(self.home):
            return False
        try:
            wanted = json.loads(run.folder.environment.read_bytes())
        except (OSError, ValueError):
            return False
        differs = {name for name, _ in wanted.items() ^ self._environment.items()}
        return not any(READ_AT_START.fullmatch(name) for name in differs)

    def _start(self) -> None:
        shutil.rmtree(self.home.warm, ignore_errors=True)
        self.home.warm.mkdir(mode=0o700)
        self._remove_dead()
        self._python, like = self._next
        environment = self._environment = backend_environment(self.home)
        ours, theirs = socket.socketpair()
        argv = [*self._waiter, str(self.home.root), self._python, str(theirs.fileno())]
        if like is not None and like.exists():
            self._environment = json.loads(like.read_bytes())
            argv.append(str(like))
        self._environment = {**self._environment, "LEPTON_HOME": str(self.home.root)}
        try:
            self._child = spawn(
                argv,
                env=environment,
                cwd=self.home.warm,
                log=self.home.warm / "log.txt",
                pass_fds=[theirs.fileno()],
            )
            self._channel = ours
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()

    def _give_back(self) -> Popen[bytes] | None:
        """Let go of it: it ends by itself."""
        child, self._child = self._child, None
        if self._channel is not None:
            self._channel.close()
        self._channel = None
        return child

    def _failed(self, status: int) -> None:
        """Make a pause that grows: an environment that cannot get warm is not tried each second."""
        self._n_failures += 1
        self._pause_until = time.monotonic() + PAUSE_S * 2 ** min(self._n_failures - 1, 6)
        log.warning("the kernel that waits for a training ended with %s; see %s", status, self.home.warm / "log.txt")
        self._give_back()

    def _remove_dead(self) -> None:
        """Remove sockets of those that were killed: each is named by a process."""
        for path in self.home.runtime().kernels.glob("w*"):
            named = re.match(r"w(\d+)[.-]", path.name)
            if named and Identity.of(int(named[1])) is None:
                path.unlink(missing_ok=True)


def free_cores() -> float:
    """Return how many cores of the machine nobody used since the calling thread last asked; 0 the first time."""
    return psutil.cpu_times_percent().idle / 100 * (psutil.cpu_count() or 1)


def _is_calm(active: Sequence[FollowedRun], n_free: float) -> bool:
    """Whether no run is about to begin or has just begun, and those that run leave a core free."""
    now = time.time()
    is_beginning = any(
        run.view.state in ("queued", "starting") or now - (run.view.started_at or now) < CALM_S for run in active
    )
    return not is_beginning and (not active or n_free >= FREE_CORE)


def _end(child: Popen[bytes], patience_s: float) -> None:
    """Wait for an end, or make it."""
    try:
        child.wait(patience_s)
    except TimeoutExpired:
        try:
            os.killpg(child.pid, signal.SIGKILL)  # the kernel dies with its parent
        except ProcessLookupError:
            pass
        child.wait()
