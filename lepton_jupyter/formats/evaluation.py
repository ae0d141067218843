"""What an evaluation found: ``result.json`` of an evaluate run."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from lepton_jupyter.core.states import Task, Verdict


class Interval(Struct, frozen=True, kw_only=True):
    """A two-sided 90 % interval.

    Attributes
    ----------
    method : str
        ``Wilson``, ``DeLong`` or ``bootstrap``.
    """

    low: float
    high: float
    method: str


class Requirement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One requirement and how it was met.

    Attributes
    ----------
    text : str
        As typed.
    verdict : str
        ``PASS``, ``FAIL`` or ``INCONCLUSIVE``.
    rows_needed : int or None
        Of an inconclusive one: about how many rows would settle it.
    """

    text: str
    metric: str
    operator: str
    bound: float
    value: float
    verdict: Verdict
    rows_needed: int | None = None


class Comparison(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A paired test against another version on rows that neither was trained on.

    Attributes
    ----------
    metric : str
    difference : float
        Ours less theirs, in the direction in which more is better.
    low, high : float
        One-sided 95 % bounds of the difference. Better: `low` above 0.
    verdict : str
        ``better``, ``worse``, ``no difference shown`` or ``INCONCLUSIVE``.
    """

    against: str
    metric: str
    n_rows: int
    verdict: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    reason: str = ""


class EvaluationRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Metrics, intervals, tables behind the charts, verdict.

    Attributes
    ----------
    version : str
        ``NAME@3`` or a run's id.
    dataset : str
        ``NAME@3:test``.
    remark : str
        What limits the answer: 'measured on rows it was trained on', 'training rows unknown' …
    tables : dict of dict of list
        Columns by table: ``roc``, ``precision_recall``, ``confusion``, ``calibration``, ``residuals`` …
    """

    model: str
    version: str
    run_id: str
    dataset: str
    task: Task
    n_rows: int
    verdict: Verdict
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    classes: tuple[str, ...] = ()
    positive: str | None = None
    requirements: tuple[Requirement, ...] = ()
    comparison: Comparison | None = None
    remark: str = ""
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
