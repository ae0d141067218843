"""The tables behind the charts: JSON-ready columns, about 200 points each whatever the number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from lepton_jupyter.stages.evaluate.intervals import wilson
from lepton_jupyter.stages.evaluate.metrics import metrics_of
from lepton_jupyter.stages.evaluate.sample import Sample
from lepton_jupyter.stages.evaluate.scores import value_of

Table = dict[str, list[Any]]

MOST_POINTS = 200
FEWEST_POINTS = 20  # of each curve where many classes share the points
N_BINS = 10
N_BARS = 20


def tables(sample: Sample, *, seed: int) -> dict[str, Table]:
    """Return the tables of a sample.

    Returns
    -------
    dict of dict of list
        Classification: ``confusion``, ``classes``; with probabilities ``roc``, ``precision_recall``, ``calibration``,
        ``scores`` (binary) or ``roc`` (multiclass, a curve a class). Regression: ``predicted_vs_actual``,
        ``residuals``, ``residual_bars``, and ``targets`` where there are several. Rows are drawn by `seed` where there
        are more than `MOST_POINTS`.
    """
    if sample.task == "regression":
        return _of_regression(sample, seed)
    found = {"confusion": confusion(sample), "classes": _classes(sample)}
    if sample.probability is None:
        return found
    if sample.task == "multiclass":
        return {**found, "roc": _roc_by_class(sample)}
    found |= {"calibration": calibration(sample), "scores": _scores(sample)}
    if len(sample.present) == 2:
        found |= {
            "roc": _roc(sample.is_positive, sample.score, MOST_POINTS),
            "precision_recall": _precision_recall(sample),
        }
    return found


def confusion(sample: Sample) -> Table:
    """Return rows by actual and predicted class: the `MOST_POINTS` most frequent pairs that occur, and the diagonal."""
    n_classes = len(sample.classes)
    counts = np.bincount(sample.actual * n_classes + sample.predicted, minlength=n_classes**2)
    pairs = np.arange(n_classes**2)
    if n_classes**2 > 2 * MOST_POINTS:
        pairs = np.sort(np.argsort(-counts, kind="stable")[:MOST_POINTS])
        pairs = pairs[counts[pairs] > 0]
    return {
        "actual": [sample.classes[pair // n_classes] for pair in pairs],
        "predicted": [sample.classes[pair % n_classes] for pair in pairs],
        "rows": counts[pairs].tolist(),
    }


def calibration(sample: Sample) -> Table:
    """Return observed against predicted shares of the positive class in ten equal bins, with Wilson's 90 % interval."""
    places = np.minimum((sample.score * N_BINS).astype(np.int64), N_BINS - 1)
    table: Table = {name: [] for name in ("predicted", "observed", "low", "high", "rows")}
    for place in np.unique(places):
        inside = places == place
        n_right, n_rows = int(sample.is_positive[inside].sum()), int(inside.sum())
        low, high = wilson(n_right, n_rows)
        row = (float(sample.score[inside].mean()), n_right / n_rows, low, high, n_rows)
        for name, value in zip(table, row, strict=True):
            table[name].append(value)
    return table


def thin(xs: NDArray, ys: NDArray, n_points: int) -> NDArray[np.intp]:
    """Return the indices of the points that keep a monotone curve's shape: evenly along its length, with both ends."""
    if len(xs) <= n_points:
        return np.arange(len(xs))
    along = np.r_[0.0, np.cumsum(np.abs(np.diff(xs)) + np.abs(np.diff(ys)))]
    return np.unique(np.r_[0, np.searchsorted(along, np.linspace(0, along[-1], n_points - 1)), len(xs) - 1])


def _roc(is_positive: NDArray, score: NDArray, n_points: int) -> Table:
    fpr, tpr, thresholds = sk.roc_curve(is_positive, score)
    keep = thin(fpr, tpr, n_points)
    thresholds[0] = max(1.0, float(thresholds[1:].max(initial=0.0)))  # scikit-learn's infinity is no JSON
    return {"fpr": fpr[keep].tolist(), "tpr": tpr[keep].tolist(), "threshold": thresholds[keep].tolist()}


