"""The processes of one endpoint: what each counts lies in a file, and whoever is asked answers for all of them.

An answer counts what stands in the files, its own written just before: so a counter never falls, though a process that
is killed loses what it counted since.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import is_held
from lepton_jupyter.core.replicas import counts_of, own_folder, own_folders, replica_lock
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.serving.counts import KEPT_ELSEWHERE, AsCollector, Counts, Scored, together, with_past

AT_LEAST_S = 10.0  # between two files where nothing was asked: memory and time of the process go on

logger = logging.getLogger(__name__)


class Peers:
    """The counts of all processes of an endpoint, asked for in one of them.

    Parameters
    ----------
    folder : EndpointFolder
        The endpoint's.
    first_lock : Path
        The first process's.
    number : int
        Of this process.
    count : callable
        Returns what this process has counted in this life.

    Attributes
    ----------
    n_wanted : int
        How many processes there should be.
    """

    def __init__(self, folder: EndpointFolder, first_lock: Path, *, number: int, count: Callable[[], Counts]) -> None:
        self.n_wanted = number
        self._folder, self._first_lock, self._number, self._count = folder, first_lock, number, count
        self._path = counts_of(own_folder(folder, number))
        self._past = _read(self._path)
        self._told, self._told_at = Counts(), -AT_LEAST_S

    def tell(self) -> Counts:
        """Write what this process has counted, where it is new, and return it."""
        counts = with_past(self._count(), self._past)
        now, requests = time.monotonic(), counts.of_requests
        if requests != self._told or now - self._told_at > AT_LEAST_S:
            try:
                write_atomic(self._path, encode(counts), is_durable=False)
                self._told, self._told_at = requests, now
            except OSError as error:
                logger.warning("%s cannot be written: %s", self._path, error)
        return counts

    def metrics(self) -> bytes:
        """Return what all have counted, in Prometheus' text format."""
        counts, ups = self._all()
        wanted = GaugeMetricFamily(
            "lepton_endpoint_replicas", "Processes that should answer on the port.", value=self.n_wanted
        )
        up = GaugeMetricFamily("lepton_replica_up", "1 for a process that lives, by its number.", labels=("replica",))
        for number in range(1, max(self.n_wanted, *ups) + 1):
            if number <= self.n_wanted or ups.get(number):
                up.add_metric((str(number),), float(ups.get(number, False)))
        return generate_latest(AsCollector(counts, wanted, up))  # type: ignore[arg-type]  # it asks for `collect` only

    def scored(self) -> Scored:
        """Return what all have counted, for the protocol's statistics."""
        return self._all()[0].scored

    def _all(self) -> tuple[Counts, dict[int, bool]]:
        """Return the counts of all, and who lives; of the dead what is still true of them."""
        living, ups = [self.tell()], {self._number: True}
        dead: list[Counts] = []
        for number, own in own_folders(self._folder).items():
            if number == self._number:
                continue
            ups[number] = is_held(replica_lock(self._first_lock, number))
            counts = _read(counts_of(own))
            if counts is not None:
                (living if ups[number] else dead).append(counts)
        known = {family.name for counts in living for family in counts.families}
        for counts in dead:
            past = counts.past
            kept = [one for one in past.families if one.name in known or not one.name.startswith(KEPT_ELSEWHERE)]
            living.append(Counts(families=tuple(kept), scored=past.scored))
        return together(living), ups


def _read(path: Path) -> Counts | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Counts)
    except (OSError, msgspec.DecodeError):
        return None
