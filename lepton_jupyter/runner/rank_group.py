"""One group of ranks: processes that torch's elastic agent starts and watches, from their first word to their last."""

from __future__ import annotations

import logging
import os
import re
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lepton_jupyter.core.devices import n_cores
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.processes import how_ended
from lepton_jupyter.runner.rank_channel import Channel

if TYPE_CHECKING:
    from lepton_jupyter.runner.session import RunSession

LOOK_S = 0.1
GRACE_S = 5  # for ranks whose neighbour is gone
ELASTIC = "torch.distributed.elastic"
# What a rank says that lost its neighbour: the neighbour's death is the reason, not this.
_ECHO = re.compile(r"closed by peer|reset by peer|Broken pipe|Socket closed|NCCL|gloo|Connection refused", re.I)


class RankError(Exception):
    """What the code of a rank raised, with its own traceback.

    Attributes
    ----------
    told : dict
        As `LeptonError.to_dict` writes an error.
    """

    def __init__(self, text: str, told: dict[str, str], lines: list[str]) -> None:
        super().__init__(text)
        self.told = told
        self._lines = lines

    def _render_traceback_(self) -> list[str]:
        return self._lines


@dataclass
class Ended:
    """How a group of ranks ended.

    Attributes
    ----------
    rank : int or None
        Who was the reason; None where all went well.
    raised : dict or None
        Name, text and traceback of what that rank raised; None where it died.
    told : dict or None
        The same as the run's record of an error.
    reason : str
        In words, where it died.
    """

    rank: int | None = None
    raised: dict[str, Any] | None = None
    told: dict[str, str] | None = None
    reason: str = ""

    def error(self) -> Exception:
        """Return what the kernel's cell shall raise."""
        if self.told is not None and self.raised is not None and self.raised["ename"] == LeptonError.__name__:
            return LeptonError.from_dict(self.told)  # two lines of ours say it all, and in each rank the same
        place = f" [rank {self.rank}]"
        raised = self.raised or {"ename": "LeptonError", "evalue": "", "traceback": []}
        told = dict(self.told or {"message": f"{raised['ename']}: {raised['evalue']}", "code": "failed"})
        told["message"] = str(told.get("message", "")) + place
        kind = type(str(raised["ename"]), (RankError,), {})
        lines = [f"In rank {self.rank}:", *raised["traceback"]]
        return kind(f"{raised['evalue']}{place}", told, lines)


@dataclass
class _Line:
    """The kernel's end of one rank's channel, and what came by it."""

    channel: Channel
    rank: int = -1
    pid: int = 0
    is_done: bool = False
    raised: dict[str, Any] | None = None
    told: dict[str, str] | None = None


