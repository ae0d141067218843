"""The kernel of a run: started over ipc, dying with its supervisor, ended by it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

from lepton_jupyter.core.errors import LeptonError, did_you_mean
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.processes import Identity, boot_id, die_with_parent, how_ended
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner.memory import MemoryWatch
from lepton_jupyter.runner.payload import INDEX, OBJECTS
from lepton_jupyter.runner.sweep import sweep_session

READY_TIMEOUT_S = 120
AHEAD = "from lepton_jupyter.runner import ahead as _ahead; _ahead.load(); del _ahead"
SHUTDOWN_S = 5
# At its end ipykernel waits 10 s for a stream whose thread has just ended, and 28 s for children that nobody reaps;
# Python then takes torch apart for seconds. So all exit handlers are called, and then it is over.
HASTE = """
import atexit, os, signal, sys
def leave(atexit=atexit, os=os, sys=sys):  # one of the handlers empties the namespace
    atexit.unregister(leave)
    atexit._run_exitfuncs()
    for stream in (sys.__stdout__, sys.__stderr__):
        stream and stream.flush()
    os._exit(0)
atexit.register(leave)
sys.stdout.flush_timeout = sys.stderr.flush_timeout = 0.1
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
try:
    while os.waitpid(-1, os.WNOHANG)[0]:
        pass
except ChildProcessError:
    pass
"""


class RunKernel:
    """One kernel process and our channels to it.

    Parameters
    ----------
    record : RunRecord
        Which interpreter (or kernelspec), and where.
    folder : RunFolder
        Its log gets what the kernel prints outside of cells.
    connections : Path
        Folder for the connection file and the sockets: short, private.
    name : str, optional
        Theirs, at most 12 letters; None for the run's id.
    """

    def __init__(self, record: RunRecord, folder: RunFolder, connections: Path, *, name: str | None = None) -> None:
        self.record = record
        self.folder = folder
        self.connections = connections
        self.identity: Identity | None = None
        self._name = name or folder.run_id[:12]
        stem = str(connections / self._name)
        self.manager = AsyncKernelManager(transport="ipc", connection_file=f"{stem}.json", ip=stem)
        self._spec = _spec(record)
        self.manager._kernel_spec = self._spec
        self.client: Any = None
        self._memory = MemoryWatch()

    def start(self, environment: Mapping[str, str], lease_fds: Sequence[int] = ()) -> Identity:
        """Start the process. Call it in the main thread: the parent-death signal belongs to the thread that forks.

        Raises
        ------
        LeptonError
            If interpreter or folder are not there.
        """
        cwd = Path(self.record.cwd)
        if not cwd.is_dir():
            raise LeptonError(f"The run's folder '{cwd}' is not there any more.", code="failed")
        log = os.open(self.folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            run_sync(self.manager.start_kernel)(
                env=dict(environment),
                cwd=str(cwd),
                stdout=log,
                stderr=log,
                independent=True,
                preexec_fn=die_with_parent(),
                pass_fds=tuple(lease_fds),
                extra_arguments=["--HistoryManager.hist_file=:memory:", *ahead_arguments(self.record, self.folder)],
            )
        except OSError as error:
            raise LeptonError(
                f"The kernel's interpreter '{self._spec.argv[0]}' cannot be started: {error.strerror}.",
                code="failed",
            ) from error
        finally:
            os.close(log)
        identity = Identity.of(self._process.pid)
        # It may be gone already; its number still names the session that is swept.
        self.identity = identity or Identity(self._process.pid, 0, boot_id())
        return self.identity

    async def connect(self) -> None:
        """Wait until the kernel answers.

        Raises
        ------
        RuntimeError
            If it dies before it does, or does not within `READY_TIMEOUT_S`.
        """
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=READY_TIMEOUT_S)
        self.client.allow_stdin = False

    async def execute_silently(self, code: str) -> str:
        """Run code that no cell shows; return an empty string, or the error that it ended in."""
        waiting = asyncio.ensure_future(self.client.execute_interactive(
            code, silent=True, store_history=False, output_hook=lambda _: None, allow_stdin=False
        ))  # fmt: skip
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=0.25)
            if self.exit_code() is not None:
                waiting.cancel()
                return "RuntimeError: the kernel died"
        content = waiting.result()["content"]
        return "" if content["status"] == "ok" else f"{content.get('ename')}: {content.get('evalue')}"

    @property
    def _process(self) -> Any:
        return getattr(self.manager.provisioner, "process", None)

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the kernel lives."""
        process = self._process
        return None if process is None else process.poll()

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return (self.exit_code() or 0) < 0

    def why_ended(self) -> str:
        """Return in words how it ended."""
        return why_ended(self.exit_code(), self._memory)

    def interrupt(self) -> None:
        """Signal the kernel's process alone: in its group, loaders' workers would die of it."""
        if self.identity is not None:
            self.identity.send(signal.SIGINT)

    def kill(self) -> None:
        """Kill the kernel and all of its session."""
        if self.identity is not None:
            sweep_session(self.identity)

    async def shut_down(self) -> None:
        """Ask the kernel to go, wait a moment, then end whatever of its session is left."""
        if self.exit_code() is None and self._process is not None:
            try:
                if self.client is not None:
                    await asyncio.wait({asyncio.ensure_future(self.execute_silently(HASTE))}, timeout=1)
                await self.manager._async_request_shutdown()
            except Exception as error:
                print(f"The kernel could not be asked to go: {error}", file=sys.stderr)  # noqa: T201  the run's log
            for _ in range(SHUTDOWN_S * 50):
                if self.exit_code() is not None:
                    break
                await asyncio.sleep(0.02)
        self.kill()
        if self._process is not None:
            self._process.wait()
        if self.client is not None:
            self.client.stop_channels()
        await self.manager._async_cleanup_resources()

    def remove_files(self) -> None:
        """Remove the connection file and the sockets."""
        for path in self.connections.glob(f"{self._name}[.-]*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def ahead_arguments(record: RunRecord, folder: RunFolder) -> list[str]:
    """Return what makes a kernel import what its run will need, while papermill is imported here.

    Only where the run's payload speaks of torch, whose import takes longest; another environment's kernel may not
    know us.
    """
    if record.kernel is not None or record.kind not in ("train", "tune", "cell"):
        return []
    files = (folder.payload / OBJECTS, folder.payload / INDEX)
    needs_torch = any(b"torch" in path.read_bytes() for path in files if path.is_file())
    return [f"--IPKernelApp.exec_lines={AHEAD}"] if needs_torch else []


def why_ended(code: int | None, memory: MemoryWatch) -> str:
    """Return in words how a kernel's process ended."""
    if code is None:
        return "the kernel does not answer"
    if code == -signal.SIGKILL:
        return f"the kernel was killed by the system {memory.text()}"
    return f"the kernel {how_ended(code)}"


def _spec(record: RunRecord) -> KernelSpec:
    if record.kernel is None:
        argv = [record.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python", interrupt_mode="signal")
    specs = KernelSpecManager()
    try:
        return specs.get_kernel_spec(record.kernel)
    except NoSuchKernel as error:
        known = sorted(specs.find_kernel_specs())
        raise LeptonError(
            f"No kernelspec named '{record.kernel}'. Known: {', '.join(known)}.{did_you_mean(record.kernel, known)}",
            code="not_found",
        ) from error
