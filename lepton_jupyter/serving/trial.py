"""A bundle's trial: loaded and run once in a process of its own, with limits, before the endpoint takes it.

What a graph takes and how long it runs is known only by running it. A graph of a few bytes may unfold to gigabytes,
never end, or crash the runtime: then the trial's process is lost, and what the endpoint serves is not.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import onnxruntime as ort

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import tail, write_atomic
from lepton_jupyter.core.memory import memory_limit, parse_size
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import how_ended, reap, spawn
from lepton_jupyter.formats.bundle import ANOTHER, GRAPH, open_bundle
from lepton_jupyter.serving.scorer import Scorer

LIMIT_S = 20.0  # a deploy waits for 30
MEMORY_BYTES = 4 * 2**30  # to load any graph and run some rows, besides `MEMORY_A_BYTE` times the graph's own size
MEMORY_A_BYTE = 4
MEMORY_LEAST_BYTES = 2**29  # on the smallest machine
SETTING = "LEPTON_GRAPH_MEMORY"
LOOK_PAUSE_S = 0.01
N_REMEMBERED = 100
LONGEST_ANSWER = 16_384  # bytes; a pipe holds it whole
NICENESS = 5  # what is served goes first
FIRST_TO_GO = 1000  # where the machine's memory ends before the limit does
PASSED = b"passed"

_OUT_OF_MEMORY = ("bad_alloc", "allocate memory")  # as onnxruntime says it


class Trials:
    """Which bundles have passed their trial on this endpoint. One that has is not tried again, after a restart too.

    Parameters
    ----------
    folder : EndpointFolder
    limit_s : float
        How long one may take.
    """

    def __init__(self, folder: EndpointFolder, *, limit_s: float = LIMIT_S) -> None:
        self._folder = folder
        self._limit_s = limit_s
        self.read()

    def read(self) -> None:
        """Know what has passed by now."""
        try:
            self._passed = self._folder.tried.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            self._passed = []

    def has_passed(self, manifest_hash: str) -> bool:
        """Whether a bundle has passed."""
        return _line(manifest_hash) in self._passed

    async def settle(self, bundle: str, manifest_hash: str) -> None:
        """Return when the bundle has passed. Cancelled, its process is ended.

        Raises
        ------
        LeptonError
            If it was refused, took too much memory or time, or its process was lost; the message says which.
        """
        if self.has_passed(manifest_hash):
            return
        await self._try(bundle, manifest_hash)
        self._passed = [*self._passed[1 - N_REMEMBERED :], _line(manifest_hash)]
        try:
            write_atomic(self._folder.tried, "".join(f"{line}\n" for line in self._passed).encode(), is_durable=False)
        except OSError:
            pass  # a full disk: it is tried again after the next start

    async def _try(self, bundle: str, manifest_hash: str) -> None:
        receiver, sender = os.pipe()
        try:
            argv = [sys.executable, "-P", "-m", __name__, bundle, manifest_hash, str(sender), str(self._limit_s)]
            child = self._spawn(argv, sender)
            os.close(sender)
            sender = -1
            try:
                while child.poll() is None:
                    await asyncio.sleep(LOOK_PAUSE_S)
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
                reap()
            said = os.read(receiver, LONGEST_ANSWER)
        finally:
            os.close(receiver)
            if sender >= 0:
                os.close(sender)
        if said != PASSED:
            raise self._refusal(Path(bundle).name, said, child.returncode)

    def _spawn(self, argv: list[str], sender: int) -> subprocess.Popen[bytes]:
        log = self._folder.log if os.access(self._folder.root, os.W_OK) else Path(os.devnull)
        return spawn(argv, env=os.environ, cwd=self._folder.empty, log=log, pass_fds=(sender,))

    def _refusal(self, bundle: str, said: bytes, code: int) -> LeptonError:
        if said:
            return LeptonError.from_dict(msgspec.json.decode(said, type=dict[str, str]))
        if code == -signal.SIGALRM:
            return LeptonError(
                f"The graph of bundle '{bundle}' was not loaded and run within {self._limit_s:g} s.",
                ANOTHER,
                code="refused",
            )
        return LeptonError(
            f"The graph of bundle '{bundle}' cannot be loaded and run: the process that tried it {how_ended(code)}.",
            ANOTHER,
            code="refused",
            detail=tail(self._folder.log, 10),
        )


def _line(manifest_hash: str) -> str:
    """Return what is remembered of a bundle that has passed: another runtime may think otherwise."""
    return f"{manifest_hash} onnxruntime-{ort.__version__}"


def attempt(bundle: Path, manifest_hash: str) -> None:
    """Load and run a bundle in this process, which is given up for it: its memory is limited from now on.

    Raises
    ------
    LeptonError
        If it cannot be loaded or run, or wants more memory than it may have.
    """
    allowed = _limit_memory(bundle / GRAPH)
    try:
        Scorer(open_bundle(bundle, manifest_hash)).warm()
    except Exception as error:  # whatever it is, the bundle is not fit to be served
        said = error.message if isinstance(error, LeptonError) else f"{type(error).__name__}: {error}"
        is_of_memory = MemoryError in (type(error), type(error.__cause__)) or any(
            sign in said for sign in _OUT_OF_MEMORY
        )
        if allowed is not None and is_of_memory:
            raise LeptonError(
                f"The graph of bundle '{bundle.name}' wants more than {allowed / 2**30:.1f} GiB of memory.",
                f"{ANOTHER} Where it may take more: {SETTING}=8G in the endpoint's environment.",
                code="refused",
            ) from error
        if isinstance(error, LeptonError):
            raise
        raise LeptonError(said, ANOTHER, code="failed") from error


def _limit_memory(graph: Path) -> int | None:
    """Limit what this process may take besides what it has; return how much, None where the system has no such limit.

    Raises
    ------
    LeptonError
        If the setting is no size.
    """
    _set(resource.RLIMIT_CORE, 0)
    if setting := os.environ.get(SETTING):
        allowed = parse_size(setting, SETTING)
    else:
        size = graph.lstat().st_size if graph.exists() else 0
        wanted = MEMORY_BYTES + MEMORY_A_BYTE * min(size, 2**31)  # a graph has 2 GiB at most
        allowed = max(MEMORY_LEAST_BYTES, min(wanted, memory_limit()))
    try:
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))
        has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return None
    return allowed if _set(resource.RLIMIT_AS, has + allowed) else None


def _set(kind: int, soft: int) -> bool:
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    except (ValueError, OSError):
        return False
    return True


def main(argv: list[str]) -> int:
    """Try the bundle that the first two arguments name; the answer goes to the descriptor that the third one is."""
    bundle, manifest_hash, answer, limit_s = argv
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # it ends the process, whatever is computing
    signal.setitimer(signal.ITIMER_REAL, float(limit_s))
    os.nice(NICENESS)
    try:
        attempt(Path(bundle), manifest_hash)
        said = PASSED
    except LeptonError as error:
        cut = LeptonError(error.message[:1000], error.hint[:500], code=error.code)
        said = msgspec.json.encode(cut.to_dict())
    os.write(int(answer), said)
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # what a hostile graph left behind is not taken down in order