@dataclass
class Group:
    """All ranks of one attempt."""

    run_session: RunSession
    source: str
    n: int
    each_look: Callable[[], None]
    logged: set[tuple[Any, ...]]  # steps and names of metrics, over all attempts: what is done again is not told again
    _before: frozenset[tuple[Any, ...]] = frozenset()
    _lines: list[_Line] = field(default_factory=list)
    _causes: list[_Line] = field(default_factory=list)
    _has_interrupted: bool = False
    _failure: BaseException | None = None

    def run(self) -> Ended:
        """Start the ranks, listen to them until the last has gone, and say how it went."""
        interrupts = self.run_session.interrupts
        self._before = frozenset(self.logged)
        path = self.run_session.home.runtime().make().kernels / f"{self.run_session.run_id[:12]}.ranks"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(self.n)
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ)
        agent = threading.Thread(target=self._launch, args=(str(path),), name="ranks", daemon=True)
        interrupts.is_polled = True  # an interrupt is handed on, and does not tear this loop
        try:
            with _environment(self.n):
                agent.start()
                while agent.is_alive() or len(selector.get_map()) > 1:
                    self._look(selector, listener)
                    self.each_look()
                agent.join()
        finally:
            interrupts.is_polled = False
            selector.close()
            listener.close()
            path.unlink(missing_ok=True)
            for line in self._lines:
                line.channel.close()
        return self._ended()

    def _launch(self, path: str) -> None:
        """Let the agent start and watch the ranks; it returns when they are gone."""
        try:
            from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
            from torch.distributed.launcher.api import LaunchConfig, elastic_launch

            from lepton_jupyter.runner.rank import main

            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=self.n,
                run_id=self.run_session.run_id,
                rdzv_backend="c10d",
                rdzv_endpoint="127.0.0.1:0",
                local_addr="127.0.0.1",
                max_restarts=0,  # whether to begin again is not the agent's to say: see `run_in_ranks`
                logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
                shutdown_timeout=GRACE_S,
            )
            with _log_of(self.run_session):
                elastic_launch(config, main)(path, os.getpid())
        except BaseException as error:
            self._failure = error

    def _look(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        for key, _ in selector.select(LOOK_S):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                line = _Line(Channel(connection))
                self._lines.append(line)
                selector.register(connection, selectors.EVENT_READ, line)
                continue
            try:
                for message in key.data.channel.arrived():
                    self._take(key.data, message)
            except EOFError:
                selector.unregister(key.fileobj)
                if not key.data.is_done and key.data.raised is None and key.data.told is None:
                    self._causes.append(key.data)
        if self.run_session.interrupts.is_asked and not self._has_interrupted:
            self._has_interrupted = True
            for line in self._lines:
                _interrupt(line)

    def _take(self, line: _Line, message: dict[str, Any]) -> None:
        match message:
            case {"hello": rank, "pid": pid}:
                line.rank, line.pid = rank, pid
                line.channel.send(source=self.source, log=str(self.run_session.files.log))
                if self._has_interrupted:
                    _interrupt(line)
            case {"event": event}:
                self._take_event(line, event)
            case {"raised": raised}:
                line.raised = raised
                self._causes.append(line)
            case {"bye": _}:
                line.is_done = True
            case {"stream": name, "text": text}:
                stream = sys.stderr if name == "stderr" else sys.stdout
                stream.write(text)
            case {"display": _} | {"clear": _} if line.rank == 0:
                _display(message)

    def _take_event(self, line: _Line, event: dict[str, Any]) -> None:
        if "error" in event:  # whose error ends the run is not settled before all have ended
            if line.told is None and line.raised is None:
                self._causes.append(line)
            line.told = event["error"]
            return
        if event.get("kind") == "metric":
            which = (event["step"], *sorted(event["values"]))
            if which in self._before:
                return
            self.logged.add(which)
        self.run_session.relay(event)

    def _ended(self) -> Ended:
        codes = {one.local_rank: one.exitcode for one in getattr(self._failure, "failures", {}).values()}
        if self._failure is None and not self._causes:
            return Ended()
        if not self._causes:  # none of them came as far as to speak
            if not codes:
                raise LeptonError(f"The ranks could not be started: {self._failure}.", code="failed")
            rank, code = next(iter(codes.items()))
            return Ended(rank, reason=_why(rank, code))
        cause = self._cause(codes)
        if cause.raised is None and cause.told is None:
            return Ended(cause.rank, reason=_why(cause.rank, codes.get(cause.rank)))
        return Ended(cause.rank, cause.raised, cause.told)

    def _cause(self, codes: dict[int, int]) -> _Line:
        """Return who was the reason: the first, unless it only lost its neighbour; later deaths are the agent's."""
        for line in self._causes:
            is_first = line is self._causes[0]
            is_by_agent = line.raised is None and codes.get(line.rank) in (None, -signal.SIGTERM)
            if not _is_echo(line) and (is_first or not is_by_agent):
                return line
        return self._causes[0]


def _is_echo(line: _Line) -> bool:
    return line.raised is not None and bool(_ECHO.search(f"{line.raised['ename']} {line.raised['evalue']}"))


def _interrupt(line: _Line) -> None:
    if line.pid:
        try:
            os.kill(line.pid, signal.SIGINT)
        except ProcessLookupError:
            return


def _display(message: dict[str, Any]) -> None:
    from IPython.display import clear_output, publish_display_data

    if "clear" in message:
        clear_output(wait=bool(message["clear"]))
        return
    shown = message["display"]
    publish_display_data(
        shown["data"], shown["metadata"], transient=shown.get("transient") or {}, update=shown.get("update", False)
    )


def _why(rank: int, code: int | None) -> str:
    """Return in words how a rank's process ended."""
    if code is None or code == -signal.SIGKILL:
        return f"Rank {rank} was killed by the system (SIGKILL), perhaps for memory"
    return f"Rank {rank} {how_ended(code)}"


@contextmanager
def _environment(n: int) -> Iterator[None]:
    """Set what ranks inherit: their share of the cores, and the loopback as the way to each other."""
    wanted: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:
        threads = str(max(1, n_cores() // n))
        wanted |= {"OMP_NUM_THREADS": threads, "LEPTON_RANK_THREADS": threads}
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if loopback is not None and name not in os.environ:
            wanted[name] = loopback
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            os.environ.pop(name, None)


@contextmanager
def _log_of(run: RunSession) -> Iterator[None]:
    """Lead the agent's own words to the run's log: in the cell they would hide the reason."""
    logger = logging.getLogger(ELASTIC)
    handler = logging.FileHandler(run.files.log)
    was = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = was
        logger.removeHandler(handler)
        handler.close()
