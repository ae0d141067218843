"""What an epoch is judged by: its metrics over the validation split, and which of two values is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.states import Task
from lepton_jupyter.formats.predicted import is_positive
from lepton_jupyter.stages.evaluate.metrics import METRICS, Metric, metric_named, metrics_of

if TYPE_CHECKING:  # the asking process looks up names here, and may have no torch loaded
    from lepton_jupyter.stages.train.heads import Head
    from lepton_jupyter.stages.train.job import Job

# N rows, K classes, T targets

LOSSES = ("val_loss", "train_loss")


@dataclass(frozen=True)
class Judge:
    """How epochs are compared.

    Attributes
    ----------
    name : str
        ``--metric`` in full: ``val_loss``, ``train_loss``, or ``val_`` and a metric of `stages.evaluate`.
    is_greater_better : bool
    is_blind : bool
        Whether nothing can be judged, because there is no validation split: then the last epoch is the best, and
        ``--patience`` never ends the run.
    """

    name: str
    is_greater_better: bool
    is_blind: bool
    head: Head
    task: Task
    classes: tuple[str, ...] = ()
    metric: Metric | None = None

    def metrics(self, decoded: npt.NDArray[np.float64], values: npt.NDArray[Any], loss: float) -> dict[str, float]:
        """Return an epoch's metrics over the validation split: its loss, the headline, and what it is judged by.

        Parameters
        ----------
        decoded : NDArray
            Probabilities [N, K] or predictions [N, T], float64.
        values : NDArray
            int64 codes [N] or float64 [N, T] in original units.
        loss : float
            Mean over the rows.
        """
        found = {"val_loss": loss, **headline(decoded, values, self.head, prefix="val_")}
        if self.metric is not None and self.name not in found:
            found[self.name] = self._value(self.metric, decoded, values)
        return found

    def _value(self, metric: Metric, decoded: npt.NDArray[np.float64], values: npt.NDArray[Any]) -> float:
        from lepton_jupyter.stages.evaluate.sample import Sample, classified
        from lepton_jupyter.stages.evaluate.scores import value_of  # scikit-learn: only where it is asked for

        if self.task == "regression":
            return value_of(metric, Sample("regression", values, decoded))
        sample = classified(
            actual=values,
            probability=decoded,
            classes=self.classes,
            positive=self.head.positive_index if self.task == "binary" else None,
            task=self.task,
            threshold=self.head.threshold,
        )
        return value_of(metric, sample)

    def judged(self, metrics: Mapping[str, float]) -> float:
        """Return the value by which an epoch with these metrics is judged; NaN where it is undefined."""
        return metrics["train_loss"] if self.is_blind else metrics[self.name]

    def is_better(self, new: float, best: float | None) -> bool:
        """Whether an epoch is better than the best so far; None: there is none yet. NaN is better than None only."""
        if self.is_blind or best is None or (math.isnan(best) and not math.isnan(new)):
            return True
        return new > best if self.is_greater_better else new < best


def make_judge(job: Job, head: Head, *, has_validation: bool | None = None) -> Judge:
    """Return the judge that ``--metric`` asks for.

    Parameters
    ----------
    job : Job
    head : Head
    has_validation : bool, optional
        None for whether the dataset has a validation split.

    Raises
    ------
    LeptonError
        If the task has no such metric (did you mean), or it needs a validation split and there is none.
    """
    name = full_name(job.spec.metric)
    metric = None if name in LOSSES else _metric_of(name, job.task)
    if has_validation is None:
        has_validation = "validation" in job.dataset.splits()
    is_blind = not has_validation and name == "val_loss"
    if not has_validation and metric is not None:
        raise LeptonError(
            f"--metric {job.spec.metric} needs a validation split, which '{job.dataset.ref}' has not.",
            "Leave it out (the last epoch is kept then), or make the dataset with --split 0.6,0.2,0.2.",
        )
    is_greater_better = metric is not None and metric.greater_is_better
    return Judge(name, is_greater_better, is_blind, head, job.task, job.schema.classes, metric)


def full_name(word: str) -> str:
    """Return the metric's name as it is logged: ``accuracy`` is ``val_accuracy``.

    Raises
    ------
    LeptonError
        If no task has such a metric (did you mean).
    """
    name = word.lower().replace("-", "_")
    if name in LOSSES:
        return name
    name = name.removeprefix("val_")
    if name == "loss":
        return "val_loss"
    names = list(dict.fromkeys(metric.name for metric in METRICS))
    if name not in names:
        raise unknown("metric", word, [*LOSSES, *(f"val_{known}" for known in names)])
    return f"val_{name}"


def is_greater_better(word: str, task: Task) -> bool:
    """Whether a greater value of a metric (as ``--metric`` takes it) is better.

    Raises
    ------
    LeptonError
        If the task has no such metric (did you mean).
    """
    name = full_name(word)
    return name not in LOSSES and _metric_of(name, task).greater_is_better


def _metric_of(name: str, task: Task) -> Metric:
    try:
        return metric_named(name.removeprefix("val_"), task)
    except KeyError:
        known = [*LOSSES, *(f"val_{metric.name}" for metric in metrics_of(task))]
        raise unknown(f"metric of a {task} task", name, known) from None


def headline(
    decoded: npt.NDArray[np.float64], values: npt.NDArray[Any], head: Head, *, prefix: str = ""
) -> dict[str, float]:
    """Return the one metric that a person reads first: accuracy of classes, RMSE of numbers.

    Parameters
    ----------
    decoded : NDArray
        Probabilities [N, K] or predictions [N, T], float64.
    values : NDArray
        int64 codes [N] or float64 [N, T] in original units.
    """
    if head.kind == "identity":
        return {prefix + "rmse": float(np.sqrt(np.mean((decoded - values) ** 2)))}
    if head.n_outputs == 2:
        reaches = is_positive(decoded[:, head.positive_index], head.threshold)
        guesses = np.where(reaches, head.positive_index, 1 - head.positive_index)
    else:
        guesses = decoded.argmax(1)
    return {prefix + "accuracy": float(np.mean(guesses == values))}
