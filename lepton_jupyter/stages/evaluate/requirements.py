"""Requirements as they are typed, such as ``roc_auc >= 0.95``. Light: a face reads them before a run starts."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from lepton_jupyter.core.errors import LeptonError, did_you_mean
from lepton_jupyter.core.states import Task
from lepton_jupyter.stages.evaluate.metrics import METRICS, metrics_of

OPERATORS = (">=", ">", "<=", "<")

_SHAPE = re.compile(r"\s*([A-Za-z][\w.-]*)\s*(>=|<=|=>|=<|==|!=|>|<|=)(?![<>=])\s*(\S.*?)\s*\Z")
_EXAMPLE = 'Write a metric, one of >= > <= <, and a number: --require "roc_auc >= 0.95".'


class Bound(NamedTuple):
    """A requirement, read: the metric, one of `OPERATORS`, and a finite number."""

    metric: str
    operator: str
    bound: float

    def is_met_by(self, value: float) -> bool:
        """Whether a value meets it."""
        return {
            ">=": value >= self.bound,
            ">": value > self.bound,
            "<=": value <= self.bound,
            "<": value < self.bound,
        }[self.operator]

    @property
    def wants_more(self) -> bool:
        """Whether the bound is a lower one."""
        return self.operator in (">=", ">")


def parse_requirement(text: str, task: Task | None = None) -> Bound:
    """Read a requirement.

    Parameters
    ----------
    text : str
        ``METRIC OPERATOR NUMBER``; blanks do not matter.
    task : Task, optional
        Of the model, where it is known: the metric must be one of that task.

    Raises
    ------
    LeptonError
        If the text is not a requirement, the metric is not known, or the bound is not a finite number.

    Examples
    --------
    >>> parse_requirement("roc_auc>=0.95", "binary")
    Bound(metric='roc_auc', operator='>=', bound=0.95)
    """
    match = _SHAPE.match(text)
    if match is None:
        raise LeptonError(f"'{text}' is not a requirement.", _EXAMPLE)
    metric, operator, number = match.groups()
    if operator not in OPERATORS:
        raise LeptonError(f"'{operator}' in '{text}' is no operator. Known: {', '.join(OPERATORS)}.", _EXAMPLE)
    _check_metric(metric, text, task)
    try:
        bound = float(number)
    except ValueError as error:
        raise LeptonError(f"'{number}' in '{text}' is not a number.", _EXAMPLE) from error
    if not math.isfinite(bound):
        raise LeptonError(f"The bound '{number}' in '{text}' is not a finite number.", _EXAMPLE)
    _check_range(metric, bound, text)
    return Bound(metric, operator, bound)


def _check_metric(name: str, text: str, task: Task | None) -> None:
    known = [metric.name for metric in (metrics_of(task) if task else METRICS)]
    if name in known:
        return
    names = list(dict.fromkeys(known))
    kind = f"metric of a {task} model" if task else "metric"
    raise LeptonError(
        f"No {kind} named '{name}' in '{text}'. Known: {', '.join(names)}.{did_you_mean(name.lower(), names)}",
        code="not_found",
    )


def _check_range(name: str, bound: float, text: str) -> None:
    if all(metric.is_share for metric in METRICS if metric.name == name) and not 0 <= bound <= 1:
        hint = f"For {bound:g} % write {bound / 100:g}." if 1 < bound <= 100 else ""
        raise LeptonError(f"{name} lies between 0 and 1; '{text}' asks for {bound:g}.", hint)
