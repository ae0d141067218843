"""A polars table to the graph's packed inputs: the rules of `formats.packing`, at the speed of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lepton_jupyter.formats.packing import Packed, dropped_columns, pack_columns
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.stages.data.columns import as_numbers


def pack_frame(schema: Schema, frame: pl.DataFrame) -> Packed:
    """Pack a table.

    Parameters
    ----------
    schema : Schema
    frame : polars.DataFrame
        Every feature column; null or NaN is a missing value. Target, id and ignored columns are passed over. A column
        without any value fits every kind.

    Returns
    -------
    Packed
        ``num`` float64 [N, k] with NaN, ``txt`` object [N, m] of str with `SENTINEL`.

    Raises
    ------
    PackingError
        As `formats.packing.pack_columns`, with row and column.
    """
    wanted = {column.name for column in schema.columns}
    if not wanted <= set(frame.columns) or not set(frame.columns) <= wanted | dropped_columns(schema):
        return pack_columns(schema, _lists(schema, frame))
    num = np.empty((frame.height, len(schema.num)), np.float64)
    txt = np.empty((frame.height, len(schema.txt)), object)
    for place, column in enumerate(schema.num):
        numbers = _numbers(column, frame[column.name])
        if numbers is None:
            return pack_columns(schema, _lists(schema, frame))
        num[:, place] = numbers.fill_null(np.nan).to_numpy()
    for place, column in enumerate(schema.txt):
        texts = _texts(frame[column.name])
        if texts is None:
            return pack_columns(schema, _lists(schema, frame))
        txt[:, place] = texts.to_numpy()
    return Packed(num, txt)


def _lists(schema: Schema, frame: pl.DataFrame) -> dict[str, list[Any]]:
    """Return the columns as lists: the slow way, which names every fault."""
    dropped = dropped_columns(schema)
    return {
        name: [] if name in dropped else _plain(frame[name]).to_list() for name in frame.columns if name not in dropped
    }


def _plain(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, (pl.Categorical, pl.Enum)):
        return series.cast(pl.String)
    return series.cast(pl.Float64) if series.dtype.is_decimal() else series


def _numbers(column: Column, series: pl.Series) -> pl.Series | None:
    """Return a column as float64 where its type and values are right beyond doubt, else None."""
    if series.null_count() == len(series):
        return pl.Series(column.name, [None] * len(series), dtype=pl.Float64)
    dtype = series.dtype
    is_date = dtype == pl.Date or isinstance(dtype, pl.Datetime)
    if is_date:
        return as_numbers(series) if column.kind == "datetime" else None
    if dtype == pl.Boolean:
        return as_numbers(series) if column.kind == "boolean" else None
    if not (dtype.is_integer() or dtype.is_float()):
        return None
    numbers = series.cast(pl.Float64).fill_nan(None)
    if numbers.is_infinite().any():
        return None
    if column.kind == "integer" and not dtype.is_integer() and not (numbers == numbers.floor()).all():
        return None
    if column.kind == "boolean" and not numbers.is_in([0.0, 1.0], nulls_equal=False).fill_null(value=True).all():
        return None
    return numbers


def _texts(series: pl.Series) -> pl.Series | None:
    """Return a column of text with `SENTINEL` for null, None where it is of another type or holds the sentinel."""
    if series.null_count() == len(series):
        return pl.Series(series.name, [SENTINEL] * len(series), dtype=pl.String)
    texts = _plain(series)
    if texts.dtype != pl.String or (texts == SENTINEL).any():
        return None
    return texts.fill_null(SENTINEL)
