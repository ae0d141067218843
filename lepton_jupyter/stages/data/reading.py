"""Tables from files and from a notebook's variables."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.schema import Schema

MISSING_WORDS = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "null", "NULL", "<NA>")
SEPARATORS = (",", ";", "\t", "|")
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".jsonl", ".ndjson")
POLARS_ERRORS = (pl.exceptions.PolarsError, OSError, ValueError)


def read_table(path: str | Path, *, schema: Schema | None = None) -> pl.DataFrame:
    """Read a table: CSV, Parquet, Arrow/Feather or JSON lines, told by the file's name.

    Parameters
    ----------
    path : str or Path
        Relative to the working folder.
    schema : Schema, optional
        Of a model: its text columns are then read as text even where every value of this file looks like a number.

    Returns
    -------
    polars.DataFrame
        Missing values are null; ``NA``, ``NaN``, ``null`` and the like in a CSV count as missing.

    Raises
    ------
    LeptonError
        If the file is missing, empty, malformed or of an unknown kind; the message names it.
    """
    file = Path(path).expanduser()
    if not file.exists():
        near = sorted(other.name for other in file.parent.glob("*") if other.suffix.lower() in SUFFIXES)
        listed = f" Tables there: {', '.join(near[:12])}." if near else ""
        raise LeptonError(
            f"No file '{path}' in '{file.parent.absolute()}'.{listed}", "Check the path.", code="not_found"
        )
    if file.is_dir():
        raise LeptonError(f"'{path}' is a folder.", f"Name its files by a pattern, such as '{path}/*.parquet'.")
    if file.stat().st_size == 0:
        raise LeptonError(f"'{path}' is empty.", "Write the table again, or name another file.")
    read = _reader(file)
    try:
        frame = read(file, schema)
    except POLARS_ERRORS as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise LeptonError(
            f"'{path}' cannot be read as {file.suffix.lstrip('.') or 'CSV'}: {reason}.",
            "Repair the file, or name another one.",
        ) from error
    _check_names(frame, f"'{path}'")
    if frame.height == 0:
        raise LeptonError(f"'{path}' has column names and no row.", "Write the table again, or name another file.")
    return _clean(frame)


def read_source(source: str) -> pl.DataFrame:
    """Read the file, or all files of a glob in the order of their names, as one table of at least two columns.

    Raises
    ------
    LeptonError
        If nothing matches, the files' columns differ, or there is only one column.
    """
    if not any(sign in source for sign in "*?[") or Path(source).exists():
        frame = read_table(source)
        paths = [source]
    else:
        paths = sorted(glob.glob(str(Path(source).expanduser()), recursive=True))  # noqa: PTH207  absolute ones too
        if not paths:
            raise LeptonError(f"No file matches '{source}' in '{Path.cwd()}'.", "Check the pattern.", code="not_found")
        frame = _stack({path: read_table(path) for path in paths})
    if frame.width < 2:
        raise LeptonError(
            f"'{source}' has one column only: '{frame.columns[0]}'. A dataset needs a target and at least one feature.",
            "Separate columns by commas (also read: semicolons, tabs, '|').",
        )
    return frame


def _stack(frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    first_path, first = next(iter(frames.items()))
    for path, frame in frames.items():
        differing = sorted(set(first.columns) ^ set(frame.columns))
        if differing:
            raise LeptonError(
                f"'{first_path}' and '{path}' have different columns: {', '.join(differing[:12])}.",
                "Make their columns equal, or name fewer files.",
            )
    try:
        return pl.concat([frame.select(first.columns) for frame in frames.values()], how="vertical_relaxed")
    except POLARS_ERRORS as error:
        raise LeptonError(
            f"The files' columns have types that do not go together: {' '.join(str(error).split())}.",
            "Make their types equal, or name fewer files.",
        ) from error


def _reader(file: Path) -> Callable[[Path, Schema | None], pl.DataFrame]:
    suffix = file.suffix.lower()
    if suffix in ("", ".csv", ".tsv", ".txt"):
        return _read_csv
    if suffix in (".parquet", ".pq"):
        return lambda path, _: pl.read_parquet(path)
    if suffix in (".arrow", ".feather", ".ipc"):
        return lambda path, _: pl.read_ipc(path)
    if suffix in (".jsonl", ".ndjson"):
        return lambda path, _: pl.read_ndjson(path, infer_schema_length=None)
    raise LeptonError(f"'{file.name}' is of an unknown kind. Known: {', '.join(SUFFIXES)}.", "Convert the file.")


def _read_csv(file: Path, schema: Schema | None) -> pl.DataFrame:
    with file.open("rb") as stream:
        start = stream.read(65_536)
    if b"\x00" in start:
        raise ValueError("it holds binary data")
    header = start.decode("utf-8-sig", "replace").lstrip("\n").split("\n", 1)[0].rstrip("\r")
    separator = max(SEPARATORS, key=lambda sign: (header.count(sign), sign == ","))
    names = [name.strip().strip('"') for name in header.split(separator)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated and '"' not in header:
        raise ValueError(f"the column name '{repeated[0]}' comes twice")
    text = {column.name: pl.String for column in schema.txt if column.name in names} if schema else {}
    return pl.read_csv(
        file,
        separator=separator,
        infer_schema_length=None,  # a type guessed from the first rows breaks on the first odd one
        null_values=list(MISSING_WORDS),
        schema_overrides=text,
        encoding="utf8",
        glob=False,
    )


def frame_of(value: Any, *, target: str = "y") -> pl.DataFrame:
    """Return a notebook's variable as a table.

    Parameters
    ----------
    value : object
        polars or pandas DataFrame, Arrow table, dict of columns, list of dicts, numpy array or torch tensor
        (columns ``x0``, ``x1`` …), or a tuple (x, y) of these (target ``y``, or ``y0`` … for several).
    target : str
        Name of the target of a tuple.

    Raises
    ------
    LeptonError
        If the value is none of these, or the lengths of x and y differ.
    """
    if isinstance(value, tuple):
        return _frame_of_pair(value, target)
    frame = _frame(value, "x")
    _check_names(frame, "The table")
    if frame.height == 0:
        raise LeptonError("The table has no row.", "Give a table with rows.")
    return _clean(frame)


def _frame_of_pair(value: tuple[Any, ...], target: str) -> pl.DataFrame:
    if len(value) != 2:
        raise LeptonError(f"A tuple of {len(value)} cannot be data; (x, y) is wanted.", "Give data=(x, y).")
    x, y = _frame(value[0], "x"), _frame(value[1], target)
    if x.height != y.height:
        raise LeptonError(f"x has {x.height} rows and y has {y.height}.", "Give x and y of equal length.")
    if y.width == 1 and y.columns[0] in (f"{target}0", *x.columns):
        y.columns = [target]
    frame = pl.concat([x, y], how="horizontal") if not set(x.columns) & set(y.columns) else None
    if frame is None:
        raise LeptonError("x and y have a column of the same name.", "Rename one of them.")
    _check_names(frame, "The table")
    if frame.height == 0:
        raise LeptonError("x and y have no row.", "Give arrays with rows.")
    return _clean(frame)


def target_names(value: Any, frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the names of y's columns in a table that `frame_of` made of a tuple (x, y); empty for other values."""
    if not isinstance(value, tuple):
        return ()
    return tuple(frame.columns[_frame(value[0], "x").width :])


