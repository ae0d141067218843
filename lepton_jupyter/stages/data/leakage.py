"""Columns that tell the target by themselves: often something that is known only afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.formats.records import Finding
from lepton_jupyter.formats.schema import ColumnKind, Schema
from lepton_jupyter.stages.data.columns import as_numbers
from lepton_jupyter.stages.data.target import MISSING_CODE, codes_of

LEAK = 0.99  # rank AUC from which a column alone is suspicious
LEAK_CORRELATION = 0.999  # the same of a rank correlation with a number
MIN_ROWS = 20
MAX_ROWS = 100_000  # more say nothing more
MAX_LEVELS = 20
MIN_PER_LEVEL = 5.0


def leakage(
    frame: pl.DataFrame, kinds: Mapping[str, ColumnKind], schema: Schema, places: NDArray[np.int8]
) -> Iterator[Finding]:
    """Yield a finding for each feature that alone tells the target.

    Binary: rank AUC from 0.99. Several classes: the column's values alone name the class in 99 % of rows. Regression:
    rank correlation (Spearman 1904) from 0.999. Under 20 rows nothing is said; of many, every n-th is looked at.
    """
    rows = frame.filter(pl.Series(places >= 0))
    if rows.height > MAX_ROWS:
        rows = rows.gather_every(rows.height // MAX_ROWS)
    if rows.height < MIN_ROWS or schema.task is None:
        return
    for name, kind in kinds.items():
        series = rows[name]
        if (series.drop_nulls() == series.drop_nulls().first()).all():
            continue
        if schema.task == "regression":
            yield from _of_number(series, kind, rows, schema)
        else:
            yield from _of_class(series, kind, codes_of(rows[schema.targets[0]], schema.classes), schema)


def _of_number(series: pl.Series, kind: ColumnKind, rows: pl.DataFrame, schema: Schema) -> Iterator[Finding]:
    if kind in ("string", "text"):
        return
    for target in schema.targets:
        both = pl.DataFrame({"x": as_numbers(series), "y": as_numbers(rows[target])}).drop_nulls()
        if both.height < MIN_ROWS or both["x"].n_unique() < 2 or both["y"].n_unique() < 2:
            continue
        rho = np.corrcoef(both["x"].rank().to_numpy(), both["y"].rank().to_numpy())[0, 1]
        if abs(rho) >= LEAK_CORRELATION:
            yield _finding(series.name, target, f"rank correlation {rho:.4f}")


def _of_class(series: pl.Series, kind: ColumnKind, codes: NDArray[np.int64], schema: Schema) -> Iterator[Finding]:
    is_labelled = codes != MISSING_CODE
    if len(schema.classes) == 2 and kind not in ("string", "text"):
        values = as_numbers(series).fill_null(np.nan).to_numpy()
        keep = is_labelled & ~np.isnan(values)
        auc = rank_auc(values[keep], codes[keep] == 1)
        if keep.sum() >= MIN_ROWS and max(auc, 1 - auc) >= LEAK:
            yield _finding(series.name, schema.targets[0], f"rank AUC {max(auc, 1 - auc):.3f}")
        return
    n_levels = series.n_unique()
    if n_levels > MAX_LEVELS or n_levels * MIN_PER_LEVEL > is_labelled.sum():
        return
    counts = pl.DataFrame({"x": series, "y": codes}).group_by("x", "y").len().group_by("x").agg(pl.col("len").max())
    share = float(counts["len"].sum()) / len(codes)
    if share >= LEAK:
        yield _finding(
            series.name, schema.targets[0], f"its value alone names the class in {100 * share:.1f} % of rows"
        )


def _finding(name: str, target: str, how: str) -> Finding:
    return Finding(
        check="leakage",
        column=name,
        level="problem",
        text=f"{name} alone tells {target}: {how}. Would it be known before {target} is? Else --ignore {name}.",
    )


def rank_auc(values: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> float:
    """Return the share of pairs that the values rank right, ties counted half (Mann and Whitney 1947); 0.5 without any.

    Examples
    --------
    >>> rank_auc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, True]))
    0.75
    """
    n_positive = int(is_positive.sum())
    n_negative = len(values) - n_positive
    if n_positive == 0 or n_negative == 0:
        return 0.5
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    above = ranks[is_positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))
