"""Which of an endpoint's processes this is, and what it shares with the others."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.replicas import first_lock, has_others, own_folder
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.serving.edges import Edges, forget_edges
from lepton_jupyter.serving.listener import Listener
from lepton_jupyter.serving.metrics import Metrics
from lepton_jupyter.serving.peers import Peers
from lepton_jupyter.serving.sharing import BIND_S, PAUSE_S
from lepton_jupyter.serving.tally import Comparison
from lepton_jupyter.serving.trial import Trials
from lepton_jupyter.serving.turns import TrialsByTurns

logger = logging.getLogger(__name__)


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

    async def bind(self, config: EndpointConfig) -> Listener:
        """Return a listener on the port; a port that is to be shared may be another's alone for a moment.

        Raises
        ------
        LeptonError
            If the port cannot be had.
        """
        if config.replicas == 1:
            return Listener(config.host, config.port)
        deadline = asyncio.get_running_loop().time() + BIND_S
        while True:
            try:
                return Listener(config.host, config.port, is_shared=True)
            except LeptonError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
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

    def compare(self, config: EndpointConfig, comparison: Comparison | None) -> None:
        """Have a canary's predictions counted as the others count them."""
        if comparison is None:
            forget_edges(self._folder)
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
