"""One rank of a run: the cell, or the engine's loop, in a process of its own.

torch's elastic agent starts it in the kernel (see `ranks`), with torchrun's variables set. What rank 0 prints and
displays goes to the cell; what others print goes to the run's log, each line with its rank.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from lepton_jupyter.core.processes import PR_SET_PDEATHSIG
from lepton_jupyter.runner import rank_channel
from lepton_jupyter.runner.rank_channel import Channel


class _Told(io.RawIOBase):
    """A stream whose text goes to the kernel."""

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._channel.send(stream=self._name, text=content.decode("utf-8", "replace"))
        return len(content)


class _Prefixed(io.RawIOBase):
    """A stream whose lines go to the log with ``[rank 1]`` before them."""

    def __init__(self, rank: int) -> None:
        self._prefix = f"[rank {rank}] ".encode()
        self._line = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        *lines, self._line = (self._line + content).split(b"\n")
        os.write(1, b"".join(self._prefix + line + b"\n" for line in lines))
        return len(content)

    def close(self) -> None:
        if self._line:
            os.write(1, self._prefix + self._line + b"\n")
            self._line = b""
        super().close()


class _Displayed(DisplayPublisher):  # type: ignore[misc]  # IPython has no types
    channel: Channel | None = None

    def publish(
        self, data: Any, metadata: Any = None, source: Any = None, *,
        transient: Any = None, update: Any = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        if self.channel is not None:
            about = {"transient": transient or {}, "update": bool(update)}
            self.channel.send(display=_plain({"data": data, "metadata": metadata or {}, **about}))

    def clear_output(self, wait: bool = False) -> None:
        if self.channel is not None:
            self.channel.send(clear=wait)


class _LastValue(DisplayHook):  # type: ignore[misc]
    """The value of a cell's last line: shown as a display."""

    def write_output_prompt(self) -> None:
        return

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        assert self.shell is not None
        self.shell.display_pub.publish(format_dict, md_dict)

    def finish_displayhook(self) -> None:
        return


class RankShell(InteractiveShell):  # type: ignore[misc]
    """A shell without a terminal: magics, displays and tracebacks as in the kernel."""

    display_pub_class = _Displayed
    displayhook_class = _LastValue
    channel: Channel | None = None

    def enable_gui(self, gui: Any = None) -> None:
        """Nothing to enable: there is no event loop."""

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        if self.channel is not None:
            told = {"ename": etype.__name__, "evalue": str(evalue), "traceback": list(stb)}
            self.channel.send(raised=_plain(told))


def main(path: str, kernel: int) -> None:
    """Run what the kernel says; called by the elastic agent in a fresh process.

    Parameters
    ----------
    path : str
        The kernel's socket.
    kernel : int
        Its pid: we die with it.

    Raises
    ------
    SystemExit
        With 1 where the cell failed, so that the agent ends the other ranks.
    """
    _die_with(kernel)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    channel = rank_channel.here = Channel.connect(path)
    rank = int(os.environ["RANK"])
    channel.send(hello=rank, pid=os.getpid())
    said = channel.receive()
    if said is None:
        os._exit(1)
    _redirect(channel, rank, Path(said["log"]))
    is_well = _run(channel, said["source"])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if not is_well:
        sys.exit(1)
    _leave_group()
    channel.send(bye=rank)


def _die_with(kernel: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != kernel:  # it died before the line above
        os._exit(1)


def _redirect(channel: Channel, rank: int, log: Path) -> None:
    """Lead what is printed to where it belongs; what C code prints goes to the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        raw = _Told(channel, name) if rank == 0 else _Prefixed(rank)
        buffered = io.BufferedWriter(raw)
        setattr(sys, name, io.TextIOWrapper(buffered, encoding="utf-8", errors="replace", line_buffering=True))


def _run(channel: Channel, source: str) -> bool:
    from traitlets.config import Config

    from lepton_jupyter.runner import session
    from lepton_jupyter.runner.inside import prepare

    _settle_threads()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "neutral"
    shell = RankShell.instance(config=config)
    shell.channel = channel
    assert isinstance(shell.display_pub, _Displayed)
    shell.display_pub.channel = channel
    try:
        prepare(session.current())
    except BaseException:  # it has told the kernel why
        return False
    result = shell.run_cell(source, store_history=True)
    return result.error_before_exec is None and result.error_in_exec is None


def _settle_threads() -> None:
    """Share the cores between the ranks, unless the user said how many threads."""
    import torch

    if said := os.environ.get("LEPTON_RANK_THREADS"):
        torch.set_num_threads(int(said))


def _leave_group() -> None:
    """End the user's process group, so that nothing warns of it at the end."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value, str_keys=True, enc_hook=str)
