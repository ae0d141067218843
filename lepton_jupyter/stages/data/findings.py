"""What a person should know about a dataset before training on it. One function a check, listed in `CHECKS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.names import SPLITS
from lepton_jupyter.formats.records import Finding
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.data.columns import Features, as_numbers
from lepton_jupyter.stages.data.image_findings import images
from lepton_jupyter.stages.data.keys import content_keys
from lepton_jupyter.stages.data.leakage import leakage
from lepton_jupyter.stages.data.personal import personal
from lepton_jupyter.stages.data.spec import DataFlags
from lepton_jupyter.stages.data.target import Target, codes_of

LEVELS = ("problem", "warning", "info")
FEW_ROWS = 100
FEW_IN_CLASS = 10
MISSING_WARNING = 0.05
MISSING_PROBLEM = 0.5
RARE_CLASS = 0.1
VERY_RARE_CLASS = 0.01
FAR_OUT = 10.0  # interquartile ranges beyond a quartile; Tukey (1977) calls three 'far out', heavy tails reach that
MIN_FOR_IDS = 20
EXACT = 2.0**53


class Table(NamedTuple):
    """What the checks look at. `places` is int8 [N]: each row's place in `SPLITS`, -1 for none."""

    frame: pl.DataFrame
    features: Features
    schema: Schema
    target: Target
    places: NDArray[np.int8]
    flags: DataFlags


def check(table: Table) -> tuple[Finding, ...]:
    """Return all findings, with those about columns left out, the gravest first."""
    found = [*table.features.findings, *(finding for check in CHECKS for finding in check(table))]
    return tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level)))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rows(n: int) -> str:
    return f"{n:,} row{'s' * (n != 1)}"


def _missing_target(table: Table) -> Iterable[Finding]:
    n = int((table.places == -1).sum())
    if n:
        names = ", ".join(table.schema.targets)
        yield Finding(
            check="missing_target",
            column=table.schema.targets[0],
            text=f"{names} is missing in {_rows(n)}; they are in no split.",
        )


def _few_rows(table: Table) -> Iterable[Finding]:
    n = int((table.places != -1).sum())
    if n < FEW_ROWS:
        yield Finding(check="few_rows", text=f"{_rows(n)} only: every figure measured on them is uncertain.")


def _missing(table: Table) -> Iterable[Finding]:
    n = table.frame.height
    for name in table.features.kinds:
        missing = table.frame[name].null_count()
        if missing:
            share = missing / n
            level = "problem" if share > MISSING_PROBLEM else "warning" if share > MISSING_WARNING else "info"
            yield Finding(
                check="missing",
                column=name,
                level=level,
                text=f"{name} is missing in {_rows(missing)} ({_percent(share)}).",
            )


def _duplicates(table: Table) -> Iterable[Finding]:
    named = [name for name in table.frame.columns if name != table.schema.id_column]
    if table.schema.tensor_shape is not None or not named:
        return
    _, inverse, counts = np.unique(content_keys(table.frame.select(named)), return_inverse=True, return_counts=True)
    n = int((counts - 1).sum())
    if n:
        first, last = np.full(len(counts), len(SPLITS)), np.full(len(counts), -1)
        is_placed = table.places != -1
        np.minimum.at(first, inverse[is_placed], table.places[is_placed])
        np.maximum.at(last, inverse[is_placed], table.places[is_placed])
        n_parted = int((first < last).sum())
        parted = (
            f" {n_parted} of these rows lie{'s' * (n_parted == 1)} in more than one split, which flatters the test."
            if n_parted
            else ""
        )
        text = f"{_rows(n)} repeat{'s' * (n == 1)} an earlier row.{parted}"
        yield Finding(check="duplicates", text=text, level="warning" if n_parted or n > 0.01 * len(inverse) else "info")


def _repeated_ids(table: Table) -> Iterable[Finding]:
    name = table.schema.id_column
    if name is None:
        return
    series = table.frame[name]
    n = len(series) - series.n_unique()
    if n:
        hint = (
            "" if table.flags.group else f" Rows of one id lie in several splits: --group {name} keeps them together."
        )
        yield Finding(
            check="repeated_ids", column=name, text=f"{name} names {_rows(n)} that have been named before.{hint}"
        )


def _constant(table: Table) -> Iterable[Finding]:
    for name in table.features.kinds:
        series = table.frame[name].drop_nulls()
        if len(series) > 1 and (series == series[0]).all():
            yield Finding(
                check="constant", column=name, text=f"{name} is {series[0]!r} in every row; it teaches nothing."
            )


