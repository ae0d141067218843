"""The tests behind a verdict, against other people's code and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.profile import build, count, psi
from lepton_jupyter.formats.schema import Column, Schema
from lepton_jupyter.stages.monitor.drift import holm, judge, kolmogorov_smirnov, more_missing
from lepton_jupyter.stages.monitor.effective import Cells, clusters, dependence, neighbours

ONE = Schema(columns=(Column(name="x", kind="number"),))


def _one(values: np.ndarray) -> Packed:
    return Packed(values.reshape(-1, 1).astype(float), np.empty((len(values), 0), dtype=object))


def test_holm_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(50) ** 3
    order = np.argsort(values)
    expected = np.maximum.accumulate(np.minimum(1, values[order] * np.arange(50, 0, -1)))
    assert np.array(holm(values))[order] == pytest.approx(expected)
    assert holm([]) == []


def test_ks_from_the_bins_is_near_the_raw_one() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.lognormal(size=5_000), rng.lognormal(0.2, size=5_000)
    reference = build(ONE, _one(first))
    found = kolmogorov_smirnov(reference.numbers["x"], count(reference, ONE, _one(second)).numbers["x"])
    assert found == pytest.approx(stats.ks_2samp(first, second).statistic, abs=0.01)


def test_a_design_effect_divides_the_windows_counts() -> None:
    rng = np.random.default_rng(0)
    reference = build(ONE, _one(rng.standard_normal(1_000)))
    values = rng.standard_normal(500) + 0.3
    alone = psi(reference, count(reference, ONE, _one(values)))["x"]
    window = count(reference, ONE, _one(np.repeat(values, 4)))
    repeated = psi(reference, window, deff={"x": 4.0})["x"]
    assert repeated == pytest.approx(alone)
    assert psi(reference, window)["x"].chi2 > 1.5 * alone.chi2


def test_a_column_with_too_few_rows_of_its_own_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    reference = build(ONE, _one(rng.standard_normal(1_000)))
    window = count(reference, ONE, _one(rng.standard_normal(1_000) + 3))
    assert judge([(reference, window)], deff={"x": 3.0})["x"].has_drifted
    assert judge([(reference, window)], deff={"x": 3.4}) == {}


def test_rare_cells_raise_no_alarm() -> None:
    """Near-constant columns: cells of a row or two would, by the chi-squared distribution alone."""
    rng = np.random.default_rng(0)
    drifted = 0
    for _ in range(200):
        reference = build(ONE, _one((rng.random(1_000) < 0.002) * rng.random(1_000)))
        window = count(reference, ONE, _one((rng.random(500) < 0.002) * rng.random(500)))
        drifted += judge([(reference, window)], deff={})["x"].has_passed
    assert drifted <= 4


def test_five_percent_missing_that_become_twelve_are_seen() -> None:
    rng = np.random.default_rng(0)

    def some(n: int, share: float) -> Packed:
        return _one(np.where(rng.random(n) < share, np.nan, rng.standard_normal(n)))

    reference = build(ONE, some(1_000, 0.05))
    assert more_missing(reference, count(reference, ONE, some(1_000, 0.12)), n_effective=1_000) == {"x"}
    assert more_missing(reference, count(reference, ONE, some(1_000, 0.06)), n_effective=1_000) == set()
    assert more_missing(reference, count(reference, ONE, some(1_000, 0.12)), n_effective=299) == set()


def test_independent_rows_are_worth_themselves() -> None:
    rng = np.random.default_rng(0)
    found = [neighbours(rng.integers(0, 10, 500), 10) for _ in range(200)]
    assert np.median([deff for deff in found if deff is not None]) == 1.0
    assert max(deff for deff in found if deff is not None) < 1.67  # 500 rows stay above 300 effective ones


def test_the_median_column_and_the_ids_say_what_rows_are_worth() -> None:
    rng = np.random.default_rng(0)
    free = [Cells(rng.integers(0, 10, 900), 10) for _ in range(2)]
    tied = Cells(np.repeat(rng.integers(0, 10, 90), 10), 10)
    seen = dependence({"a": free[0], "b": free[1], "tied": tied})
    assert seen.deff < 1.1
    assert seen.by_column["tied"] > 8 and seen.by_column["a"] < 1.1
    assert dependence({"tied": tied}).seen_by == "rows that follow each other are alike"
    seen = dependence({"a": free[0]}, [place // 3 for place in range(900)])
    assert seen.deff == 3.0 and "ids" in seen.seen_by
    assert clusters([None] * 5) == 1.0
    assert clusters([["unhashable"], ["unhashable"]]) == 2.0
