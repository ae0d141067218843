"""What a metric is computed from: the truth of some rows and what a version said of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.core.states import Task
from lepton_jupyter.formats.predicted import is_positive

# N rows, K classes, T targets


@dataclass(frozen=True)
class Sample:
    """Rows that were scored.

    Attributes
    ----------
    task : Task
    actual : ndarray
        Classification: int64 codes [N] into `classes`; regression: float64 [N, T] in original units.
    predicted : ndarray
        The same shape and meaning.
    probability : ndarray or None
        float64 [N, K]; None where the version gives none, and for regression.
    classes : tuple of str
    positive : int
        Place of the positive class of a binary task.
    targets : tuple of str
        Names of the targets of a regression.
    """

    task: Task
    actual: NDArray
    predicted: NDArray
    probability: NDArray[np.float64] | None = None
    classes: tuple[str, ...] = ()
    positive: int = 1
    targets: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """How many rows."""
        return len(self.actual)

    @cached_property
    def is_positive(self) -> NDArray[np.bool_]:
        """Of a binary task: whether each row is of the positive class, bool [N]."""
        return self.actual == self.positive

    @cached_property
    def called_positive(self) -> NDArray[np.bool_]:
        """Of a binary task: whether each row was predicted to be of the positive class, bool [N]."""
        return self.predicted == self.positive

    @cached_property
    def score(self) -> NDArray[np.float64]:
        """Of a binary task: probability of the positive class, float64 [N]."""
        if self.probability is None:
            raise ValueError("the version gives no probabilities")
        return self.probability[:, self.positive]

    @cached_property
    def present(self) -> NDArray[np.int64]:
        """Codes of the classes that the rows have."""
        return np.unique(self.actual)

    def take(self, rows: NDArray) -> Sample:
        """Return the sample of some rows, by index or mask."""
        probability = None if self.probability is None else self.probability[rows]
        return replace(self, actual=self.actual[rows], predicted=self.predicted[rows], probability=probability)


def classified(
    *,
    actual: NDArray,
    probability: NDArray,
    classes: tuple[str, ...],
    positive: int | None,
    task: Task,
    threshold: float = 0.5,
) -> Sample:
    """Return the sample of a classifier: positive from the threshold on (binary), else the most probable class.

    Parameters
    ----------
    actual : ndarray of int64, [N]
        Codes into `classes`.
    probability : ndarray, [N, K]
    positive : int or None
        Place of the positive class of a binary task.
    """
    probability = np.asarray(probability, dtype=np.float64)
    if task == "binary":
        place = 1 if positive is None else positive
        predicted = np.where(is_positive(probability[:, place], threshold), place, 1 - place).astype(np.int64)
    else:
        place, predicted = 0, probability.argmax(axis=1).astype(np.int64)
    return Sample(task, np.asarray(actual, dtype=np.int64), predicted, probability, classes, place)


def regressed(*, actual: NDArray, predicted: NDArray, targets: tuple[str, ...]) -> Sample:
    """Return the sample of a regression; a target's column may come as [N] or [N, 1]."""
    y_true, y_pred = (np.asarray(y, dtype=np.float64).reshape(len(y), -1) for y in (actual, predicted))
    return Sample("regression", y_true, y_pred, targets=targets)
