"""Rows of JSON to packed rows, by a decoder that is compiled from the schema: a tenth of the careful way's time."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import Packed, dropped_columns
from lepton_jupyter.formats.schema import SENTINEL, ColumnKind, Schema
from lepton_jupyter.formats.values import MAX_TEXT, RefusedError, read_datetime

Read = tuple[Packed, list[Any] | None]

_TYPES: dict[ColumnKind, Any] = {
    "number": float | None,
    "integer": float | None,
    "boolean": bool | float | None,
    "datetime": float | str | None,
    "string": str | None,
    "text": str | None,
}
_FORM = re.compile(rb'\s*(?:(\[)|\{\s*"(rows|columns)"\s*:)')


class RowReader:
    """Read bodies of ``/predict`` that are as they should be.

    It answers None to all others, and to a model of tensors: `formats.packing` then reads them, and says what is wrong.
    Where it does answer, it answers the same.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._n_num = len(schema.num)
        self._n_columns = len(schema.columns)
        self._doubles = struct.Struct(f"={self._n_num}d")
        columns = (*schema.num, *schema.txt)
        names = [column.name for column in columns]
        extra = sorted(dropped_columns(schema) - set(names), key=lambda name: name != schema.id_column)
        self._has_id = bool(extra) and extra[0] == schema.id_column
        self._whole = [place for place, column in enumerate(schema.num) if column.kind == "integer"]
        self._zero_or_one = [place for place, column in enumerate(schema.num) if column.kind == "boolean"]
        self._has_prose = bool(schema.prose)
        self._dates = [place for place, column in enumerate(schema.num) if column.kind == "datetime"]
        row: Any = _struct("Row", names, [_TYPES[column.kind] for column in columns], extra, Any)
        table: Any = _struct("Table", names, [_list_of(_TYPES[column.kind]) for column in columns], extra, list[Any])
        self._decode_row = msgspec.json.Decoder(row).decode
        self._decode_list = msgspec.json.Decoder(_list_of(row)).decode
        self._decode_rows = msgspec.json.Decoder(_struct("Rows", ["rows"], [_list_of(row)], [], Any)).decode
        self._decode_table = msgspec.json.Decoder(_struct("Columns", ["columns"], [table], [], Any)).decode

    def read(self, body: bytes) -> Read | None:
        """Return packed rows and what the id column holds (None where it is not there); or None."""
        if self.schema.tensor_shape is not None or not self._n_columns:
            return None
        form = _FORM.match(body)
        try:
            if form is None:
                return self._pack([msgspec.structs.astuple(self._decode_row(body))])
            if form[1]:
                return self._pack(list(map(msgspec.structs.astuple, self._decode_list(body))))
            if form[2] == b"rows":
                return self._pack(list(map(msgspec.structs.astuple, self._decode_rows(body).f0)))
            columns = msgspec.structs.astuple(self._decode_table(body).f0)
            given = [column for column in columns if column is not UNSET]
            if len({len(column) for column in given}) != 1:
                return None
            blank = [UNSET] * len(given[0])
            return self._pack(list(zip(*(blank if column is UNSET else column for column in columns), strict=True)))
        except (ValueError, OverflowError, RecursionError):  # msgspec's errors are ValueErrors, so is RefusedError
            return None

    def _pack(self, rows: Sequence[tuple[Any, ...]]) -> Read | None:
        """Pack rows of values: those of `num`, those of `txt`, then the id and others that are passed over."""
        n_num, n_columns = self._n_num, self._n_columns
        if self._dates or self._whole or self._zero_or_one:
            rows = [self._checked(row) for row in rows]
        num = self._numbers(rows)
        txt = np.empty((len(rows), n_columns - n_num), object)
        if n_columns > n_num:
            for place, row in enumerate(rows):
                texts = row[n_num:n_columns]
                if SENTINEL in texts:
                    return None
                if self._has_prose and any(text is not None and len(text) > MAX_TEXT for text in texts):
                    return None
                txt[place] = [SENTINEL if text is None else text for text in texts] if None in texts else texts
        return Packed(num, txt), self._ids(rows)

    def _numbers(self, rows: Sequence[tuple[Any, ...]]) -> NDArray[np.float64]:
        """Return the numbers [N, k] of rows; where none is missing, their bytes are the fastest way."""
        n_num, pack = self._n_num, self._doubles.pack
        try:
            content = b"".join([pack(*row[:n_num]) for row in rows])
        except struct.error:
            return np.array([row[:n_num] for row in rows], np.float64).reshape(len(rows), n_num)
        return np.frombuffer(content, np.float64).reshape(len(rows), n_num)

    def _checked(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        for place in self._whole:
            if row[place] is not None and not row[place].is_integer():
                raise RefusedError
        for place in self._zero_or_one:
            if row[place] not in (None, 0, 1):
                raise RefusedError
        if not self._dates:
            return row
        values = list(row)
        for place in self._dates:
            values[place] = read_datetime(values[place])
        return tuple(values)

    def _ids(self, rows: Sequence[tuple[Any, ...]]) -> list[Any] | None:
        if not self._has_id:
            return None
        ids = [row[self._n_columns] for row in rows]
        if all(value is UNSET for value in ids):
            return None
        if any(isinstance(value, (dict, list)) for value in ids):
            raise RefusedError
        return [None if value is UNSET else value for value in ids]


def _list_of(kind: Any) -> Any:
    return list[kind]


def _struct(
    name: str, needed: Sequence[str], types: Sequence[Any], extra: Sequence[str], extra_type: Any
) -> Callable[..., Any]:
    """Return a struct of fields ``f0``, ``f1`` … that are called otherwise in JSON; unknown names are refused."""
    fields: list[Any] = [(f"f{place}", kind) for place, kind in enumerate(types)]
    fields += [
        (f"f{place}", extra_type | msgspec.UnsetType, UNSET) for place in range(len(needed), len(needed) + len(extra))
    ]
    rename = {f"f{place}": called for place, called in enumerate((*needed, *extra))}
    return msgspec.defstruct(name, fields, rename=rename, forbid_unknown_fields=True)
