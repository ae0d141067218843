"""A shadow: asked what the live version has just answered, and heard by nobody but the log and the counts."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.batching import MAX_ROWS
from lepton_jupyter.serving.journal import Journal
from lepton_jupyter.serving.lanes import Chosen, Lane
from lepton_jupyter.serving.scorer import Outputs
from lepton_jupyter.serving.tally import Comparison

MOST_ROWS_WAITING = MAX_ROWS
PAUSE_S = 0.02  # what was answered meanwhile is asked together: many small runs would be in the live version's way

logger = logging.getLogger(__name__)


class Shadow:
    """Mirrors requests that were answered. For the event loop's thread.

    Parameters
    ----------
    lane : Lane
        Its batcher has a thread of its own.
    comparison : Comparison
    journal : Journal
    """

    def __init__(self, lane: Lane, comparison: Comparison, journal: Journal) -> None:
        self.lane, self.comparison, self.journal = lane, comparison, journal
        self.n_rows_waiting = 0
        self._waiting: list[_Mirrored] = []
        self._has_failed = False

    def mirror(self, chosen: Chosen, live: Outputs, request_id: str) -> None:
        """Have the same rows scored a moment later, or drop and count them where too many wait."""
        n_rows = len(live.prediction)
        if self.n_rows_waiting + n_rows > MOST_ROWS_WAITING:
            self.comparison.n_dropped += 1
            return
        self.n_rows_waiting += n_rows
        if not self._waiting:
            asyncio.get_running_loop().call_later(PAUSE_S, self._ask)
        self._waiting.append(_Mirrored(self, chosen, live, request_id))

    def close(self) -> None:
        """Forget what was not asked yet."""
        self._waiting.clear()

    def _ask(self) -> None:
        waiting, self._waiting = self._waiting, []
        ours = self.lane.release.schema
        for mirrored in waiting:
            asked, theirs = mirrored.chosen.asked, mirrored.chosen.lane.release.schema
            mirrored.asked = asked._replace(rows=aligned(asked.rows, theirs, ours))
            mirrored.since = perf_counter()
            self.lane.batcher.submit_to(mirrored, mirrored.asked.rows, len(mirrored.live.prediction), None)

    def answered(self, mirrored: _Mirrored, outputs: Outputs) -> None:
        """Count and log what the shadow says."""
        self.n_rows_waiting -= len(mirrored.live.prediction)
        seconds = perf_counter() - mirrored.since
        self.journal.add(
            self.lane.release,
            mirrored.asked,
            outputs,
            request_id=mirrored.request_id,
            latency_ms=1000 * seconds,
            is_shadow=True,
        )
        self.comparison.beside.answered(mirrored.chosen.key or 0, seconds, outputs)
        self.comparison.agree(mirrored.live, outputs)

    def failed(self, mirrored: _Mirrored, error: BaseException) -> None:
        """Count a request that the shadow could not answer; the first one says why."""
        if not self._has_failed:
            self._has_failed = True
            logger.warning("shadow %s failed at request %s", self.lane.version, mirrored.request_id, exc_info=error)
        self.n_rows_waiting -= len(mirrored.live.prediction)
        self.comparison.beside.failed()


class _Mirrored:
    """One request on its way through a shadow: to the batcher, the future of its outputs."""

    __slots__ = ("_is_over", "asked", "chosen", "live", "request_id", "shadow", "since")

    def __init__(self, shadow: Shadow, chosen: Chosen, live: Outputs, request_id: str) -> None:
        self.shadow, self.chosen, self.live, self.request_id = shadow, chosen, live, request_id
        self.asked, self.since = chosen.asked, 0.0  # as the shadow is asked, and when
        self._is_over = False

    def done(self) -> bool:
        """Whether it has been told."""
        return self._is_over

    def cancel(self) -> None:
        """Nobody waits: never so here."""

    def set_result(self, outputs: Outputs) -> None:
        """Take the outputs."""
        self._is_over = True
        self.shadow.answered(self, outputs)

    def set_exception(self, error: BaseException) -> None:
        """Take what went wrong."""
        self._is_over = True
        self.shadow.failed(self, error)


def aligned(rows: Packed | NDArray[np.float32], ours: Schema, theirs: Schema) -> Packed | NDArray[np.float32]:
    """Return rows that were packed by one schema, with their columns in the order of another that has the same."""
    if not isinstance(rows, Packed):
        return rows
    num, txt = (
        [[column.name for column in before].index(column.name) for column in after]
        for before, after in ((ours.num, theirs.num), (ours.txt, theirs.txt))
    )
    if num == sorted(num) and txt == sorted(txt):
        return rows
    return Packed(rows.num[:, num], rows.txt[:, txt])