def _imbalance(table: Table) -> Iterable[Finding]:
    counts = table.target.counts
    if not counts:
        return
    total = sum(counts.values())
    label = min(counts, key=lambda name: counts[name])
    share = counts[label] / total
    if share < RARE_CLASS / max(1, len(counts) - 1):
        yield Finding(
            check="imbalance",
            column=table.schema.targets[0],
            level="problem" if share < VERY_RARE_CLASS else "warning",
            text=f"The class '{label}' is rare: {_rows(counts[label])} of {total:,} ({_percent(share)}).",
        )
    if counts[label] < FEW_IN_CLASS and total >= FEW_ROWS:
        yield Finding(
            check="few_in_class",
            column=table.schema.targets[0],
            level="problem",
            text=f"The class '{label}' has {_rows(counts[label])}: too few to learn or to measure.",
        )


def _classes_in_splits(table: Table) -> Iterable[Finding]:
    if not table.schema.classes:
        return
    codes = codes_of(table.frame[table.schema.targets[0]], table.schema.classes)
    for place in np.unique(table.places[table.places >= 0]):
        absent = set(range(len(table.schema.classes))) - set(codes[table.places == place].tolist())
        if absent:
            labels = ", ".join(f"'{table.schema.classes[code]}'" for code in sorted(absent)[:5])
            yield Finding(
                check="absent_class",
                column=table.schema.targets[0],
                level="problem",
                text=f"The {SPLITS[place]} split has no row of class {labels}.",
            )


def _mixed_types(table: Table) -> Iterable[Finding]:
    for name, kind in table.features.kinds.items():
        if kind != "string":
            continue
        series = table.frame[name].drop_nulls()
        odd = series.filter(series.cast(pl.Float64, strict=False).is_null())
        if 0 < len(odd) <= 0.5 * len(series):
            yield Finding(
                check="mixed_types",
                column=name,
                text=f"{name} is text, but all values except {len(odd)} are numbers; one is '{str(odd[0])[:40]}'.",
            )


def _outliers(table: Table) -> Iterable[Finding]:
    for name, kind in table.features.kinds.items():
        if kind not in ("number", "integer"):
            continue
        values = as_numbers(table.frame[name]).drop_nulls().to_numpy()
        if len(values) < MIN_FOR_IDS:
            continue
        low, high = np.quantile(values, (0.25, 0.75))
        reach = FAR_OUT * (high - low)
        is_far = (values < low - reach) | (values > high + reach)
        if reach > 0 and is_far.any():
            worst = values[is_far][np.argmax(np.abs(values[is_far] - np.median(values)))]
            yield Finding(
                check="outliers",
                column=name,
                level="info",  # a long tail is ordinary
                text=f"{name} is far from the rest in {_rows(int(is_far.sum()))}, such as {worst:g}; "
                f"half of all values lie between {low:g} and {high:g}.",
            )


def _id_like(table: Table) -> Iterable[Finding]:
    for name, kind in table.features.kinds.items():
        series = table.frame[name].drop_nulls()
        if kind != "integer" or len(series) < MIN_FOR_IDS or series.n_unique() < len(series):
            continue
        low, high = int(series.min()), int(series.max())  # type: ignore[arg-type]
        is_named_so = name.lower() in ("id", "index", "key", "uuid") or name.lower().endswith(("_id", " id", "-id"))
        if is_named_so or high - low + 1 == len(series):
            yield Finding(
                check="id_like",
                column=name,
                text=f"{name} differs in every row, like a row's name. Say --id {name} or --ignore {name} if it is.",
            )


def _inexact(table: Table) -> Iterable[Finding]:
    for name, kind in table.features.kinds.items():
        if kind == "integer":
            largest = as_numbers(table.frame[name]).abs().max()
            if isinstance(largest, float) and largest > EXACT:
                yield Finding(
                    check="inexact",
                    column=name,
                    text=f"{name} has integers beyond 2^53: a model sees them rounded; --ignore {name} if it is an id.",
                )


CHECKS: tuple[Callable[[Table], Iterable[Finding]], ...] = (
    _missing_target,
    _few_rows,
    lambda table: leakage(table.frame, table.features.kinds, table.schema, table.places),
    _imbalance,
    _classes_in_splits,
    _missing,
    _duplicates,
    _repeated_ids,
    _constant,
    _mixed_types,
    _outliers,
    _id_like,
    _inexact,
    lambda table: images(table.frame, table.schema, table.places),
    lambda table: (
        personal(table.frame, skip=(*table.schema.targets, *table.schema.personal))
        if table.schema.image is None
        else ()
    ),
)