def _roc_by_class(sample: Sample) -> Table:
    assert sample.probability is not None
    n_points = max(FEWEST_POINTS, MOST_POINTS // len(sample.classes))
    table: Table = {name: [] for name in ("class", "fpr", "tpr", "threshold")}
    for code in sample.present.tolist() if len(sample.present) > 1 else []:
        curve = _roc(sample.actual == code, sample.probability[:, code], n_points)
        table["class"] += [sample.classes[code]] * len(curve["fpr"])
        for name, column in curve.items():
            table[name] += column
    return table


def _precision_recall(sample: Sample) -> Table:
    precision, recall, thresholds = sk.precision_recall_curve(sample.is_positive, sample.score)
    keep = thin(recall, precision, MOST_POINTS)
    thresholds = np.r_[thresholds, 1.0]
    return {
        "recall": recall[keep].tolist(), "precision": precision[keep].tolist(), "threshold": thresholds[keep].tolist(),
    }  # fmt: skip


def _classes(sample: Sample) -> Table:
    """Return precision, recall, F1 and rows of every class; None where undefined."""
    codes = np.arange(len(sample.classes))
    precision, recall, f1, rows = sk.precision_recall_fscore_support(
        sample.actual, sample.predicted, labels=codes, zero_division=np.nan
    )
    found: Table = {"class": list(sample.classes)}
    for name, column in (("precision", precision), ("recall", recall), ("f1", f1)):
        found[name] = [None if np.isnan(value) else float(value) for value in column]
    return {**found, "rows": rows.tolist()}


def _scores(sample: Sample) -> Table:
    edges = np.linspace(0.0, 1.0, N_BARS + 1)
    positive, negative = (
        np.histogram(sample.score[rows], edges)[0] for rows in (sample.is_positive, ~sample.is_positive)
    )
    return {
        "low": edges[:-1].tolist(), "high": edges[1:].tolist(),
        "positive": positive.tolist(), "negative": negative.tolist(),
    }  # fmt: skip


def _of_regression(sample: Sample, seed: int) -> dict[str, Table]:
    n_targets = sample.actual.shape[1]
    rows = np.arange(sample.n_rows)
    most = max(FEWEST_POINTS, MOST_POINTS // n_targets)
    if sample.n_rows > most:
        rows = np.sort(np.random.default_rng(seed).choice(sample.n_rows, most, replace=False))
    names = sample.targets or tuple(str(place) for place in range(n_targets))
    target = [name for name in names for _ in rows]
    actual, predicted = (column[rows].T.ravel() for column in (sample.actual, sample.predicted))
    found: dict[str, Table] = {
        "predicted_vs_actual": {"target": target, "actual": actual.tolist(), "predicted": predicted.tolist()},
        "residuals": {"target": target, "predicted": predicted.tolist(), "residual": (actual - predicted).tolist()},
        "residual_bars": _residual_bars(sample, names),
    }
    if n_targets > 1:
        found["targets"] = _by_target(sample, names)
    return found


def _residual_bars(sample: Sample, names: tuple[str, ...]) -> Table:
    table: Table = {name: [] for name in ("target", "low", "high", "rows")}
    for name, residuals in zip(names, (sample.actual - sample.predicted).T, strict=True):
        rows, edges = np.histogram(residuals, N_BARS)
        table["target"] += [name] * N_BARS
        table["low"] += edges[:-1].tolist()
        table["high"] += edges[1:].tolist()
        table["rows"] += rows.tolist()
    return table


def _by_target(sample: Sample, names: tuple[str, ...]) -> Table:
    """Return every metric of every target; None where undefined."""
    table: Table = {"target": list(names)}
    for metric in metrics_of("regression"):
        columns = (Sample("regression", sample.actual[:, [t]], sample.predicted[:, [t]]) for t in range(len(names)))
        found = [value_of(metric, column) for column in columns]
        table[metric.name] = [value if np.isfinite(value) else None for value in found]
    return table
