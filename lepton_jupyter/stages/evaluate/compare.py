"""Is one version better than another? A paired test on rows that neither was trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.evaluation import Comparison
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.evaluate.intervals import FEWEST_DEFINED, FEWEST_ROWS, LEVEL, Z, delong
from lepton_jupyter.stages.evaluate.metrics import Metric
from lepton_jupyter.stages.evaluate.resampling import N_DRAWS, bootstrap, n_draws_for
from lepton_jupyter.stages.evaluate.sample import Sample
from lepton_jupyter.stages.evaluate.scores import value_of
from lepton_jupyter.stages.evaluate.scoring import on_same_terms, score_split
from lepton_jupyter.stages.evaluate.seen import seen_rows


class Against(NamedTuple):
    """With what a version is compared, and how."""

    bundle: Bundle
    version: str
    metric: Metric
    seed: int


def compare_versions(
    bundle: Bundle, dataset: Dataset, split: str, ours: Sample, *, asked: Against, home: Home
) -> Comparison:
    """Compare a version with another one on the rows of a split that neither was trained on.

    Parameters
    ----------
    bundle : Bundle
        The version.
    ours : Sample
        Of the whole split, as `score_split` gave it.
    home : Home
        Where the datasets lie on which the two were trained.

    Returns
    -------
    Comparison
        ``INCONCLUSIVE`` with the reason where there are no such rows, or they are not known.
    """

    def answer(reason: str) -> Comparison:
        return inconclusive(against=asked.version, metric=asked.metric.name, n_rows=0, reason=reason)

    if asked.bundle.manifest_hash == bundle.manifest_hash:
        return answer("it is the same version")
    try:
        theirs = on_same_terms(score_split(asked.bundle, dataset, split, version=asked.version), ours)
    except LeptonError as error:  # our own numbers stand; only the comparison has no answer
        return answer(error.message)
    seen_by_us, seen_by_them = (seen_rows(one, dataset, split, home=home) for one in (bundle, asked.bundle))
    if seen_by_us is None or seen_by_them is None:
        return answer(f"training rows of {'this version' if seen_by_us is None else asked.version} unknown")
    fresh = ~(seen_by_us | seen_by_them)
    if not fresh.any():
        return answer(f"{dataset.ref}:{split} has no rows that neither was trained on")
    return compare(ours.take(fresh), theirs.take(fresh), asked.metric, against=asked.version, seed=asked.seed)


def inconclusive(*, against: str, metric: str, n_rows: int, reason: str) -> Comparison:
    """Return the answer where no test can be made, with the reason."""
    return Comparison(against=against, metric=metric, n_rows=n_rows, verdict="INCONCLUSIVE", reason=reason)


def compare(ours: Sample, theirs: Sample, metric: Metric, *, against: str, seed: int) -> Comparison:
    """Compare two versions on the same rows, which neither was trained on.

    Parameters
    ----------
    ours, theirs : Sample
        Of the same rows in the same order.
    metric : Metric
    against : str
        Name of the other version.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Comparison
        ``better`` where the one-sided 95 % bound of the difference is above 0, ``worse`` where the other one is below.
        DeLong's paired test for a binary ROC AUC, else the paired bootstrap (the same draws for both).
    """
    if ours.n_rows < FEWEST_ROWS:
        reason = f"{ours.n_rows} rows that neither was trained on are too few: {FEWEST_ROWS} at least"
        return inconclusive(against=against, metric=metric.name, n_rows=ours.n_rows, reason=reason)
    sign = 1.0 if metric.greater_is_better else -1.0
    difference = sign * (value_of(metric, ours) - value_of(metric, theirs))
    bounds = None
    if np.isfinite(difference):
        paired = metric.method == "DeLong" and min(np.bincount(ours.is_positive.astype(int), minlength=2)) > 1
        bounds = _by_delong(ours, theirs) if paired else _by_bootstrap(ours, theirs, metric, sign, seed)
    if bounds is None:
        reason = f"{metric.name} is not defined on the {ours.n_rows} rows that neither was trained on"
        return inconclusive(against=against, metric=metric.name, n_rows=ours.n_rows, reason=reason)
    low, high, method = bounds
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return Comparison(
        against=against, metric=metric.name, n_rows=ours.n_rows, verdict=verdict, difference=float(difference),
        low=low, high=high, method=method,
    )  # fmt: skip


def _by_delong(ours: Sample, theirs: Sample) -> tuple[float, float, str]:
    auc, covariance = delong(ours.is_positive, ours.score, theirs.score)
    variance = max(0.0, float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    difference, half = float(auc[0] - auc[1]), Z * float(np.sqrt(variance))
    return difference - half, difference + half, "DeLong, paired"


def _by_bootstrap(
    ours: Sample, theirs: Sample, metric: Metric, sign: float, seed: int
) -> tuple[float, float, str] | None:
    n_draws = n_draws_for(ours.n_rows)
    mine, other = bootstrap((metric,), (ours, theirs), n_draws=n_draws, seed=seed)
    differences = sign * (mine[metric.name] - other[metric.name])
    defined = differences[np.isfinite(differences)]
    if len(defined) < FEWEST_DEFINED * n_draws:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    named = "bootstrap, paired" if n_draws == N_DRAWS else f"bootstrap, paired, {n_draws} draws"
    return float(low), float(high), named
