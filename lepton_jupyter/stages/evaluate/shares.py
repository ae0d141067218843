"""Metrics that are shares of rows: one definition for Wilson's interval and for the bootstrap's draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from lepton_jupyter.core.states import Task
from lepton_jupyter.stages.evaluate.sample import Sample


class Share(NamedTuple):
    """A metric that is a share of rows, or a growing function of one.

    Attributes
    ----------
    hits : callable
        Which rows count for it, bool [N].
    among : callable
        Among which rows, bool [N].
    to_metric : callable
        From the share, a float or an array of them, to the metric.
    """

    hits: Callable[[Sample], NDArray]
    among: Callable[[Sample], NDArray]
    to_metric: Callable[[Any], Any] = lambda share: share


_ACCURACY = Share(lambda rows: rows.actual == rows.predicted, lambda rows: rows.actual >= 0)

SHARES: dict[tuple[Task, str], Share] = {
    ("binary", "accuracy"): _ACCURACY,
    ("multiclass", "accuracy"): _ACCURACY,
    ("binary", "precision"): Share(
        lambda rows: rows.is_positive & rows.called_positive, lambda rows: rows.called_positive
    ),
    ("binary", "recall"): Share(lambda rows: rows.is_positive & rows.called_positive, lambda rows: rows.is_positive),
    ("binary", "specificity"): Share(
        lambda rows: ~rows.is_positive & ~rows.called_positive, lambda rows: ~rows.is_positive
    ),
    # F1 is 2J / (1 + J), where J is the share of hits among the rows that are or are called positive.
    ("binary", "f1"): Share(
        lambda rows: rows.is_positive & rows.called_positive,
        lambda rows: rows.is_positive | rows.called_positive,
        lambda share: 2 * share / (1 + share),
    ),
}
