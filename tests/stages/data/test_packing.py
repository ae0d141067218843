"""Packing tables: the rules of the endpoint, at the speed of columns."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest

from lepton_jupyter.formats.packing import PackingError, pack_columns
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.stages.data.packing import pack_frame

SCHEMA = Schema(
    columns=(
        Column(name="x", kind="number"),
        Column(name="k", kind="integer"),
        Column(name="f", kind="boolean"),
        Column(name="at", kind="datetime"),
        Column(name="s", kind="string"),
    ),
    targets=("y",),
    dropped=("y", "note"),
    id_column="id",
)
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
ROWS: dict[str, list[Any]] = {
    "x": [1.5, None, 3.0],
    "k": [1, 2, None],
    "f": [True, None, False],
    "at": [NOON, None, NOON],
    "s": ["u", None, ""],
}


def test_a_table_packs_like_its_columns() -> None:
    frame = pl.DataFrame({**ROWS, "y": ["p"] * 3, "id": [1, 2, 3]})
    ours, theirs = pack_frame(SCHEMA, frame.select(reversed(frame.columns))), pack_columns(SCHEMA, ROWS)
    np.testing.assert_array_equal(ours.num, theirs.num)
    assert ours.txt.tolist() == theirs.txt.tolist() == [["u"], [SENTINEL], [""]]


@pytest.mark.parametrize(
    ("column", "values", "dtype"),
    [
        ("x", [1, 2, 3], pl.Int32),
        ("k", [1.0, 2.0, float("nan")], pl.Float32),
        ("f", [0, 1, None], pl.Int8),
        ("f", [0.0, 1.0, None], pl.Float64),
        ("at", [dt.date(2026, 1, 1)] * 3, pl.Date),
        ("at", [NOON.timestamp()] * 3, pl.Float64),
        ("at", ["2026-01-01T12:00:00", None, "2026-01-01"], pl.String),
        ("s", ["u", "v", None], pl.Categorical),
        ("s", [None, None, None], pl.Null),
        ("x", [None, None, None], pl.String),
    ],
)
def test_what_fits_is_taken(
    column: str,
    values: list[Any],
    dtype: Any,
) -> None:
    frame = pl.DataFrame(ROWS).with_columns(pl.Series(column, values, dtype=dtype))
    assert pack_frame(SCHEMA, frame).num.shape == (3, 4)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("x", ["1", "2", "3"], "Row 0, column 'x': '1' (text) is given; a number is wanted (and 2 more)"),
        ("x", [1.0, float("inf"), 2.0], "Row 1, column 'x'"),
        ("x", [True, False, True], "Row 0, column 'x': true (boolean)"),
        ("x", [NOON, NOON, NOON], "Row 0, column 'x'"),
        ("k", [1.0, 2.5, 3.0], "Row 1, column 'k': 2.5 (number) has a fraction"),
        ("f", [0, 1, 2], "Row 2, column 'f'"),
        ("at", ["noon", None, None], "Row 0, column 'at': 'noon' (text) is no date"),
        ("s", [1, 2, 3], "Row 0, column 's': 1 (number) is given; text is wanted"),
        ("s", ["u", SENTINEL, "v"], "Row 1, column 's'"),
        ("z", [1, 2, 3], "Column 'z': the model knows no such column"),
    ],
)
def test_what_does_not_fit_is_refused_by_row_and_column(column: str, values: list[Any], said: str) -> None:
    with pytest.raises(PackingError) as error:
        pack_frame(SCHEMA, pl.DataFrame(ROWS).with_columns(pl.Series(column, values)))
    assert said in error.value.message
    assert error.value.faults


def test_a_missing_column_is_named() -> None:
    with pytest.raises(PackingError, match="Column 'k': the column is missing"):
        pack_frame(SCHEMA, pl.DataFrame(ROWS).drop("k"))
