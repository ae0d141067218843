"""Values: scikit-learn's, and numbers worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lepton_jupyter.stages.evaluate import resampling
from lepton_jupyter.stages.evaluate.metrics import METRICS, PRIMARY, Metric, metric_named
from lepton_jupyter.stages.evaluate.sample import Sample, classified, regressed
from lepton_jupyter.stages.evaluate.scores import function_at, value_of, values, why_left_out


def wdbc(n_rows: int = 114) -> Sample:
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(X[:-n_rows, :5], y[:-n_rows])
    probability = model.predict_proba(X[-n_rows:, :5])
    return classified(actual=y[-n_rows:], probability=probability, classes=("M", "B"), positive=0, task="binary")


def iris() -> Sample:
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(C=0.01).fit(X[::2, :2], y[::2])
    probability = model.predict_proba(X[1::2, :2])
    return classified(
        actual=y[1::2], probability=probability, classes=("a", "b", "c"), positive=None, task="multiclass"
    )


def noisy(n_targets: int = 1) -> Sample:
    rng = np.random.default_rng(0)
    y = rng.normal(5, 1, (60, n_targets))
    return regressed(actual=y, predicted=y + rng.normal(0, 0.3, y.shape), targets=tuple("abc"[:n_targets]))


SAMPLES = {"binary": wdbc, "multiclass": iris, "regression": noisy}


def test_mean_squared_error_worked_by_hand() -> None:
    sample = regressed(actual=np.array([5, 7, 8, 9]), predicted=np.array([4.5, 7.2, 7.8, 8.9]), targets=("y",))
    found = values(sample)
    assert found["mse"] == pytest.approx(0.085)  # (0.25 + 0.04 + 0.04 + 0.01) / 4; texts that print 0.125 are wrong
    assert found["rmse"] == pytest.approx(0.085**0.5)
    assert found["mae"] == pytest.approx(0.25)
    assert found["median_ae"] == pytest.approx(0.2)
    assert found["max_error"] == pytest.approx(0.5)
    assert found["r2"] == pytest.approx(1 - 0.34 / 8.75)
    assert found["mape"] == pytest.approx((0.5 / 5 + 0.2 / 7 + 0.2 / 8 + 0.1 / 9) / 4)


def test_binary_values_worked_by_hand() -> None:
    # positives 0.9 0.8 0.6 0.3, negatives 0.7 0.4 0.2 0.1: 3 of 4 found, 1 false alarm, 13 of 16 pairs in order
    score = np.array([0.9, 0.8, 0.6, 0.3, 0.7, 0.4, 0.2, 0.1])
    sample = classified(actual=np.array([1, 1, 1, 1, 0, 0, 0, 0]), probability=np.c_[1 - score, score],
                        classes=("no", "yes"), positive=1, task="binary")  # fmt: skip
    found = values(sample)
    assert found["roc_auc"] == pytest.approx(13 / 16)
    assert found["accuracy"] == found["precision"] == found["recall"] == found["specificity"] == found["f1"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["average_precision"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    assert found["brier"] == pytest.approx(np.mean((score - np.array([1, 1, 1, 1, 0, 0, 0, 0])) ** 2))


def test_a_probability_of_one_half_is_positive_wherever_the_positive_class_stands() -> None:
    half = np.full((2, 2), 0.5)
    for place in (0, 1):
        sample = classified(
            actual=np.array([0, 1]), probability=half, classes=("a", "b"), positive=place, task="binary"
        )
        assert sample.called_positive.all()


def test_the_positive_class_is_the_one_that_is_named() -> None:
    sample = wdbc()
    assert sample.probability is not None
    malignant = sample.actual == 0
    found = values(sample)
    assert found["recall"] == pytest.approx(sk.recall_score(malignant, sample.predicted == 0))
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(malignant, sample.probability[:, 0]))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: f"{metric.task}-{metric.name}")
def test_every_metric_of_the_table_has_a_value_that_is_json(metric: Metric) -> None:
    value = value_of(metric, SAMPLES[metric.task]())
    assert json.loads(json.dumps(value)) == value
    assert callable(function_at(metric.function))
    assert not metric.is_share or 0 <= value <= 1


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: f"{metric.task}-{metric.name}")
def test_a_draw_of_every_row_once_gives_the_value_and_other_draws_those_of_their_rows(metric: Metric) -> None:
    sample = SAMPLES[metric.task]()
    prepare = resampling.VECTORISED.get((metric.task, metric.name))
    if prepare is None:
        return  # its own function is called draw by draw
    counts = np.vstack([np.ones(sample.n_rows), *resampling.counts_of_draws(sample.n_rows, 5, seed=1)])
    by_hand = [value_of(metric, sample.take(np.repeat(np.arange(sample.n_rows), row.astype(int)))) for row in counts]
    assert prepare(sample)(counts) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_draws_count_rows_of_the_same_score_together(name: str) -> None:
    rng = np.random.default_rng(3)
    score = np.round(rng.random(40), 1)
    sample = classified(actual=rng.integers(0, 2, 40), probability=np.c_[1 - score, score], classes=("a", "b"),
                        positive=1, task="binary")  # fmt: skip
    (counts,) = resampling.counts_of_draws(40, 20, seed=0)
    metric = metric_named(name, "binary")
    by_hand = [value_of(metric, sample.take(np.repeat(np.arange(40), row.astype(int)))) for row in counts]
    assert resampling.VECTORISED["binary", name](sample)(counts) == pytest.approx(by_hand)


def test_several_targets_are_averaged() -> None:
    sample = noisy(3)
    single = [values(Sample("regression", sample.actual[:, [t]], sample.predicted[:, [t]])) for t in range(3)]
    for name, value in values(sample).items():
        assert value == pytest.approx(np.mean([one[name] for one in single]))


def test_what_is_undefined_is_left_out_with_the_reason() -> None:
    one_class = classified(actual=np.zeros(5, int), probability=np.full((5, 2), 0.5), classes=("a", "b"), positive=1,
                           task="binary")  # fmt: skip
    found = values(one_class)
    assert set(found) == {"accuracy", "precision", "specificity", "f1", "brier", "log_loss"}
    assert why_left_out(metric_named("roc_auc", "binary"), one_class) == "every row is of class 'a'"
    zeros = regressed(actual=np.array([0.0, 1.0]), predicted=np.array([0.0, 1.0]), targets=("y",))
    assert "mape" not in values(zeros)
    same = regressed(actual=np.ones(3), predicted=np.ones(3), targets=("y",))
    assert "r2" not in values(same)


def test_a_version_without_probabilities_has_the_metrics_of_labels() -> None:
    sample = Sample("binary", np.array([0, 1, 1]), np.array([0, 1, 0]), None, ("a", "b"), 1)
    assert "accuracy" in values(sample)
    assert "roc_auc" not in values(sample)
    assert why_left_out(metric_named("roc_auc", "binary"), sample) == "the version gives no probabilities"


def test_certain_and_wrong_is_a_large_finite_log_loss() -> None:
    sample = classified(actual=np.array([0, 1]), probability=np.array([[0.0, 1.0], [0.0, 1.0]]), classes=("a", "b"),
                        positive=1, task="binary")  # fmt: skip
    assert 7 < values(sample)["log_loss"] < 9  # half of -log(1.2e-7)


def test_names_are_unique_in_a_task_and_each_task_has_its_first() -> None:
    names = [(metric.task, metric.name) for metric in METRICS]
    assert len(names) == len(set(names))
    assert all((task, name) in names for task, name in PRIMARY.items())
