"""Intervals: known values, a bootstrap by hand, coverage."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from lepton_jupyter.stages.evaluate import compare as comparing
from lepton_jupyter.stages.evaluate import intervals as measuring
from lepton_jupyter.stages.evaluate import metrics as table
from lepton_jupyter.stages.evaluate import requirements as reading
from lepton_jupyter.stages.evaluate.compare import compare
from lepton_jupyter.stages.evaluate.intervals import (
    auc_interval,
    delong,
    intervals,
    mover,
    newcombe,
    wilson,
)
from lepton_jupyter.stages.evaluate.metrics import Metric, metric_named, metrics_of
from lepton_jupyter.stages.evaluate.resampling import n_draws_for
from lepton_jupyter.stages.evaluate.sample import Sample, classified, regressed
from lepton_jupyter.stages.evaluate.scores import values


def two_normals(n_positive: int, n_negative: int, *, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    is_positive = np.r_[np.ones(n_positive, bool), np.zeros(n_negative, bool)]
    return is_positive, rng.normal(apart * is_positive, 1)


def perfect(classes: str = "ab", n_rows: int = 60) -> Sample:
    actual = np.arange(n_rows) % len(classes)
    task = "binary" if len(classes) == 2 else "multiclass"
    probability = np.eye(len(classes))[actual] * 0.8 + 0.2 / len(classes)
    return classified(actual=actual, probability=probability, classes=tuple(classes),
                      positive=1 if task == "binary" else None, task=task)  # fmt: skip


@pytest.mark.parametrize(("n_right", "n_rows"), [(95, 100), (0, 30), (30, 30), (1, 2), (700, 1234)])
def test_wilson_is_scipys(n_right: int, n_rows: int) -> None:
    expected = binomtest(n_right, n_rows).proportion_ci(0.9, method="wilson")
    assert wilson(n_right, n_rows) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_delong_agrees_with_a_bootstrap_and_with_the_plain_formula() -> None:
    is_positive, score = two_normals(60, 90, apart=1.2)
    (auc,), ((variance,),) = delong(is_positive, score)
    assert auc == pytest.approx(roc_auc_score(is_positive, score))
    wins = (score[is_positive][:, None] > score[~is_positive]).astype(float)
    plain = wins.mean(axis=1).var(ddof=1) / 60 + wins.mean(axis=0).var(ddof=1) / 90
    assert variance == pytest.approx(plain)
    rng = np.random.default_rng(0)
    positive, negative = score[is_positive], score[~is_positive]
    draws = [
        (positive[rng.integers(0, 60, 60)][:, None] > negative[rng.integers(0, 90, 90)]).mean() for _ in range(2_000)
    ]
    assert variance**0.5 == pytest.approx(np.std(draws), rel=0.06)
    assert auc_interval(is_positive, score).low == pytest.approx(np.quantile(draws, 0.05), abs=0.012)


def test_delong_counts_ties_half_and_knows_how_two_scores_go_together() -> None:
    is_positive = np.array([1, 1, 1, 0, 0, 0], bool)
    auc, _ = delong(is_positive, np.array([3, 2, 2, 2, 1, 0.0]))
    assert auc[0] == pytest.approx((9 - 2 * 0.5) / 9)
    is_positive, score = two_normals(40, 40, apart=1)
    _, covariance = delong(is_positive, score, 3 * score + 1)
    assert np.allclose(covariance, covariance[0, 0])  # the same order: the difference has no variance


def test_a_perfect_auc_has_an_interval_with_a_width() -> None:
    is_positive, _ = two_normals(42, 72, apart=0)
    found = auc_interval(is_positive, is_positive.astype(float))
    assert found.method == "Newcombe"
    assert found.high == 1
    assert 0.96 < found.low < 0.985


def test_newcombe_solves_its_equation() -> None:
    low, high = newcombe(0.9, 42, 72)
    for theta in (low, high):
        spread = 1 + 56 * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        assert (theta - 0.9) ** 2 == pytest.approx(1.6448536269514722**2 * theta * (1 - theta) * spread / (42 * 72))


def test_mover_of_equal_parts_is_narrower_by_the_root_of_their_number() -> None:
    assert mover(np.full(4, 0.8), np.full(4, 0.7), np.full(4, 0.84)) == pytest.approx((0.75, 0.82))


def test_about_nine_of_ten_delong_intervals_hold_the_truth() -> None:
    truth = 0.9214  # of two normals 2 apart: Phi(2 / sqrt 2)
    ends = [auc_interval(*two_normals(50, 70, apart=2, seed=seed)) for seed in range(400)]
    share = np.mean([end.low <= truth <= end.high for end in ends])
    assert 0.84 < share < 0.95


@pytest.mark.parametrize("classes", ["ab", "abc"])
def test_every_metric_of_a_classifier_has_an_interval_around_its_value(classes: str) -> None:
    rng = np.random.default_rng(1)
    actual = rng.integers(0, len(classes), 200)
    probability = rng.dirichlet(np.ones(len(classes)), 200)
    probability[np.arange(200), actual] += 0.4
    probability /= probability.sum(axis=1, keepdims=True)
    sample = classified(actual=actual, probability=probability, classes=tuple(classes),
                        positive=1 if len(classes) == 2 else None,
                        task="binary" if len(classes) == 2 else "multiclass")  # fmt: skip
    found = values(sample)
    spans = intervals(sample, found, seed=0)
    assert list(spans) == [metric.name for metric in metrics_of(sample.task)]
    assert all(spans[name].low <= found[name] <= spans[name].high for name in found)
    assert {span.method for span in spans.values()} <= {"Wilson", "DeLong", "bootstrap"}
    assert all(type(end) is float for span in spans.values() for end in (span.low, span.high))


@pytest.mark.parametrize("classes", ["ab", "abc"])
def test_a_score_without_a_fault_is_never_certain(classes: str) -> None:
    sample = perfect(classes)
    found = values(sample)
    spans = intervals(sample, found, seed=0)
    faultless = [name for name, value in found.items() if value == 1]
    assert {"balanced_accuracy", "f1", "roc_auc"} <= set(faultless)
    assert all(spans[name].high == 1 and 0.8 < spans[name].low < 0.99 for name in faultless)


def test_the_mean_of_normals_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 1, 400)
    sample = regressed(actual=errors, predicted=np.zeros(400), targets=("y",))
    found = values(sample)
    span = intervals(sample, found, seed=0)["mse"]
    assert (span.high - span.low) / 2 == pytest.approx(1.645 * np.std(errors**2) / 20, rel=0.06)
    assert "max_error" not in intervals(sample, found, seed=0)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    sample = regressed(actual=np.arange(50.0), predicted=np.arange(50.0) + np.sin(np.arange(50)), targets=("y",))
    found = values(sample)
    assert intervals(sample, found, seed=4) == intervals(sample, found, seed=4)
    assert intervals(sample, found, seed=4) != intervals(sample, found, seed=5)


def test_under_twenty_rows_there_is_no_interval() -> None:
    sample = perfect(n_rows=19)
    assert intervals(sample, values(sample), seed=0) == {}
    sample = perfect(n_rows=20)
    assert intervals(sample, values(sample), seed=0) != {}


def test_many_rows_take_fewer_draws() -> None:
    assert (n_draws_for(114), n_draws_for(50_000), n_draws_for(100_000), n_draws_for(10**7)) == (
        2_000,
        2_000,
        1_000,
        200,
    )


def halves(sample: Sample, n_wrong: int) -> Sample:
    """The same rows with the probabilities of the first ones turned round."""
    assert sample.probability is not None
    turned = sample.probability.copy()
    turned[:n_wrong] = turned[:n_wrong, ::-1]
    return classified(actual=sample.actual, probability=turned, classes=sample.classes, positive=1, task="binary")


@pytest.mark.parametrize("name", ["roc_auc", "accuracy", "log_loss", "f1"])
def test_a_paired_test_sees_the_better_one_and_none_between_equals(name: str) -> None:
    ours, theirs, metric = perfect(n_rows=200), halves(perfect(n_rows=200), 40), metric_named(name, "binary")
    better = compare(ours, theirs, metric, against="Net@1", seed=0)
    worse = compare(theirs, ours, metric, against="Net@1", seed=0)
    same = compare(ours, ours, metric, against="Net@1", seed=0)
    assert (better.verdict, worse.verdict, same.verdict) == ("better", "worse", "no difference shown")
    assert better.difference == pytest.approx(-(worse.difference or 0))
    assert (same.low, same.high) == (0, 0)


def test_a_paired_difference_is_as_wide_as_theory_says() -> None:
    # 10 of 400 rows were lost, none won: mean 0.025, its standard error sqrt(0.025 * 0.975 / 400)
    found = compare(perfect(n_rows=400), halves(perfect(n_rows=400), 10), metric_named("accuracy", "binary"),
                    against="x", seed=0)  # fmt: skip
    assert found.difference == pytest.approx(0.025)
    assert found.low == pytest.approx(0.025 - 1.645 * (0.025 * 0.975 / 400) ** 0.5, abs=0.002)


def test_few_fresh_rows_are_no_ground_for_a_comparison() -> None:
    found = compare(perfect(n_rows=19), perfect(n_rows=19), metric_named("accuracy", "binary"), against="x", seed=0)
    assert (found.verdict, found.n_rows) == ("INCONCLUSIVE", 19)
    assert "too few" in found.reason


@pytest.mark.parametrize("module", [measuring, reading, comparing], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_are_true(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_one_line_in_the_table_is_a_metric_with_value_and_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Metric("mcc", "binary", "Matthews' correlation", "sklearn.metrics:matthews_corrcoef", "label")
    monkeypatch.setattr(table, "METRICS", (*table.METRICS, line))
    sample = halves(perfect(n_rows=60), 6)
    found = values(sample)
    assert found["mcc"] == pytest.approx(0.8)
    span = intervals(sample, found, seed=0)["mcc"]
    assert span.method == "bootstrap" and 0.6 < span.low < 0.8 < span.high < 0.95
