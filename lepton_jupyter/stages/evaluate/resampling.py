"""The bootstrap over rows: every draw is a count a row, and a metric is computed for many draws at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.core.states import Task
from lepton_jupyter.stages.evaluate.metrics import Metric
from lepton_jupyter.stages.evaluate.sample import Sample
from lepton_jupyter.stages.evaluate.scores import clip_probability, value_of
from lepton_jupyter.stages.evaluate.shares import SHARES, Share

# B draws, N rows, K classes, T targets
Counts = NDArray[np.float64]  # [B, N]: how often each row is in each draw
OfCounts = Callable[[Counts], NDArray[np.float64]]  # [B]; NaN where a draw leaves the metric undefined
Prepare = Callable[[Sample], OfCounts]  # what is the same for every draw (an order, a loss a row) is made once

N_DRAWS = 2_000
FEWEST_DRAWS = 200
MOST_CELLS = 10**8  # draws x rows: beyond 50,000 rows fewer draws are made, which the interval's method says
CHUNK_CELLS = 2**18  # a chunk of draws that stays in the processor's cache


def n_draws_for(n_rows: int) -> int:
    """Return how many draws are made: 2,000; fewer for more than 50,000 rows, never under 200."""
    return int(np.clip(MOST_CELLS // max(n_rows, 1), FEWEST_DRAWS, N_DRAWS))


def counts_of_draws(n_rows: int, n_draws: int, seed: int) -> Iterator[Counts]:
    """Yield the draws in chunks [B, N]: rows drawn with replacement, N a draw (Efron, 1979)."""
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // max(n_rows, 1))
    for start in range(0, n_draws, chunk):
        size = min(chunk, n_draws - start)
        drawn = rng.integers(0, n_rows, size=(size, n_rows))
        drawn += np.arange(size)[:, None] * n_rows
        yield np.bincount(drawn.ravel(), minlength=size * n_rows).reshape(size, n_rows).astype(np.float64)


def bootstrap(
    metrics: tuple[Metric, ...], samples: tuple[Sample, ...], *, n_draws: int, seed: int
) -> list[dict[str, NDArray[np.float64]]]:
    """Compute metrics on the same draws of rows for every sample.

    Parameters
    ----------
    metrics : tuple of Metric
    samples : tuple of Sample
        Of the same rows; several for a paired comparison.
    n_draws, seed : int

    Returns
    -------
    list of dict
        For each sample, by metric, float64 [n_draws]; NaN where a draw leaves the metric undefined.
    """
    prepared = [{metric.name: _prepare(metric, sample) for metric in metrics} for sample in samples]
    parts: list[dict[str, list[NDArray[np.float64]]]] = [{metric.name: [] for metric in metrics} for _ in samples]
    for counts in counts_of_draws(samples[0].n_rows, n_draws, seed):
        for of_sample, found in zip(prepared, parts, strict=True):
            for name, of_counts in of_sample.items():
                with np.errstate(divide="ignore", invalid="ignore"):  # undefined in a draw: NaN
                    found[name].append(of_counts(counts))
    return [{name: np.concatenate(chunks) for name, chunks in found.items()} for found in parts]


def _prepare(metric: Metric, sample: Sample) -> OfCounts:
    """Return the vectorised form of a metric; its own function, draw by draw, where it has none."""
    prepare = VECTORISED.get((metric.task, metric.name))
    if prepare is not None:
        return prepare(sample)
    rows = np.arange(sample.n_rows)

    def one_by_one(counts: Counts) -> NDArray[np.float64]:
        return np.array([value_of(metric, sample.take(np.repeat(rows, row.astype(np.int64)))) for row in counts])

    return one_by_one


def _mean_of(row_values: NDArray) -> OfCounts:
    """Return the mean a draw of values a row: [B] of [N], [B, T] of [N, T]."""
    return lambda counts: (counts @ row_values) / counts.shape[1]


def _share(share: Share) -> Prepare:
    def prepare_share(sample: Sample) -> OfCounts:
        columns = np.column_stack([share.hits(sample), share.among(sample)]).astype(np.float64)

        def of_counts(counts: Counts) -> NDArray[np.float64]:
            hits, among = (counts @ columns).T
            return np.asarray(share.to_metric(hits / among), dtype=np.float64)

        return of_counts

    return prepare_share


def _brier(sample: Sample) -> OfCounts:
    return _mean_of((sample.score - sample.is_positive) ** 2)


def _log_loss(sample: Sample) -> OfCounts:
    assert sample.probability is not None
    return _mean_of(-np.log(clip_probability(sample.probability)[np.arange(sample.n_rows), sample.actual]))


def _by_class(sample: Sample) -> Callable[[Counts], list[NDArray[np.float64]]]:
    """Return rows right, actual and predicted of each class a draw, [B, K] each."""
    n_classes = len(sample.classes)
    actual, predicted = np.eye(n_classes)[sample.actual], np.eye(n_classes)[sample.predicted]
    columns = np.hstack([actual * predicted, actual, predicted])
    return lambda counts: np.split(counts @ columns, 3, axis=1)


def _balanced_accuracy(sample: Sample) -> OfCounts:
    by_class = _by_class(sample)

    def of_counts(counts: Counts) -> NDArray[np.float64]:
        right, actual, _ = by_class(counts)
        n_there = (actual > 0).sum(axis=1)
        return np.where(n_there > 1, np.where(actual > 0, right / actual, 0.0).sum(axis=1) / n_there, np.nan)

    return of_counts


def _macro(bottom: Callable[[NDArray, NDArray], NDArray]) -> Prepare:
    """Return draws of a macro average of ``right / bottom``: over classes that a draw holds, 0 where undefined."""

    def prepare(sample: Sample) -> OfCounts:
        by_class = _by_class(sample)

        def of_counts(counts: Counts) -> NDArray[np.float64]:
            right, actual, predicted = by_class(counts)
            below = bottom(actual, predicted)
            return np.where(below > 0, right / below, 0.0).sum(axis=1) / (actual + predicted > 0).sum(axis=1)

        return of_counts

    return prepare


def _auc_of(score: NDArray, is_positive: NDArray) -> OfCounts:
    """Return the ROC AUC a draw: the share of pairs in the right order, a tie counting half."""
    of_positive, of_negative = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
    of_negative = of_negative[np.argsort(score[of_negative], kind="stable")]
    below, not_above = (np.searchsorted(score[of_negative], score[of_positive], side) for side in ("left", "right"))
    has_ties = bool((below != not_above).any())

    def of_counts(counts: Counts) -> NDArray[np.float64]:
        positive = counts[:, of_positive]
        reached = np.zeros((len(counts), len(of_negative) + 1))
        np.cumsum(counts[:, of_negative], axis=1, out=reached[:, 1:])
        pairs = np.einsum("bn,bn->b", positive, reached[:, below])
        if has_ties:
            pairs = (pairs + np.einsum("bn,bn->b", positive, reached[:, not_above])) / 2
        return pairs / (positive.sum(axis=1) * reached[:, -1])

    return of_counts


def _roc_auc(sample: Sample) -> OfCounts:
    return _auc_of(sample.score, sample.is_positive)


def _roc_auc_ovr(sample: Sample) -> OfCounts:
    probability = sample.probability
    assert probability is not None
    classes = [_auc_of(probability[:, k], sample.actual == k) for k in range(len(sample.classes))]
    return lambda counts: np.mean([of_class(counts) for of_class in classes], axis=0)


def _average_precision(sample: Sample) -> OfCounts:
    """Return the average precision a draw: precision where each drawn positive is reached, rows of a score at once."""
    order = np.argsort(-sample.score, kind="stable")
    falling = -sample.score[order]
    positive = np.flatnonzero(sample.is_positive[order])
    last_alike = np.searchsorted(falling, falling[positive], "right") - 1  # the last row with the positive's score
    last_positive = np.searchsorted(falling[positive], falling[positive], "right") - 1

    def of_counts(counts: Counts) -> NDArray[np.float64]:
        drawn = counts[:, order]
        gained = drawn[:, positive]
        n_right = np.cumsum(gained, axis=1)
        n_called = np.cumsum(drawn, axis=1)[:, last_alike]
        precision = n_right[:, last_positive] / np.maximum(n_called, 1.0)
        return np.einsum("bn,bn->b", gained, precision) / n_right[:, -1]

    return of_counts


def _mean_error(power: int, root: float = 1.0) -> Prepare:
    def prepare(sample: Sample) -> OfCounts:
        mean = _mean_of(np.abs(sample.actual - sample.predicted) ** power)
        return lambda counts: (mean(counts) ** root).mean(axis=1)

    return prepare


def _mape(sample: Sample) -> OfCounts:
    mean = _mean_of(np.abs((sample.actual - sample.predicted) / sample.actual))
    return lambda counts: mean(counts).mean(axis=1)


def _r2(sample: Sample) -> OfCounts:
    centred = sample.actual - sample.actual.mean(axis=0)  # the sums of squares keep their digits
    smallest = 1e-12 * np.mean(centred**2, axis=0)
    means = _mean_of(np.hstack([(sample.actual - sample.predicted) ** 2, centred**2, centred]))

    def of_counts(counts: Counts) -> NDArray[np.float64]:
        residual, square, mean = np.split(means(counts), 3, axis=1)
        spread = square - mean**2
        return np.where(spread > smallest, 1 - residual / spread, np.nan).mean(axis=1)

    return of_counts


def _median_ae(sample: Sample) -> OfCounts:
    """Return the median a draw: the two rows in the middle are found by cumulated counts of the sorted errors."""
    errors = np.abs(sample.actual - sample.predicted)
    orders = np.argsort(errors, axis=0, kind="stable").T
    ends = ((sample.n_rows - 1) // 2, sample.n_rows // 2)

    def of_counts(counts: Counts) -> NDArray[np.float64]:
        medians = []
        for order, of_target in zip(orders, errors.T, strict=True):
            reached = np.cumsum(counts[:, order], axis=1)
            middle = [(reached > place).argmax(axis=1) for place in ends]
            medians.append(of_target[order][middle].mean(axis=0))
        return np.mean(medians, axis=0)

    return of_counts


VECTORISED: dict[tuple[Task, str], Prepare] = {
    **{key: _share(share) for key, share in SHARES.items()},
    ("binary", "roc_auc"): _roc_auc,
    ("binary", "average_precision"): _average_precision,
    ("binary", "balanced_accuracy"): _balanced_accuracy,
    ("binary", "brier"): _brier,
    ("binary", "log_loss"): _log_loss,
    ("multiclass", "balanced_accuracy"): _balanced_accuracy,
    ("multiclass", "recall"): _macro(lambda actual, predicted: actual),
    ("multiclass", "precision"): _macro(lambda actual, predicted: predicted),
    ("multiclass", "f1"): _macro(lambda actual, predicted: (actual + predicted) / 2),
    ("multiclass", "roc_auc"): _roc_auc_ovr,
    ("multiclass", "log_loss"): _log_loss,
    ("regression", "rmse"): _mean_error(2, 0.5),
    ("regression", "mae"): _mean_error(1),
    ("regression", "mse"): _mean_error(2),
    ("regression", "r2"): _r2,
    ("regression", "median_ae"): _median_ae,
    ("regression", "mape"): _mape,
}