def array_of(value: Any) -> NDArray[Any] | None:
    """Return a numpy array or a torch tensor as a numpy array, None for any other value."""
    if isinstance(value, np.ndarray):
        return value
    if type(value).__module__.split(".")[0] == "torch" and hasattr(value, "detach"):
        tensor = value.detach().cpu()
        return np.asarray((tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy())
    return None


def _frame(value: Any, prefix: str) -> pl.DataFrame:
    room = type(value).__module__.split(".")[0]
    if isinstance(value, pl.LazyFrame):
        return value.collect()
    if isinstance(value, pl.DataFrame):
        return value
    if isinstance(value, pl.Series):
        return value.to_frame(value.name or f"{prefix}0")
    if room == "pandas":
        return _from_pandas(value, prefix)
    if room == "pyarrow" and hasattr(value, "column_names"):
        return pl.DataFrame(value)
    array = array_of(value)
    if array is not None:
        return _from_array(array, prefix)
    if isinstance(value, Mapping) or (isinstance(value, list) and value and isinstance(value[0], Mapping)):
        try:
            return pl.DataFrame(value, infer_schema_length=None, strict=False)
        except POLARS_ERRORS as error:
            raise LeptonError(f"This cannot be made a table: {error}.", "Give columns of equal length.") from error
    if isinstance(value, list):
        return _from_array(np.asarray(value), prefix)
    raise LeptonError(
        f"A {type(value).__name__} cannot be data. Known: DataFrame (polars, pandas), arrays, tensors, (x, y), "
        "dict of columns, list of dicts, a path.",
        "Make a DataFrame of it.",
    )


def _from_array(array: NDArray[Any], prefix: str) -> pl.DataFrame:
    if array.ndim == 0 or array.ndim > 2:
        raise LeptonError(f"An array of shape {array.shape} is no table.", "Give an array [rows, columns].")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    columns = array[:, None] if array.ndim == 1 else array
    return pl.DataFrame(
        {
            f"{prefix}{i}": _series(list(columns[:, i])) if array.dtype == object else columns[:, i]
            for i in range(columns.shape[1])
        }
    )


def _from_pandas(value: Any, prefix: str) -> pl.DataFrame:
    if hasattr(value, "to_frame") and not hasattr(value, "columns"):
        value = value.to_frame(value.name if value.name is not None else f"{prefix}0")
    columns: dict[str, pl.Series] = {}
    for i, name in enumerate(value.columns):
        if str(name) in columns:
            raise LeptonError(f"The column name '{name}' comes twice.", "Rename one of them.")
        series = value.iloc[:, i]
        if series.dtype == object:
            missing = series.isna()
            columns[str(name)] = _series([None if gone else v for v, gone in zip(series, missing, strict=True)])
        elif getattr(series.dtype, "tz", None) is not None:
            moments = pl.Series(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
            columns[str(name)] = moments.dt.replace_time_zone("UTC")
        else:
            columns[str(name)] = pl.Series(str(name), pl.from_pandas(series, nan_to_null=True))
    return pl.DataFrame(columns)


def _series(values: list[Any]) -> pl.Series:
    """Return a column of Python objects: as their type where they have one, else as text."""
    if all(value is None or isinstance(value, str) for value in values):
        return pl.Series(values, dtype=pl.String)
    try:
        return pl.Series(values, strict=True)
    except (TypeError, *POLARS_ERRORS):
        return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


def _check_names(frame: pl.DataFrame, what: str) -> None:
    unnamed = [i for i, name in enumerate(frame.columns) if not name.strip()]
    if unnamed:
        raise LeptonError(f"{what}: column {unnamed[0] + 1} of {frame.width} has no name.", "Give each column a name.")


def _clean(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the table with NaN as null, categories as text and decimals as floats."""
    casts = []
    for name, kind in frame.schema.items():
        if kind == pl.Object:
            raise LeptonError(
                f"Column '{name}' holds objects of Python that are no values of a table.",
                "Make numbers, text or dates of them, or leave the column out.",
            )
        if kind.is_float():
            casts.append(pl.col(name).fill_nan(None))
        elif kind.is_decimal():
            casts.append(pl.col(name).cast(pl.Float64))
        elif isinstance(kind, (pl.Categorical, pl.Enum)):
            casts.append(pl.col(name).cast(pl.String))
    return frame.with_columns(casts).rechunk() if casts else frame.rechunk()
