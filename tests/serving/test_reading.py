"""The quick way to read rows says the same as the careful one, or nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from lepton_jupyter.formats.packing import column_ids, pack_columns, pack_rows, row_ids
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.serving.reading import RowReader
from tests.serving.graphs import ROW, SCHEMA_BINARY

WIDE = Schema(
    columns=(
        Column(name="f0", kind="string"),
        Column(name="a number", kind="number"),
        Column(name="whole", kind="integer"),
        Column(name="yes", kind="boolean"),
        Column(name="since", kind="datetime"),
        Column(name="rows", kind="string"),
    ),
    id_column="patient",
    targets=("sick",),
    dropped=("remark", "a"),
)
VALUES: list[Any] = [
    None, 0, 1, -3, 2.0, 2.5, 1e308, 2**53 + 1, 10**30, 10**400, True, False, "x", "", SENTINEL, "2026-01-31",
    "2026-01-31T10:00:00+02:00", [], {}, [1],
]  # fmt: skip


def same(found: Any, rows: Any, ids: Any) -> None:
    np.testing.assert_array_equal(found[0].num, rows.num)
    assert found[0].txt.tolist() == rows.txt.tolist()
    assert found[1] == ids


@pytest.mark.parametrize("schema", [SCHEMA_BINARY, WIDE])
def test_a_body_is_read_as_carefully_or_left_to_the_careful_way(schema: Schema) -> None:
    reader = RowReader(schema)
    draw = np.random.default_rng(0)
    good = {"number": 2.5, "integer": 3, "boolean": True, "datetime": "2026-01-31", "string": "x"}
    n_read = 0
    for _ in range(3000):
        rows = []
        for _ in range(draw.integers(1, 4)):
            row = {column.name: good[column.kind] for column in schema.columns}
            for name in ("patient", "remark", "sick"):
                if draw.random() < 0.3:
                    row[name] = VALUES[draw.integers(len(VALUES))]
            if draw.random() < 0.7:
                row[str(draw.choice([*row, "unknown"]))] = VALUES[draw.integers(len(VALUES))]
            if draw.random() < 0.1:
                row.pop(str(draw.choice(list(row))))
            rows.append(row)
        found = reader.read(json.dumps(rows if draw.random() < 0.5 else {"rows": rows}).encode())
        if found is not None:
            n_read += 1
            same(found, pack_rows(schema, rows), row_ids(schema, rows))
            columns = {name: [row.get(name) for row in rows] for name in rows[0]}
            table = reader.read(json.dumps({"columns": columns}).encode())
            if table is not None:
                same(table, pack_columns(schema, columns), column_ids(schema, columns))
    assert n_read > 500


def test_ordinary_bodies_of_every_form_are_read_the_quick_way() -> None:
    reader = RowReader(SCHEMA_BINARY)
    row = {**ROW, "patient": 7, "remark": {"deep": [1]}}
    for body in (row, [row], {"rows": [row]}, {"columns": {name: [value] for name, value in row.items()}}):
        found = reader.read(json.dumps(body, indent=1).encode())
        assert found is not None
        same(found, pack_rows(SCHEMA_BINARY, [row]), [7])
    assert reader.read(b"[]") is not None


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"rows": [], "more": 1}', b'[{"age": NaN}]'])
def test_what_is_no_table_is_left_to_the_careful_way(body: bytes) -> None:
    assert RowReader(SCHEMA_BINARY).read(body) is None


def test_a_model_of_tensors_is_left_to_the_careful_way() -> None:
    assert RowReader(replace(SCHEMA_BINARY, columns=(), tensor_shape=(2, 2))).read(b"[[[1, 2], [3, 4]]]") is None
