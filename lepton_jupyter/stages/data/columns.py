"""Which columns are features, and what kind each one is."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.formats.personal import TENSOR
from lepton_jupyter.formats.records import Finding
from lepton_jupyter.formats.schema import SENTINEL, Column, ColumnKind
from lepton_jupyter.formats.values import MAX_TEXT
from lepton_jupyter.stages.data.spec import DataFlags

MAX_CATEGORIES = 500
MIN_FOR_SHARE = 20  # below so many values a column of text is never called free text
UNIQUE_SHARE = 0.5
WORDS_OF_PROSE = 6.0
DATE_TEXT = r"^\s*(\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}.*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}([T ]\d{1,2}:\d{2}.*)?)\s*$"
DATE_SHARE = 0.9
EXAMPLE_CHARS = 200  # of prose in the example row


class Features(NamedTuple):
    """The features' kinds in the table's order, the columns left out, and why."""

    kinds: dict[str, ColumnKind]
    dropped: tuple[str, ...]
    findings: list[Finding]


def check_columns(frame: pl.DataFrame, flags: DataFlags) -> None:
    """Refuse flags that name a column which is not there, or one column for two things that exclude each other.

    Raises
    ------
    LeptonError
        With the known columns and, where one is near, 'did you mean'.
    """
    said = [("target", name) for name in flags.target] + [("ignored", name) for name in flags.ignore]
    _check_text(frame, flags)
    said += [(what, name) for what, name in (("id", flags.id), ("group", flags.group), ("time", flags.time)) if name]
    for what, name in said:
        if name not in frame.columns:
            raise unknown(
                "column", name, frame.columns, f"--{what.replace('ignored', 'ignore')} names a column of the data."
            )
    if flags.group is not None and flags.time is not None:
        raise LeptonError("--group and --time cannot both say how to split.", "Leave out one of them.")
    repeated = [name for name in flags.target if flags.target.count(name) > 1]
    if repeated:
        raise LeptonError(f"--target {repeated[0]} is given twice.", "Name each target once.")
    for what, name in said:
        if what != "target" and name in flags.target:
            raise LeptonError(
                f"Column '{name}' is the target and cannot be {'the ' if what != 'ignored' else ''}{what} too.",
                f"Leave out --{what.replace('ignored', 'ignore')} {name}, or name another --target.",
            )


def _check_text(frame: pl.DataFrame, flags: DataFlags) -> None:
    roles: dict[str | None, str] = {flags.id: "id", flags.group: "group", flags.time: "time"}
    roles.update(dict.fromkeys(flags.ignore, "ignore"), **dict.fromkeys(flags.target, "target"))
    for name in flags.text:
        if name not in frame.columns:
            raise unknown("column", name, frame.columns, "--text names a column of the data.")
        if name in roles:
            raise LeptonError(
                f"Column '{name}' is named by --text and by --{roles[name]}; it can be one of them.",
                f"Leave out --text {name} or --{roles[name]} {name}.",
            )
        if kind_of(frame.schema[name]) != "string":
            raise LeptonError(
                f"--text {name}: the column is of type {frame.schema[name]}; text is wanted.",
                f"Leave out --text {name}.",
            )
        lengths = frame[name].str.len_chars()
        if (lengths > MAX_TEXT).any():
            row = int(lengths.arg_max() or 0)
            raise LeptonError(
                f"Column '{name}' has a text of {lengths[row]:,} characters in row {row}; {MAX_TEXT:,} are the most.",
                "Cut it: a model reads the beginning only (train --max-tokens).",
            )


def check_personal(frame: pl.DataFrame, flags: DataFlags, *, is_tensor: bool) -> None:
    """Refuse --personal of what is not there, or of a target: predictions are of it, and are logged.

    Raises
    ------
    LeptonError
        With the known columns.
    """
    known = [name for name in (*frame.columns, *([TENSOR] if is_tensor else [])) if name not in flags.target]
    for name in flags.personal:
        if name in flags.target:
            raise LeptonError(
                f"Column '{name}' is the target: what is predicted is logged, and --personal cannot hide it.",
                f"Leave out --personal {name}.",
            )
        if name not in known:
            raise unknown("column", name, known, "--personal names a column of the data.")


def kind_of(dtype: pl.DataType) -> ColumnKind | None:
    """Return the kind of a polars type; None for one that cannot be a feature."""
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "number"
    if dtype == pl.Boolean:
        return "boolean"
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return "datetime"
    return "string" if dtype == pl.String else None


def choose_features(frame: pl.DataFrame, flags: DataFlags) -> Features:
    """Decide which columns are features.

    Targets, the id, the group, the time and ignored columns never are; neither are columns without any value, text
    that reads as dates, free text, text of too many different values, and types that no model takes.

    Raises
    ------
    LeptonError
        If a value cannot travel (infinity, our sign for a missing text), or no feature is left.
    """
    kinds: dict[str, ColumnKind] = {}
    dropped: list[str] = []
    findings: list[Finding] = []
    roles = {flags.id: "id", flags.group: "group", flags.time: "time"}
    roles.update(dict.fromkeys(flags.target, "target"), **dict.fromkeys(flags.ignore, "ignored"))
    for name in frame.columns:
        series = frame[name]
        if name in roles:
            dropped.append(name)
            if roles[name] in ("group", "time"):
                text = f"{name} says how the rows are split (--{roles[name]}); it is no feature."
                findings.append(Finding(check="no_feature", column=name, text=text, level="info"))
            continue
        kind = "text" if name in flags.text else kind_of(series.dtype)
        finding = _why_not(series, kind)
        if finding is not None or kind is None:
            dropped.append(name)
            findings += [finding] if finding else []
            continue
        kinds[name] = kind
    _refuse_values(frame.select([*kinds, *flags.target]))
    if not kinds:
        reasons = " ".join(finding.text for finding in findings)
        raise LeptonError(
            f"No feature is left besides the target, id and ignored columns. {reasons}".rstrip(),
            "Give a table with at least one column to learn from.",
        )
    return Features(kinds, tuple(dropped), findings)


def _why_not(series: pl.Series, kind: ColumnKind | None) -> Finding | None:
    name, n = series.name, len(series) - series.null_count()
    if n == 0:
        return _ignored("all_missing", name, f"{name} has no value at all; it is ignored.")
    if kind is None:
        return _ignored("unsupported", name, f"{name} is of type {series.dtype}, which no model takes; it is ignored.")
    if kind != "string":
        return None
    if series.str.contains(DATE_TEXT).sum() >= DATE_SHARE * n:
        return _ignored("date_text", name, f"{name} holds dates as text; it is ignored. Give it a date type to use it.")
    n_unique = series.drop_nulls().n_unique()
    share = n_unique / n
    if n_unique <= MIN_FOR_SHARE or (share <= UNIQUE_SHARE and n_unique <= MAX_CATEGORIES):
        return None
    if _numeric_share(series) >= 0.5:
        odd = series.filter(series.is_not_null() & series.cast(pl.Float64, strict=False).is_null())
        return _ignored(
            "mixed_types",
            name,
            f"{name} holds {n - len(odd)} numbers and {len(odd)} other values, such as "
            f"'{str(odd[0])[:40]}'; it is ignored until these are removed.",
        )
    if _mean_words(series) >= WORDS_OF_PROSE:
        text = f"{name} is free text ({n_unique} different values of {n}); it is ignored. Say --text {name} to use it."
        return _ignored("free_text", name, text)
    if n_unique == n:
        return _ignored(
            "id_like", name, f"{name} differs in every row, like a row's name; it is ignored. Say --id {name} if it is."
        )
    return _ignored("many_values", name, f"{name} has {n_unique} different values in {n} rows; it is ignored.")


def _ignored(check: str, column: str, text: str) -> Finding:
    return Finding(check=check, column=column, text=text, level="warning")


def _numeric_share(series: pl.Series) -> float:
    n = len(series) - series.null_count()
    found = len(series) - series.cast(pl.Float64, strict=False).null_count()
    return found / n if n else 0.0


def _mean_words(series: pl.Series) -> float:
    words = series.drop_nulls().head(2_000).str.count_matches(r"\S+").mean()
    return float(words) if isinstance(words, (int, float)) else 0.0


def _refuse_values(frame: pl.DataFrame) -> None:
    for name, dtype in frame.schema.items():
        series = frame[name]
        bad = series.is_infinite() if dtype.is_float() else series == SENTINEL if dtype == pl.String else None
        if bad is None or not bad.any():
            continue
        row = bad.arg_max()
        what = "infinite" if dtype.is_float() else f"'{SENTINEL}', which stands for a missing value here"
        raise LeptonError(
            f"Column '{name}' is {what} in row {row} ({int(bad.sum())} in all).",
            "Replace the value by a number or a text, or leave it out.",
        )


def describe(frame: pl.DataFrame, kinds: dict[str, ColumnKind], train: pl.Series) -> tuple[Column, ...]:
    """Return the schema's columns: categories and ranges as the training rows (a boolean mask) have them."""
    rows = frame.filter(train)
    columns = []
    for name, kind in kinds.items():
        has_missing = frame[name].null_count() > 0
        if kind == "text":
            columns.append(Column(name=name, kind=kind, has_missing=has_missing))
            continue
        if kind == "string":
            categories = tuple(rows[name].drop_nulls().unique().sort().to_list())
            columns.append(Column(name=name, kind=kind, has_missing=has_missing, categories=categories))
            continue
        numbers = as_numbers(rows[name])
        low, high = numbers.min(), numbers.max()
        columns.append(
            Column(
                name=name,
                kind=kind,
                has_missing=has_missing,
                minimum=float(low) if isinstance(low, float) else None,
                maximum=float(high) if isinstance(high, float) else None,
            )
        )
    return tuple(columns)


