"""The metrics' values: scikit-learn's functions, and the few of our own that say when a metric is undefined."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from lepton_jupyter.stages.evaluate.metrics import Metric, metrics_of
from lepton_jupyter.stages.evaluate.sample import Sample

NAN = float("nan")
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)  # graphs give float32: where scikit-learn would clip those


@cache
def function_at(path: str) -> Callable[..., float]:
    """Load the function that the table names as ``package.module:name``."""
    module, _, name = path.partition(":")
    found: Callable[..., float] = getattr(import_module(module), name)
    return found


def value_of(metric: Metric, sample: Sample) -> float:
    """Return a metric's value; NaN where it is undefined on these rows or needs probabilities that are not there."""
    if metric.needs_scores and sample.probability is None:
        return NAN
    function = function_at(metric.function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is undefined comes back as NaN and is left out with a remark
        if metric.needs == "number":
            pairs = zip(sample.actual.T, sample.predicted.T, strict=True)
            return float(np.mean([function(y_true, y_pred, **metric.options) for y_true, y_pred in pairs]))
        return float(function(*_inputs(metric, sample), **metric.options))


def values(sample: Sample) -> dict[str, float]:
    """Return every metric of the sample's task that is defined on its rows, by name."""
    found = {metric.name: value_of(metric, sample) for metric in metrics_of(sample.task)}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def why_left_out(metric: Metric, sample: Sample) -> str:
    """Return the reason for which a metric has no value on these rows."""
    if metric.needs_scores and sample.probability is None:
        return "the version gives no probabilities"
    if sample.task == "regression":
        return "the target is 0 in some row" if metric.name == "mape" else "the target is the same in every row"
    if len(sample.present) == 1:
        return f"every row is of class '{sample.classes[int(sample.present[0])]}'"
    if len(sample.present) < len(sample.classes):
        absent = (name for code, name in enumerate(sample.classes) if code not in sample.present)
        return f"no row is of class '{next(absent)}'"
    return "no row was predicted positive"


def _inputs(metric: Metric, sample: Sample) -> tuple[NDArray, NDArray]:
    if metric.needs == "probability":
        assert sample.probability is not None
        return sample.actual, sample.probability
    if sample.task == "binary":
        y_true = sample.is_positive.astype(np.int64)
        return y_true, sample.score if metric.needs == "score" else sample.called_positive.astype(np.int64)
    return sample.actual, sample.predicted


def average_precision(y_true: NDArray, y_score: NDArray) -> float:
    """Return scikit-learn's average precision; NaN where the rows are all of one class."""
    return float(sk.average_precision_score(y_true, y_score)) if len(np.unique(y_true)) == 2 else NAN


def balanced_accuracy(y_true: NDArray, y_pred: NDArray) -> float:
    """Return scikit-learn's mean recall of the classes; NaN where the rows are all of one class."""
    return float(sk.balanced_accuracy_score(y_true, y_pred)) if len(np.unique(y_true)) > 1 else NAN


def roc_auc_ovr(y_true: NDArray, y_probability: NDArray) -> float:
    """Return the mean of the classes' ROC AUC, each against the rest; NaN where a class has no row."""
    n_classes = y_probability.shape[1]
    if len(np.unique(y_true)) < n_classes:
        return NAN
    return float(np.mean([sk.roc_auc_score(y_true == k, y_probability[:, k]) for k in range(n_classes)]))


def log_loss(y_true: NDArray, y_probability: NDArray) -> float:
    """Return scikit-learn's log loss (natural logarithm), probabilities clipped where float32 ends."""
    clipped = clip_probability(y_probability)
    return float(sk.log_loss(y_true, clipped, labels=np.arange(clipped.shape[1])))


def clip_probability(probability: NDArray) -> NDArray[np.float64]:
    """Return probabilities [N, K] that are nowhere 0 or 1 and sum to one in each row, as float64."""
    clipped = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY).astype(np.float64)
    total: Any = clipped.sum(axis=1, keepdims=True)
    return clipped / total


def r2(y_true: NDArray, y_pred: NDArray) -> float:
    """Return scikit-learn's R²; NaN where the target is the same in every row."""
    return float(sk.r2_score(y_true, y_pred)) if np.ptp(y_true) > 0 else NAN


def mape(y_true: NDArray, y_pred: NDArray) -> float:
    """Return scikit-learn's mean absolute percentage error as a share (0.1 is 10 %); NaN where a target is 0."""
    return float(sk.mean_absolute_percentage_error(y_true, y_pred)) if np.all(y_true != 0) else NAN
