"""The releases that answer at a moment, and what is counted and logged of their answers."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from lepton_jupyter.core.devices import n_cores
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.figures import Figures
from lepton_jupyter.serving.answers import HttpError
from lepton_jupyter.serving.batching import Batcher
from lepton_jupyter.serving.journal import Journal
from lepton_jupyter.serving.lanes import Chosen, Lane, Lanes
from lepton_jupyter.serving.metrics import Metrics
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.scorer import Outputs
from lepton_jupyter.serving.shadow import Shadow
from lepton_jupyter.serving.tally import Comparison

logger = logging.getLogger(__name__)


class Traffic:
    """What is served, and how it does. For the event loop's thread."""

    def __init__(self, metrics: Metrics, journal: Journal) -> None:
        self._lanes: Lanes | None = None
        self._metrics, self._journal = metrics, journal
        self._pools: dict[int, ThreadPoolExecutor] = {}  # by their threads: another share of the cores, another pool
        self._shadowing = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._shadow: Shadow | None = None

    def serve(self, release: Release, beside: Release | None, found: Figures | None) -> Lanes:
        """Answer with this release from the next request on, and have one beside it as its configuration says.

        Parameters
        ----------
        release : Release
        beside : Release or None
        found : Figures or None
            What was counted of both before.
        """
        about = release.config.beside
        comparison: Comparison | None = None
        other: Lane | None = None
        shadow: Shadow | None = None
        if beside is not None and about is not None:
            known = self._lanes.comparison if self._lanes is not None else None
            comparison = known if known and known.about == about else Comparison(about, release.schema, found)
            if about.kind == "shadow":
                batcher = Batcher(beside.scorer, self._shadowing, is_inline=False)
                other = Lane(beside, batcher, comparison.beside)
                shadow = Shadow(other, comparison, self._journal)
            else:
                other = Lane(beside, self._batcher(beside), comparison.beside)
        live = Lane(release, self._batcher(release), comparison.live if comparison is not None else None)
        lanes = Lanes(live, other, comparison)
        self._lanes, self._shadow = lanes, shadow
        self._metrics.served(release.config)
        self._metrics.comparison = comparison
        return lanes

    def close(self) -> None:
        """End the threads."""
        if self._shadow is not None:
            self._shadow.close()
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
        self._shadowing.shutdown(cancel_futures=True)

    def answered(
        self, chosen: Chosen, outputs: Outputs, request_id: str, *, latency_s: float, of_body_s: float
    ) -> None:
        """Log and count a request; a shadow is asked the same once its answer is on its way.

        `latency_s` is the time since its head, `of_body_s` that since its body was whole: no slow client is in it.
        """
        lane = chosen.lane
        latency_ms = 1000 * latency_s
        self._journal.add(lane.release, chosen.asked, outputs, request_id=request_id, latency_ms=latency_ms)
        if chosen.key is None or lane.tally is None:
            return
        lane.tally.answered(chosen.key, of_body_s, outputs)
        if self._shadow is not None:
            asyncio.get_running_loop().call_soon(self._shadow.mirror, chosen, outputs, request_id)

    def failed(self, chosen: Chosen, request_id: str, error: Exception) -> HttpError:
        """Count what a version could not answer; return the refusal."""
        if not isinstance(error, HttpError):
            logger.error("request %s by %s: a defect of ours", request_id, chosen.lane.version, exc_info=error)
            error = defect()
        error.version = chosen.lane.version
        if error.status >= 500:
            self._metrics.failed(error.version)
            if chosen.key is not None and chosen.lane.tally is not None:
                chosen.lane.tally.failed()
        return error

    def _batcher(self, release: Release) -> Batcher:
        """Return the batcher of a release's scorer: the one that is there, where it answers requests already."""
        on_batch = partial(self._metrics.batched, release.config.version)
        n_threads = threads_of(release.config.replicas)
        for lane in self._lanes.answering if self._lanes is not None else ():
            if lane.batcher.scorer is release.scorer and lane.batcher.n_at_once == n_threads:
                lane.batcher.on_batch = on_batch
                return lane.batcher
        pool = self._pools.get(n_threads)
        if pool is None:
            pool = self._pools[n_threads] = ThreadPoolExecutor(n_threads, thread_name_prefix="score")
        return Batcher(release.scorer, pool, n_at_once=n_threads, on_batch=on_batch)


def threads_of(replicas: int) -> int:
    """Return how many runs of a graph, each of one thread, a process has at once: its share of the cores."""
    if replicas == 1:
        return max(2, os.cpu_count() or 2)
    return max(1, n_cores() // replicas)


def defect() -> HttpError:
    """Return the refusal for what is no fault of the request."""
    return HttpError(500, LeptonError("The endpoint failed; its log has the reason.", code="failed"))
