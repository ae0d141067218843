"""Figures of several processes, as of one."""

from __future__ import annotations

import numpy as np

from lepton_jupyter.formats.figures import N_EDGES, Figures, VersionFigures, place_of, together
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.profile import Profile, build, count
from lepton_jupyter.formats.schema import Column, Schema

SCHEMA = Schema(columns=(Column(name="p", kind="number"),))


def packed(values: list[float]) -> Packed:
    return Packed(np.array(values)[:, None], np.empty((len(values), 0), dtype=object))


def version(n: int, *, squares: float, predictions: Profile | None = None, **more: int) -> VersionFigures:
    latency = [0] * (N_EDGES + 1)
    latency[place_of(0.002)] = n
    return VersionFigures(
        n_requests=n, n_rows=n, latency=tuple(latency), squares=squares, predictions=predictions, **more
    )


def figures(live: VersionFigures, at: float = 1.0) -> Figures:
    return Figures(since=2, at=at, live=live, beside=VersionFigures(), n_compared=3, n_agreed=2, n_dropped=1)


def test_what_each_counted_is_added() -> None:
    edges = build(SCHEMA, packed([0.1, 0.2, 0.3, 0.4]))
    parts = [count(edges, SCHEMA, packed([0.1] * n)) for n in (3, 5)]
    both = together(
        [
            figures(version(3, squares=3, predictions=parts[0], n_failed=1), at=4.0),
            figures(version(5, squares=5, predictions=parts[1], n_bad_rows=2)),
        ]
    )
    live = both.live
    assert (live.n_requests, live.n_rows, live.n_failed, live.n_bad_rows, sum(live.latency)) == (8, 8, 1, 2, 8)
    assert live.predictions is not None and live.predictions.n_rows == 8
    assert (both.since, both.at, both.n_compared, both.n_agreed, both.n_dropped) == (2, 4.0, 6, 4, 2)
    assert both.beside == VersionFigures()


def test_keys_that_come_once_are_worth_a_row_each_and_others_less() -> None:
    once = together([figures(version(50, squares=50)), figures(version(50, squares=50))])
    assert once.live.deff == 1.0
    rng = np.random.default_rng(0)
    keys, where = rng.integers(0, 200, 4000), rng.integers(0, 2, 4000)
    of_each = [np.bincount(keys[where == place], minlength=200) for place in (0, 1)]
    both = together([figures(version(int(n.sum()), squares=float((n**2).sum()))) for n in of_each])
    whole = float((np.bincount(keys) ** 2).sum()) / 4000
    assert abs(both.live.deff / whole - 1) < 0.1


def test_predictions_over_other_edges_are_left_out_where_they_are_fewer() -> None:
    few, many = (build(SCHEMA, packed([low + i / 100 for i in range(n)])) for low, n in ((0.0, 20), (5.0, 60)))
    both = together(
        [figures(version(20, squares=20, predictions=few)), figures(version(60, squares=60, predictions=many))]
    )
    assert both.live.predictions == many and both.live.n_rows == 80
    assert together([figures(version(3, squares=3))]) == figures(version(3, squares=3))
