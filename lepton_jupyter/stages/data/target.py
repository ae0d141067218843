"""What is predicted: task, classes, positive class, and the target as numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.states import Task
from lepton_jupyter.formats.schema import ColumnKind, Schema

MAX_INTEGER_CLASSES = 20
POSITIVE_WORDS = ("True", "true", "TRUE", "1", "yes", "Yes", "YES")
MISSING_CODE = -1


class Target(NamedTuple):
    """How the target columns are read; `counts` are the rows of each class."""

    task: Task | None
    classes: tuple[str, ...]
    class_kind: ColumnKind
    positive: str | None
    counts: dict[str, int]


def read_target(
    frame: pl.DataFrame, targets: tuple[str, ...], *, positive: str | None = None, task: Task | None = None
) -> Target:
    """Decide the task: text, booleans and at most 20 distinct integers are classes, else it is a regression.

    Parameters
    ----------
    frame : polars.DataFrame
    targets : tuple of str
        Columns of the frame; none is no task.
    positive : str, optional
        The label that counts as positive in a binary task; else True, 1, "yes", else the rarer.
    task : Task, optional
        Says it in place of the rule.

    Raises
    ------
    LeptonError
        If the target has one class, is no number where numbers are wanted, or `positive` is no label.
    """
    if not targets:
        if positive is not None:
            raise LeptonError(f"--positive {positive} has no meaning without a target.", "Add --target COLUMN.")
        return Target(None, (), "string", None, {})
    for name in targets:
        if frame[name].null_count() == frame.height:
            raise LeptonError(f"The target '{name}' has no value at all.", "Name another --target.")
    is_regression = task == "regression" or (task is None and (len(targets) > 1 or not _is_classes(frame[targets[0]])))
    if is_regression:
        return _regression(frame, targets, positive)
    if len(targets) > 1:
        raise LeptonError(f"{len(targets)} targets can only be a regression, not {task}.", "Name one --target.")
    return _classification(frame[targets[0]], positive, task)


def _is_classes(series: pl.Series) -> bool:
    if series.dtype.is_integer():
        return series.drop_nulls().n_unique() <= MAX_INTEGER_CLASSES
    return series.dtype in (pl.String, pl.Boolean)


def _regression(frame: pl.DataFrame, targets: tuple[str, ...], positive: str | None) -> Target:
    if positive is not None:
        raise LeptonError(
            f"--positive {positive} has no meaning for the target '{targets[0]}', which is a number to predict.",
            "Leave out --positive.",
        )
    for name in targets:
        series = frame[name]
        if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
            raise LeptonError(
                f"The target '{name}' is {'text' if series.dtype == pl.String else series.dtype}; "
                "a regression needs numbers.",
                "Name one target of classes, or numbers.",
            )
        if series.drop_nulls().n_unique() < 2:
            raise LeptonError(
                f"The target '{name}' has one value only: {series.drop_nulls()[0]}.",
                "There is nothing to learn; name another --target.",
            )
    return Target("regression", (), "number", None, {})


def _classification(series: pl.Series, positive: str | None, task: Task | None) -> Target:
    name = series.name
    if not (series.dtype.is_numeric() or series.dtype in (pl.String, pl.Boolean)):
        raise LeptonError(f"The target '{name}' is of type {series.dtype}.", "Give text, booleans or numbers.")
    counts = _counts(series)
    classes = tuple(counts)
    n = sum(counts.values())
    if len(classes) < 2:
        raise LeptonError(
            f"The target '{name}' has one class only: '{classes[0]}' in all {n} rows.",
            "There is nothing to tell apart; name another --target or give more rows.",
        )
    if len(classes) > MAX_INTEGER_CLASSES and len(classes) > n / 2:
        raise LeptonError(
            f"The target '{name}' has {len(classes)} different values in {n} rows: it is no class.",
            "Name another --target.",
        )
    if task == "binary" and len(classes) != 2:
        raise LeptonError(
            f"The target '{name}' has {len(classes)} classes; a binary task has two.", "Leave out --task."
        )
    kind = _kind(series, classes)
    if len(classes) > 2 or task == "multiclass":
        if positive is not None:
            raise LeptonError(
                f"--positive {positive} has no meaning for {len(classes)} classes: {', '.join(classes)}.",
                "Leave out --positive.",
            )
        return Target("multiclass", classes, kind, None, counts)
    return Target("binary", classes, kind, _positive(counts, positive), counts)


def _kind(series: pl.Series, classes: tuple[str, ...]) -> ColumnKind:
    """Return how labels are given back; floats that are whole count as integers."""
    if series.dtype == pl.Boolean:
        return "boolean"
    if series.dtype.is_integer() or (series.dtype.is_float() and all(label.lstrip("-").isdigit() for label in classes)):
        return "integer"
    return "string"


def _positive(counts: dict[str, int], said: str | None) -> str:
    if said is not None:
        if said not in counts:
            raise unknown("label", said, counts, "--positive names a label of the target.")
        return said
    for word in POSITIVE_WORDS:
        if word in counts:
            return word
    return min(reversed(list(counts)), key=lambda label: counts[label])


def _counts(series: pl.Series) -> dict[str, int]:
    """Return rows by label: text in its order, numbers in theirs, False before True."""
    table = series.drop_nulls().value_counts().sort(series.name)
    return {label_of(value): count for value, count in table.iter_rows()}


def label_of(value: object) -> str:
    """Return a label as text: ``True``, ``3``, ``M``; a float that is whole as ``3``."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def codes_of(series: pl.Series, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Return each row's place in `classes`, int64 [N]; `MISSING_CODE` where the target is missing or no known class."""
    place = {label: i for i, label in enumerate(classes)}
    values = series.unique().to_list()
    known = {value: place.get(label_of(value), MISSING_CODE) for value in values if value is not None}
    codes = series.replace_strict(list(known), list(known.values()), default=MISSING_CODE, return_dtype=pl.Int64)
    return codes.fill_null(MISSING_CODE).to_numpy().astype(np.int64)


def values_of(frame: pl.DataFrame, schema: Schema) -> NDArray[np.int64] | NDArray[np.float64]:
    """Return the target: int64 codes [N] into ``schema.classes``, or float64 [N, T] (missing: -1 or NaN).

    Raises
    ------
    LeptonError
        If the data has no target.
    """
    if schema.task is None:
        raise LeptonError("This dataset has no target.", "Make it again with --target COLUMN.")
    if schema.task == "regression":
        columns = [frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in schema.targets]
        return np.column_stack(columns).astype(np.float64)
    return codes_of(frame[schema.targets[0]], schema.classes)
