"""Which of an endpoint's processes this is, and what it shares with the others."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import Identity, is_held
from lepton_jupyter.core.replicas import first_lock, has_others, own_folder, own_folders, port_of, replica_lock
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.serving.edges import Edges, forget_edges
from lepton_jupyter.serving.listener import Listener
from lepton_jupyter.serving.metrics import Metrics
from lepton_jupyter.serving.peers import Peers
from lepton_jupyter.serving.sharing import BIND_S, PAUSE_S
from lepton_jupyter.serving.tally import Comparison
from lepton_jupyter.serving.tls import Certificate
from lepton_jupyter.serving.trial import Trials
from lepton_jupyter.serving.turns import TrialsByTurns

logger = logging.getLogger(__name__)


class _Claim(msgspec.Struct, frozen=True):
    """Which process has which port."""

    pid: int
    port: int


class Replica:
    """One of an endpoint's processes; alone, it does and writes what a process without others does.

    Parameters
    ----------
    folder : EndpointFolder
        The endpoint's.
    lock : Path
        This process's.
    number : int
        The first is 1.

    Attributes
    ----------
    own : EndpointFolder
        Where its own status and figures lie.
    trials : Trials
    """

    def __init__(self, folder: EndpointFolder, lock: Path, number: int) -> None:
        self.number = number
        self.own = own_folder(folder, number)
        self.trials = Trials(folder)
        self._folder, self._first_lock = folder, first_lock(lock)
        self._peers: Peers | None = None

    def is_wanted(self, config: EndpointConfig) -> bool:
        """Whether a configuration has room for it."""
        return self.number <= config.replicas

    async def bind(self, config: EndpointConfig, *, before: Listener | None = None) -> Listener:
        """Return a listener on the port; a port that is to be shared may be another's alone for a moment.

        Shared with others of this endpoint only: where none of them has the port, it must be free.

        Raises
        ------
        LeptonError
            If the port cannot be had, or the certificate cannot be used.
        """
        port = config.port or (before.port if before is not None else 0)
        tls = Certificate.of(config.options)
        if config.replicas == 1:
            return Listener(config.host, port, tls=tls, before=before)
        deadline = asyncio.get_running_loop().time() + BIND_S
        while True:
            try:
                is_first = not self._is_ours(port)
                listener = Listener(config.host, port, tls=tls, before=before, is_shared=True, is_first=is_first)
            except LeptonError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            else:
                self._claim(listener.port)
                return listener
            await asyncio.sleep(PAUSE_S)

    def follow(self, config: EndpointConfig, metrics: Metrics) -> None:
        """Be one of as many as a configuration says."""
        is_one_of_several = config.replicas > 1
        if is_one_of_several or has_others(self._folder):  # also the last one: what others have counted still counts
            if self._peers is None:
                self._peers = metrics.peers = Peers(
                    self._folder, self._first_lock, number=self.number, count=lambda: metrics.counts(self.number)
                )
            self._peers.n_wanted = config.replicas
        if is_one_of_several and not isinstance(self.trials, TrialsByTurns):
            self.trials = TrialsByTurns(self._folder, self._first_lock.with_name(f"trial#{self._first_lock.name}"))
        _name_lines(f"[replica {self.number}] " if is_one_of_several else "")

    def share(self, config: EndpointConfig, listener: Listener) -> None:
        """Let others of this endpoint answer on a listener's port too, where there are to be others."""
        if config.replicas > 1:
            self._claim(listener.port)
        listener.share(config.replicas > 1)

    def _claim(self, port: int) -> None:
        """Let the others know that this process has a port."""
        claim = _Claim(os.getpid(), port)
        try:
            write_atomic(port_of(self._folder, self.number), encode(claim), is_durable=False)
        except OSError as error:  # a full disk: who comes now finds the port taken
            logger.warning("port %s cannot be shared: %s", port, error)

    def _is_ours(self, port: int) -> bool:
        """Whether another process of this endpoint has a port."""
        for number in own_folders(self._folder):
            try:
                claim = msgspec.json.decode(port_of(self._folder, number).read_bytes(), type=_Claim)
            except (OSError, msgspec.DecodeError):
                continue
            is_there = is_held(replica_lock(self._first_lock, number)) and Identity.of(claim.pid) is not None
            if number != self.number and claim.port == port and is_there:
                return True
        return False

    def compare(self, config: EndpointConfig, comparison: Comparison | None) -> None:
        """Have a canary's predictions counted as the others count them."""
        if comparison is None:
            forget_edges(self._folder, config.release)
        elif config.replicas > 1:
            comparison.share(Edges(self._folder, comparison.about.since))

    def tell(self) -> None:
        """Write what was counted, for the others."""
        if self._peers is not None:
            self._peers.tell()


def _name_lines(said: str) -> None:
    """Have the log's lines say who says them: all processes of an endpoint append to one log."""
    formatter = logging.Formatter(f"%(asctime)s %(levelname)s {said}%(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
