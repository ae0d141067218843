"""Rows of many requests are scored together, and each returns to its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.serving import batching
from lepton_jupyter.serving.answers import HttpError
from lepton_jupyter.serving.batching import Batcher
from lepton_jupyter.serving.scorer import Outputs, Scorer
from tests.serving.graphs import SCHEMA_REGRESSION, make_bundle

SLOW = float("inf")  # seconds of a run, so that it goes to a thread


class Gated(Scorer):
    """A scorer that waits at a gate, and fails on rows of an age below 0."""

    gate = threading.Event()
    n_runs = 0

    def score(self, rows: Any) -> Outputs:
        self.n_runs += 1
        assert self.gate.wait(30)
        if (rows.num[:, 0] < 0).any():
            raise RuntimeError("no such age")
        return super().score(rows)


@pytest.fixture
def scorer(tmp_path: Path) -> Gated:
    made = Gated(make_bundle(tmp_path / "b", SCHEMA_REGRESSION))
    made.gate = threading.Event()
    made.gate.set()
    return made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def rows_of(ages: Any) -> Packed:
    ages = np.asarray(ages, np.float64)
    return Packed(np.column_stack([ages, np.ones_like(ages)]), np.full((len(ages), 1), "Dream", object))


async def held(scorer: Gated, batcher: Batcher) -> asyncio.Future[Outputs]:
    """Return a first request whose run waits at the gate."""
    scorer.gate.clear()
    first = batcher.submit(rows_of([1]))
    while scorer.n_runs < 1:
        await asyncio.sleep(0.001)
    return first


def run(work: Callable[[], Any]) -> Any:
    return asyncio.run(work())


@pytest.mark.parametrize("run_s", [0.0, SLOW])
def test_each_row_returns_to_its_caller(scorer: Gated, pool: ThreadPoolExecutor, run_s: float) -> None:
    draw = np.random.default_rng(0)
    asked = [draw.uniform(0, 90, int(n)) for n in (*draw.integers(0, 40, 200), 20_000, batching.MAX_ROWS, 1)]
    scorer._run_s = scorer._row_s = run_s
    batches: list[tuple[int, int]] = []

    async def work() -> list[Outputs]:
        batcher = Batcher(scorer, pool, n_at_once=2, on_batch=lambda n, rows, _: batches.append((n, rows)))
        return list(await asyncio.gather(*[batcher.submit(rows_of(ages)) for ages in asked]))

    for ages, found in zip(asked, run(work), strict=True):
        np.testing.assert_array_equal(found.prediction, scorer.score(rows_of(ages)).prediction)
    assert sum(rows for _, rows in batches) == sum(map(len, asked))
    assert max(rows for _, rows in batches) <= batching.MAX_ROWS
    assert len(batches) < 20


def test_what_queues_behind_a_run_goes_together(scorer: Gated, pool: ThreadPoolExecutor) -> None:
    batches: list[int] = []

    async def work() -> None:
        batcher = Batcher(scorer, pool, on_batch=lambda n, *_: batches.append(n))
        first = await held(scorer, batcher)
        others = [batcher.submit(rows_of([age])) for age in range(10)]
        await asyncio.sleep(0.01)
        assert (scorer.n_runs, batcher.n_waiting) == (1, 10)
        scorer.gate.set()
        await asyncio.gather(first, *others)

    run(work)
    assert batches == [1, 10]


def test_rows_that_nobody_waits_for_are_not_scored(scorer: Gated, pool: ThreadPoolExecutor) -> None:
    class Connection:
        disconnected = False

    batches: list[int] = []
    gone = Connection()

    async def work() -> None:
        batcher = Batcher(scorer, pool, on_batch=lambda n, *_: batches.append(n))
        first = await held(scorer, batcher)
        cancelled, left = batcher.submit(rows_of([2])), batcher.submit(rows_of([3]), gone)
        kept = batcher.submit(rows_of([4]), Connection())
        cancelled.cancel()
        gone.disconnected = True
        scorer.gate.set()
        await asyncio.gather(first, kept)
        assert left.cancelled()

    run(work)
    assert batches == [1, 1]


def test_rows_that_come_too_late_are_answered_504(scorer: Gated, pool: ThreadPoolExecutor) -> None:
    async def work() -> None:
        batcher = Batcher(scorer, pool, timeout_s=0.05)
        scorer.gate.clear()
        asked = [batcher.submit(rows_of([1])), batcher.submit(rows_of([2]))]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [error.status for error in found if isinstance(error, HttpError)] == [504, 504]
        scorer.gate.set()
        assert len((await batcher.submit(rows_of([3]))).prediction) == 1

    run(work)


def test_rows_that_fail_harm_no_others(scorer: Gated, pool: ThreadPoolExecutor) -> None:
    async def work() -> None:
        batcher = Batcher(scorer, pool)
        asked = [batcher.submit(rows_of([age])) for age in (1, -1, 3)]
        good, bad, other = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(good, Outputs) and isinstance(other, Outputs)
        assert str(bad) == "no such age"

    run(work)
