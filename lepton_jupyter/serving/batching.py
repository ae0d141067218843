"""Work-conserving batches: an idle executor starts at once, and takes along whatever queued meanwhile.

Nothing waits for a batch to fill. Requests go in the order in which they came, as many rows at once as `MAX_ROWS` (of
images fewer, as the scorer says); a request of more rows goes in parts, so that others get their turn between them.
Each row returns to its own caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.packing import Packed, count_rows
from lepton_jupyter.formats.schema import ROWS_AT_ONCE
from lepton_jupyter.serving.answers import HttpError
from lepton_jupyter.serving.scorer import Outputs, Scorer

MAX_ROWS = ROWS_AT_ONCE
INLINE_S = 5e-4  # a run so short costs less than handing it to a thread and back
SWEEP_S = 0.1

Rows = Packed | NDArray[np.float32]


class Promise(Protocol):
    """What is told of a request's outputs: an `asyncio.Future`, or what behaves as one."""

    def done(self) -> bool:
        """Whether it was told already, or nobody waits."""

    def set_result(self, result: Outputs, /) -> None:
        """Tell of the outputs."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Tell of what went wrong."""

    def cancel(self) -> object:
        """Nobody waits any more."""


class _Waiting(NamedTuple):
    """Rows of one request, or a part of them."""

    rows: Rows
    n_rows: int
    future: Promise
    since: float
    connection: object

    def is_wanted(self) -> bool:
        """Whether somebody still waits; a connection that is gone (as uvicorn marks it) waits no more."""
        if getattr(self.connection, "disconnected", False):
            self.future.cancel()
        return not self.future.done()