def as_numbers(series: pl.Series) -> pl.Series:
    """Return a column as float64: booleans 0/1, dates seconds since 1970 in UTC, null stays null."""
    if series.dtype == pl.Date:
        return series.cast(pl.Int64).cast(pl.Float64) * 86_400.0
    if isinstance(series.dtype, pl.Datetime):
        unit = {"ms": 1e3, "us": 1e6, "ns": 1e9}[series.dtype.time_unit]
        return series.to_physical().cast(pl.Float64) / unit
    return series.cast(pl.Float64)


def _shown(texts: pl.Series) -> str:
    """Return the beginning of a text of middle length."""
    order = pl.DataFrame({"n": texts.str.len_chars(), "text": texts}).sort("n", "text")
    return str(order["text"][len(order) // 2])[:EXAMPLE_CHARS]


def example_row(frame: pl.DataFrame, kinds: dict[str, ColumnKind]) -> dict[str, str | float | int | bool | None]:
    """Return one real-looking row: medians and most frequent values."""
    row: dict[str, str | float | int | bool | None] = {}
    for name, kind in kinds.items():
        series = frame[name].drop_nulls()
        if len(series) == 0:
            row[name] = None
        elif kind == "text":
            row[name] = _shown(series)
        elif kind in ("string", "boolean"):
            row[name] = series.value_counts(sort=True).sort(["count", name], descending=[True, False])[name][0]
        elif kind == "datetime":
            middle = series.sort()[len(series) // 2]
            row[name] = middle.isoformat()
        else:
            median = float(as_numbers(series).median() or 0.0)  # type: ignore[arg-type]
            row[name] = round(median) if kind == "integer" else float(f"{median:.6g}")
    return row
