"""Rows are packed strictly, and every fault is named by row and column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton_jupyter.formats.packing import (
    FEW,
    MAX_FAULTS,
    Packed,
    PackingError,
    check_packed,
    column_ids,
    pack_columns,
    pack_rows,
    pack_tensor,
    row_ids,
)
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema

SCHEMA = Schema(
    columns=(
        Column(name="age", kind="number"),
        Column(name="island", kind="string", categories=("Biscoe", "Dream")),
        Column(name="children", kind="integer"),
        Column(name="smokes", kind="boolean"),
        Column(name="seen_at", kind="datetime"),
    ),
    targets=("sick",),
    task="binary",
    classes=("no", "yes"),
    id_column="patient",
    dropped=("remark",),
)
ROW: dict[str, Any] = {"age": 41.5, "island": "Dream", "children": 2, "smokes": True, "seen_at": "2024-02-29"}
MANY = FEW + 3  # both ways of reading a column are tested


def faults_of(rows: list[Any]) -> list[str]:
    with pytest.raises(PackingError) as caught:
        pack_rows(SCHEMA, rows)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("n_rows", [1, MANY])
def test_every_kind_travels_in_the_order_of_the_schema(n_rows: int) -> None:
    packed = pack_rows(SCHEMA, [dict(reversed(ROW.items()))] * n_rows)
    assert packed.num.dtype == np.float64 and packed.num.shape == (n_rows, 4)
    assert packed.num.tolist() == [[41.5, 2.0, 1.0, 1709164800.0]] * n_rows
    assert packed.txt.tolist() == [["Dream"]] * n_rows


@pytest.mark.parametrize("n_rows", [1, MANY])
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_null_and_nan_are_missing_values_in_every_column(missing: Any, n_rows: int) -> None:
    packed = pack_rows(SCHEMA, [dict.fromkeys(ROW, missing)] * n_rows)
    assert np.isnan(packed.num).all()
    assert (packed.txt == SENTINEL).all()


def test_columns_and_rows_pack_alike() -> None:
    rows = [ROW, {**ROW, "age": None, "island": None}, {**ROW, "seen_at": 1709164800.5}]
    by_rows = pack_rows(SCHEMA, rows)
    by_columns = pack_columns(SCHEMA, {name: [row[name] for row in rows] for name in ROW})
    np.testing.assert_array_equal(by_rows.num, by_columns.num)
    assert by_rows.txt.tolist() == by_columns.txt.tolist()
    arrays = pack_columns(SCHEMA, {**{name: [ROW[name]] * 2 for name in ROW}, "children": np.array([1, 2])})
    assert arrays.num[:, 1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("n_rows", [1, MANY])
@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("age", "41", "'41' (text) is given; a number is wanted"),
        ("age", True, "true (boolean) is given; a number is wanted"),
        ("age", float("inf"), "inf (number) is infinite"),
        ("age", 10**400, "is too large"),
        ("age", [1], "a list is given; a number is wanted"),
        ("children", 1.5, "1.5 (number) has a fraction; a whole number is wanted"),
        ("children", False, "false (boolean) is given; a whole number is wanted"),
        ("smokes", 2, "2 (number) is given; true, false, 0 or 1 is wanted"),
        ("smokes", "true", "'true' (text) is given"),
        ("seen_at", "yesterday", "'yesterday' (text) is no date; ISO 8601 text"),
        ("island", 7, "7 (number) is given; text is wanted"),
        ("island", SENTINEL, "is reserved for missing values; send null"),
        ("island", "\ud800", "is not valid Unicode"),
    ],
)
def test_a_value_of_another_kind_is_named_by_row_and_column(column: str, value: Any, said: str, n_rows: int) -> None:
    rows = [*[ROW] * (n_rows - 1), {**ROW, column: value}]
    (fault,) = faults_of(rows)
    assert fault.startswith(f"row {n_rows - 1}, column '{column}': ")
    assert said in fault


def test_naive_and_zoned_times_are_the_same_moment_in_utc() -> None:
    texts = ["2024-02-29T12:00:00", "2024-02-29T12:00:00Z", "2024-02-29T14:00:00+02:00"]
    packed = pack_rows(SCHEMA, [{**ROW, "seen_at": text} for text in texts])
    assert set(packed.num[:, 3]) == {1709208000.0}


def test_missing_and_unknown_columns_are_refused_by_name() -> None:
    short = {name: value for name, value in ROW.items() if name != "age"}
    assert faults_of([short, short]) == ["column 'age': the column is missing"]
    assert faults_of([ROW, short]) == ["row 1, column 'age': the column is missing"]
    assert faults_of([{**ROW, "islnd": "Dream"}]) == [
        "row 0, column 'islnd': the model knows no such column. Did you mean 'island'?"
    ]
    assert faults_of([3]) == ["row 0: 3 (number) is given; a row is an object of columns"]


def test_target_id_and_ignored_columns_are_passed_over() -> None:
    extra = {**ROW, "sick": "yes", "patient": "p1", "remark": {"any": "thing"}}
    assert pack_rows(SCHEMA, [extra]).num.tolist() == pack_rows(SCHEMA, [ROW]).num.tolist()
    assert row_ids(SCHEMA, [extra, ROW]) == ["p1", None]
    assert row_ids(SCHEMA, [ROW]) is None
    assert column_ids(SCHEMA, {"patient": ["p1", "p2"]}) == ["p1", "p2"]
    with pytest.raises(PackingError, match="an id is text or a number"):
        row_ids(SCHEMA, [{"patient": {}}])


def test_columns_of_unequal_length_are_refused() -> None:
    columns: dict[str, Any] = {name: [value] * 2 for name, value in ROW.items()}
    with pytest.raises(PackingError, match="Column 'age': 1 values are given; other columns have 2"):
        pack_columns(SCHEMA, {**columns, "age": [1]})
    with pytest.raises(PackingError, match="Column 'island': 'Dream' \\(text\\) is given; a column is a list"):
        pack_columns(SCHEMA, {**columns, "island": "Dream"})
    with pytest.raises(PackingError, match="Column 'age': the column is missing"):
        pack_columns(SCHEMA, {})


def test_the_message_says_how_many_faults_there_are_and_lists_the_columns() -> None:
    with pytest.raises(PackingError) as caught:
        pack_rows(SCHEMA, [{**ROW, "age": "x"}] * 200)
    assert caught.value.message == "Row 0, column 'age': 'x' (text) is given; a number is wanted (and 199 more)"
    assert "age (number), island (string)" in caught.value.hint
    assert len(caught.value.faults) == MAX_FAULTS


def test_no_rows_are_no_fault() -> None:
    packed = pack_rows(SCHEMA, [])
    assert packed.num.shape == (0, 4) and packed.txt.shape == (0, 1)


def test_rows_packed_elsewhere_are_held_to_the_same_rules() -> None:
    good = pack_rows(SCHEMA, [ROW] * MANY)
    check_packed(SCHEMA, good)
    bad = Packed(good.num.copy(), good.txt)
    bad.num[4, 1], bad.num[5, 2] = 0.5, 3
    with pytest.raises(PackingError) as caught:
        check_packed(SCHEMA, bad)
    assert [(fault.row, fault.column) for fault in caught.value.faults] == [(4, "children"), (5, "smokes")]


def test_a_tensor_has_the_shape_of_the_schema() -> None:
    schema = Schema(columns=(), tensor_shape=(2, 2))
    assert pack_tensor(schema, [[1, 2], [3, 4]]).shape == (1, 2, 2)
    assert pack_tensor(schema, [[[1, 2], [3, 4.5]]] * 3).dtype == np.float32
    assert pack_tensor(schema, []).shape == (0, 2, 2)
    wrong = [
        ([[1, 2, 3]], "shape"),
        ([[1], [2, 3]], "unequal"),
        ([["a", "b"]] * 2, "not a number"),
        ([[1e39] * 2] * 2, "large"),
    ]
    for rows, said in wrong:
        with pytest.raises(PackingError, match=said):
            pack_tensor(schema, rows)