class Batcher:
    """Score rows of many requests together. Call it in the event loop's thread only.

    Parameters
    ----------
    scorer : Scorer
        Warm: it says how long a run takes.
    pool : Executor
        Where runs that are not short take place.
    n_at_once : int
        Runs at the same time.
    timeout_s : float
        How long rows may wait and be scored; then their request is answered 504.
    on_batch : callable, optional
        Told of each batch: how many requests, how many rows, seconds since the first of them came.
    is_inline : bool
        Whether short runs take place in the caller's thread.
    """

    def __init__(
        self,
        scorer: Scorer,
        pool: Executor,
        *,
        n_at_once: int = 1,
        timeout_s: float = 30.0,
        on_batch: Callable[[int, int, float], None] | None = None,
        is_inline: bool = True,
    ) -> None:
        self.scorer = scorer
        self.timeout_s = timeout_s
        self.on_batch = on_batch
        self._pool, self.n_at_once = pool, n_at_once
        self._max_rows = min(MAX_ROWS, scorer.chunk_rows)
        self._inline_s = INLINE_S if is_inline else -1.0
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[int, list[_Waiting]] = {}  # by their ids: rows cannot be compared
        self._is_due = False
        self._sweeping: asyncio.TimerHandle | None = None

    @property
    def n_waiting(self) -> int:
        """Requests, or parts of them, that no executor has taken yet."""
        return len(self._waiting)

    def submit(self, rows: Rows, connection: object = None) -> asyncio.Future[Outputs]:
        """Return what will hold these rows' outputs.

        Parameters
        ----------
        rows : Packed or NDArray
        connection : object, optional
            Whoever waits is gone once its ``disconnected`` is true; rows that were not taken by then are dropped.

        Raises
        ------
        HttpError
            From the future: 504 after `timeout_s`.
        """
        n_rows = count_rows(rows)
        if n_rows > self._max_rows:
            return asyncio.ensure_future(self._parts(rows, n_rows, connection))
        future: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.submit_to(future, rows, n_rows, connection)
        return future

    def submit_to(self, future: Promise, rows: Rows, n_rows: int, connection: object) -> None:
        """Have rows that go at once scored, and tell `future`, which may be anything that takes it."""
        self._waiting.append(_Waiting(rows, n_rows, future, perf_counter(), connection))
        self._start_soon()

    async def _parts(self, rows: Rows, n_rows: int, connection: object) -> Outputs:
        cuts = [slice(start, start + self._max_rows) for start in range(0, n_rows, self._max_rows)]
        futures = [self.submit(_cut(rows, cut), connection) for cut in cuts]
        found = await asyncio.gather(*futures)
        probability = [part.probability for part in found if part.probability is not None]
        return Outputs(
            np.concatenate([part.prediction for part in found]), np.concatenate(probability) if probability else None
        )

    def _start_soon(self) -> None:
        """Start once the loop has handed out what it has read: all of that goes together."""
        if not self._is_due and self._waiting and len(self._running) < self.n_at_once:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._is_due = False
        loop = asyncio.get_running_loop()
        batch, n_rows = self._take()
        if batch:
            if self.scorer.seconds(n_rows) <= self._inline_s:
                self._finish(batch, n_rows, _score(self.scorer, batch))
            else:
                self._running[id(batch)] = batch
                done = loop.run_in_executor(self._pool, _score, self.scorer, batch)
                done.add_done_callback(partial(self._end, batch, n_rows))
        self._start_soon()
        if self._sweeping is None and (self._waiting or self._running):
            self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    def _take(self) -> tuple[list[_Waiting], int]:
        """Return what goes together now, and its rows."""
        batch: list[_Waiting] = []
        n_rows = 0
        while self._waiting and (not batch or n_rows + self._waiting[0].n_rows <= self._max_rows):
            waiting = self._waiting.popleft()
            if waiting.is_wanted():
                batch.append(waiting)
                n_rows += waiting.n_rows
        return batch, n_rows

    def _end(self, batch: list[_Waiting], n_rows: int, done: asyncio.Future[list[Outputs | Exception]]) -> None:
        del self._running[id(batch)]
        self._finish(batch, n_rows, done.result())
        self._start_soon()

    def _finish(self, batch: list[_Waiting], n_rows: int, found: list[Outputs | Exception]) -> None:
        for waiting, outputs in zip(batch, found, strict=True):
            if waiting.future.done():  # too late, or nobody waits
                continue
            if isinstance(outputs, Exception):
                waiting.future.set_exception(outputs)
            else:
                waiting.future.set_result(outputs)
        if self.on_batch is not None:
            self.on_batch(len(batch), n_rows, perf_counter() - batch[0].since)

    def _sweep(self) -> None:
        """Give up on those that have waited too long."""
        until = perf_counter() - self.timeout_s
        outstanding = [*self._waiting, *(waiting for batch in self._running.values() for waiting in batch)]
        for waiting in outstanding:
            if waiting.since < until and not waiting.future.done():
                message = f"The rows were not scored within {self.timeout_s:g} s."
                late = LeptonError(message, "Send fewer rows at once, or ask again later.", code="unavailable")
                waiting.future.set_exception(HttpError(504, late))
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(SWEEP_S, self._sweep) if outstanding else None


def _score(scorer: Scorer, batch: list[_Waiting]) -> list[Outputs | Exception]:
    """Score a batch; where it fails as a whole, each request by itself, so that one's rows harm no other."""
    try:
        outputs = scorer.score(_joined([waiting.rows for waiting in batch]))
    except Exception as error:
        if len(batch) == 1:
            return [error]
        return [found for waiting in batch for found in _score(scorer, [waiting])]
    found: list[Outputs | Exception] = []
    start = 0
    for waiting in batch:
        end = start + waiting.n_rows
        probability = outputs.probability
        found.append(Outputs(outputs.prediction[start:end], None if probability is None else probability[start:end]))
        start = end
    return found


def _joined(parts: list[Any]) -> Rows:
    if len(parts) == 1:
        return parts[0]  # type: ignore[no-any-return]
    if isinstance(parts[0], Packed):
        return Packed(np.concatenate([part.num for part in parts]), np.concatenate([part.txt for part in parts]))
    return np.concatenate(parts)


def _cut(rows: Rows, cut: slice) -> Rows:
    return Packed(rows.num[cut], rows.txt[cut]) if isinstance(rows, Packed) else rows[cut]
