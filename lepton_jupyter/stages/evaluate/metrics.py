"""The metrics: one explicit table. A line here is a metric; another package's function is named by its path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lepton_jupyter.core.states import Task

Needs = Literal["label", "score", "probability", "number"]
IntervalMethod = Literal["Wilson", "DeLong", "bootstrap", ""]


@dataclass(frozen=True)
class Metric:
    """One metric of one task.

    Attributes
    ----------
    name : str
        What is typed in ``--require``.
    task : Task
    title : str
        What a table shows.
    function : str
        ``package.module:name``. Called as ``function(y_true, y_pred_or_score, **options)``; loaded when it is used, so
        that this table costs nothing to a face.
    needs : str
        What the function is given: ``label`` (predicted classes; 0/1 for a binary task), ``score`` (probability of the
        positive class), ``probability`` (all of them, [N, K]) or ``number`` (one target's predictions).
    greater_is_better : bool
    is_share : bool
        Whether it lies between 0 and 1: a bound such as 95 is then a mistake.
    method : str
        How its interval is made; empty where none is honest.
    """

    name: str
    task: Task
    title: str
    function: str
    needs: Needs
    greater_is_better: bool = True
    is_share: bool = True
    method: IntervalMethod = "bootstrap"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_scores(self) -> bool:
        """Whether predicted classes alone are not enough."""
        return self.needs in ("score", "probability")


_SK = "sklearn.metrics:"
_OWN = "lepton_jupyter.stages.evaluate.scores:"
_NAN = {"zero_division": float("nan")}  # undefined is left out, not called 0
_MACRO = {
    "average": "macro",
    "zero_division": 0.0,
}  # scikit-learn's own: a class that is never predicted has precision 0

METRICS: tuple[Metric, ...] = (
    Metric("roc_auc", "binary", "ROC AUC", _SK + "roc_auc_score", "score", method="DeLong"),
    Metric("average_precision", "binary", "Average precision", _OWN + "average_precision", "score"),
    Metric("accuracy", "binary", "Accuracy", _SK + "accuracy_score", "label", method="Wilson"),
    Metric("balanced_accuracy", "binary", "Balanced accuracy", _OWN + "balanced_accuracy", "label"),
    Metric("precision", "binary", "Precision", _SK + "precision_score", "label", method="Wilson", options=_NAN),
    Metric("recall", "binary", "Recall", _SK + "recall_score", "label", method="Wilson", options=_NAN),
    Metric(
        "specificity", "binary", "Specificity", _SK + "recall_score", "label", method="Wilson",
        options={"pos_label": 0, **_NAN},
    ),
    Metric("f1", "binary", "F1", _SK + "f1_score", "label", method="Wilson", options=_NAN),
    Metric("brier", "binary", "Brier score", _SK + "brier_score_loss", "score", False),
    Metric("log_loss", "binary", "Log loss", _OWN + "log_loss", "probability", False, False),
    Metric("accuracy", "multiclass", "Accuracy", _SK + "accuracy_score", "label", method="Wilson"),
    Metric("balanced_accuracy", "multiclass", "Balanced accuracy", _OWN + "balanced_accuracy", "label"),
    Metric("f1", "multiclass", "F1 (macro)", _SK + "f1_score", "label", options=_MACRO),
    Metric("precision", "multiclass", "Precision (macro)", _SK + "precision_score", "label", options=_MACRO),
    Metric("recall", "multiclass", "Recall (macro)", _SK + "recall_score", "label", options=_MACRO),
    Metric("roc_auc", "multiclass", "ROC AUC (one vs rest)", _OWN + "roc_auc_ovr", "probability"),
    Metric("log_loss", "multiclass", "Log loss", _OWN + "log_loss", "probability", False, False),
    Metric("rmse", "regression", "Root mean squared error", _SK + "root_mean_squared_error", "number", False, False),
    Metric("mae", "regression", "Mean absolute error", _SK + "mean_absolute_error", "number", False, False),
    Metric("mse", "regression", "Mean squared error", _SK + "mean_squared_error", "number", False, False),
    Metric("r2", "regression", "R²", _OWN + "r2", "number", is_share=False),
    Metric("median_ae", "regression", "Median absolute error", _SK + "median_absolute_error", "number", False, False),
    # The largest of a sample says nothing about the largest of all: a bootstrap never goes beyond it
    # (P. J. Bickel and D. A. Freedman, 1981, "Some asymptotic theory for the bootstrap"). So it has no interval.
    Metric("max_error", "regression", "Largest error", _SK + "max_error", "number", False, False, method=""),
    Metric("mape", "regression", "Mean absolute percentage error", _OWN + "mape", "number", False, False),
)  # fmt: skip

PRIMARY: dict[Task, str] = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmse"}


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """Return the metrics of a task, in the table's order."""
    return tuple(metric for metric in METRICS if metric.task == task)


def metric_named(name: str, task: Task) -> Metric:
    """Return one metric; `KeyError` where the task has none of that name (`requirements.parse` says it to people)."""
    for metric in METRICS:
        if metric.name == name and metric.task == task:
            return metric
    raise KeyError(name)
