"""Raw rows to the graph's packed inputs: strict, with every fault named by row and column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from lepton_jupyter.core.errors import MAX_LISTED, LeptonError, did_you_mean
from lepton_jupyter.formats.schema import SENTINEL, Column, ColumnKind, Schema
from lepton_jupyter.formats.values import MAX_TEXT, NUMBERS, RefusedError, describe, read_prose, read_text

MAX_FAULTS = 50
FEW = 8  # rows up to which reading value by value beats whole columns (30 columns: 40 µs against 130 µs)

_ABSENT = object()  # a row without the key; null is a missing value and allowed, a column left out is not
_SIMPLE: dict[ColumnKind, frozenset[type]] = {
    "number": frozenset({int, float, type(None)}),
    "integer": frozenset({int, float, type(None)}),
    "boolean": frozenset({bool, int, float, type(None)}),
    "datetime": frozenset({int, float, type(None)}),
    "string": frozenset({str, type(None)}),
    "text": frozenset({str, type(None)}),
}


class Packed(NamedTuple):
    """N rows as the graph takes them.

    Attributes
    ----------
    num : NDArray
        float64 [N, k], missing values as NaN, columns in the order of ``schema.num``.
    txt : NDArray
        object [N, m] of str, missing values as `SENTINEL`, columns in the order of ``schema.txt``.
    """

    num: NDArray[np.float64]
    txt: NDArray[np.object_]

    @property
    def n_rows(self) -> int:
        """N."""
        return self.num.shape[0]


def count_rows(rows: Packed | NDArray[Any]) -> int:
    """Return how many rows these are, packed or a tensor [N, …]."""
    return rows.n_rows if isinstance(rows, Packed) else rows.shape[0]


class RowFault(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with a table.

    Attributes
    ----------
    row : int or None
        Counted from 0; None where it concerns all rows.
    column : str or None
    message : str
        Without the place.
    """

    row: int | None
    column: str | None
    message: str

    def __str__(self) -> str:
        places = (
            f"row {self.row}" if self.row is not None else "",
            f"column '{self.column}'" if self.column is not None else "",
        )
        place = ", ".join(part for part in places if part)
        return f"{place}: {self.message}" if place else self.message


class PackingError(LeptonError):
    """Rows that do not fit the schema.

    Attributes
    ----------
    faults : list of RowFault
        The first `MAX_FAULTS` of them.
    """

    def __init__(self, faults: list[RowFault], *, n_faults: int | None = None, hint: str = "") -> None:
        self.faults = faults
        more = (n_faults or len(faults)) - 1
        message = str(faults[0])
        super().__init__(f"{message[0].upper()}{message[1:]}{f' (and {more} more)' if more else ''}", hint)


class _Faults:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.found: list[RowFault] = []
        self.n_found = 0

    def add(self, row: int | None, column: str | None, message: str) -> None:
        self.n_found += 1
        if len(self.found) < MAX_FAULTS:
            self.found.append(RowFault(row, column, message))

    def add_unknown(self, row: int | None, names: set[Any]) -> None:
        known = [column.name for column in self.schema.columns]
        for name in sorted(map(str, names)):
            guess = did_you_mean(name, known)
            self.add(row, name, f"the model knows no such column.{guess}")

    def check(self) -> None:
        if self.found:
            raise PackingError(self.found, n_faults=self.n_found, hint=describe_columns(self.schema))


def describe_columns(schema: Schema) -> str:
    """Return one line that names the columns a request must bring, with their kinds."""
    if schema.image is not None:
        return "Each row is an object with 'image': a JPEG or PNG file in base64."
    if schema.tensor_shape is not None:
        return f"Each row is an array of shape {list(schema.tensor_shape)}."
    names = [f"{column.name} ({column.kind})" for column in schema.columns]
    listed = ", ".join(names[:MAX_LISTED]) + (f" … ({len(names)} in all)" if len(names) > MAX_LISTED else "")
    return f"Columns: {listed}; null where a value is missing."


def dropped_columns(schema: Schema) -> frozenset[str]:
    """Return the columns that rows may bring and that are not used: target, id, ignored."""
    return frozenset((*schema.dropped, *schema.targets, *((schema.id_column,) if schema.id_column else ())))


def pack_rows(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> Packed:
    """Pack rows given as objects.

    Parameters
    ----------
    schema : Schema
    rows : sequence of mappings
        Every feature column in every row; None or NaN is a missing value. `dropped_columns` are passed over.

    Raises
    ------
    PackingError
        If a column is unknown or missing, or a value is of another kind.
    """
    faults = _Faults(schema)
    known = {column.name for column in schema.columns} | dropped_columns(schema)
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            faults.add(index, None, f"{describe(row)} is given; a row is an object of columns")
        elif not row.keys() <= known:
            faults.add_unknown(index, row.keys() - known)
    faults.check()
    values = {column.name: [row.get(column.name, _ABSENT) for row in rows] for column in schema.columns}
    for name, column_values in values.items():
        _check_absent(name, column_values, faults)
    faults.check()
    return _pack(schema, values, len(rows), faults)


def pack_columns(schema: Schema, columns: Mapping[str, Sequence[Any]]) -> Packed:
    """Pack rows given as columns of equal length.

    Parameters
    ----------
    schema : Schema
    columns : mapping of str to sequence
        Lists, tuples or one-dimensional arrays. Rules as in `pack_rows`.

    Raises
    ------
    PackingError
        If a column is unknown, missing or of another length, or a value is of another kind.
    """
    faults = _Faults(schema)
    dropped = dropped_columns(schema)
    faults.add_unknown(None, columns.keys() - {column.name for column in schema.columns} - dropped)
    for column in schema.columns:
        if column.name not in columns:
            faults.add(None, column.name, "the column is missing")
    values: dict[str, list[Any]] = {}
    for name, given in columns.items():
        if isinstance(given, np.ndarray):
            values[name] = given.tolist()
        elif isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
            values[name] = list(given)
        elif name not in dropped:
            faults.add(None, name, f"{describe(given)} is given; a column is a list")
    faults.check()
    n_rows = max((len(column_values) for column_values in values.values()), default=0)
    for name, column_values in values.items():
        if len(column_values) != n_rows:
            faults.add(None, name, f"{len(column_values)} values are given; other columns have {n_rows}")
    faults.check()
    return _pack(schema, values, n_rows, faults)


def pack_tensor(schema: Schema, rows: Any) -> NDArray[Any]:
    """Pack nested lists of numbers for a model of tensors; one row alone is taken too.

    Returns
    -------
    NDArray
        float32 [N, \\*schema.tensor_shape]; uint8 for a model of images.

    Raises
    ------
    PackingError
        If the nesting is not that shape, or a value is not a finite number (of images: a whole one, 0 to 255).
    """
    shape = schema.tensor_shape or ()
    try:
        array = np.array(rows)
    except ValueError as error:
        raise PackingError(
            [RowFault(None, None, "the lists are of unequal length")], hint=describe_columns(schema)
        ) from error
    if array.size == 0 and array.ndim == 1:
        return np.zeros((0, *shape), np.float32)
    if array.dtype.kind not in "iuf":
        raise PackingError([RowFault(None, None, "a value is not a number")], hint=describe_columns(schema))
    if array.shape == shape:
        array = array[None]
    if array.shape[1:] != shape:
        message = f"an array of shape {list(array.shape)} is given; [N, {', '.join(map(str, shape))}] is wanted"
        raise PackingError([RowFault(None, None, message)], hint=describe_columns(schema))
    if schema.image is not None:
        return _as_pixels(schema, array)
    with np.errstate(over="ignore"):
        packed = array.astype(np.float32)
    if np.isinf(packed).any():
        row = int(np.argwhere(np.isinf(packed))[0][0])
        raise PackingError([RowFault(row, None, "a value is infinite or too large")], hint=describe_columns(schema))
    return packed


def _as_pixels(schema: Schema, array: NDArray[Any]) -> NDArray[np.uint8]:
    is_right = (array >= 0) & (array <= 255) & (array == np.floor(array))
    if not is_right.all():
        row = int(np.argwhere(~is_right)[0][0])
        raise PackingError(
            [RowFault(row, None, "a pixel is no whole number from 0 to 255")], hint=describe_columns(schema)
        )
    return array.astype(np.uint8)


def check_packed(schema: Schema, packed: Packed) -> None:
    """Hold rows that were packed elsewhere to the rules of `pack_rows`.

    Raises
    ------
    PackingError
        If a value is infinite, a whole number has a fraction, a boolean is neither 0 nor 1, or a text is too long.
    """
    kinds = [column.kind for column in schema.num]
    are_short = not schema.prose or max(map(len, packed.txt.ravel().tolist()), default=0) <= MAX_TEXT
    if are_short and all(_are_allowed(kind, packed.num[:, [each == kind for each in kinds]]) for kind in set(kinds)):
        return
    faults = _Faults(schema)
    for place, column in enumerate(schema.num):
        _fill_numbers(column, packed.num[:, place], packed.num[:, place].tolist(), faults)
    for place, column in enumerate(schema.txt):
        if column.kind == "text":
            values = [None if text == SENTINEL else text for text in packed.txt[:, place].tolist()]
            _fill_texts(column, packed.txt[:, place], values, faults)
    faults.check()


def row_ids(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> list[Any] | None:
    """Return what the id column holds in each row (None where a row has none); None where no row has it."""
    name = schema.id_column
    if name is None or not any(name in row for row in rows):
        return None
    return _checked_ids(schema, [row.get(name) for row in rows])


def column_ids(schema: Schema, columns: Mapping[str, Sequence[Any]]) -> list[Any] | None:
    """Return the id column of a table of columns; None where it is not there."""
    given = columns.get(schema.id_column) if schema.id_column is not None else None
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, np.ndarray)):
        raise PackingError([RowFault(None, schema.id_column, f"{describe(given)} is given; a column is a list")])
    return _checked_ids(schema, given.tolist() if isinstance(given, np.ndarray) else list(given))


def _checked_ids(schema: Schema, ids: list[Any]) -> list[Any]:
    for row, value in enumerate(ids):
        if isinstance(value, (dict, list)):
            raise PackingError(
                [RowFault(row, schema.id_column, f"{describe(value)} is given; an id is text or a number")]
            )
    return ids


def _check_absent(name: str, values: list[Any], faults: _Faults) -> None:
    if _ABSENT not in values:
        return
    absent = [row for row, value in enumerate(values) if value is _ABSENT]
    if len(absent) == len(values):
        faults.add(None, name, "the column is missing")
        return
    for row in absent:
        faults.add(row, name, "the column is missing")


def _pack(schema: Schema, values: Mapping[str, list[Any]], n_rows: int, faults: _Faults) -> Packed:
    numbers, texts = schema.num, schema.txt
    num = np.empty((n_rows, len(numbers)), np.float64)
    txt = np.empty((n_rows, len(texts)), object)
    for place, column in enumerate(numbers):
        _fill_numbers(column, num[:, place], values[column.name], faults)
    for place, column in enumerate(texts):
        _fill_texts(column, txt[:, place], values[column.name], faults)
    faults.check()
    return Packed(num, txt)


def _fill_numbers(column: Column, out: NDArray[np.float64], values: list[Any], faults: _Faults) -> None:
    if len(values) > FEW and set(map(type, values)) <= _SIMPLE[column.kind]:
        try:
            out[:] = [math.nan if value is None else value for value in values]
        except OverflowError:  # an integer beyond float64: named below
            pass
        else:
            if _are_allowed(column.kind, out):
                return
    read = NUMBERS[column.kind]
    for row, value in enumerate(values):
        try:
            out[row] = read(value.item() if isinstance(value, np.generic) else value)
        except RefusedError as error:
            faults.add(row, column.name, str(error))


def _are_allowed(kind: ColumnKind, array: NDArray[np.float64]) -> bool:
    if np.isinf(array).any():
        return False
    present = array[~np.isnan(array)]
    if kind == "integer":
        return bool((present == np.floor(present)).all())
    if kind == "boolean":
        return bool(((present == 0) | (present == 1)).all())
    return True


def _fill_texts(column: Column, out: NDArray[np.object_], values: list[Any], faults: _Faults) -> None:
    if len(values) > FEW and set(map(type, values)) <= _SIMPLE["string"] and SENTINEL not in values:
        texts = [SENTINEL if value is None else value for value in values]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:  # a lone surrogate, which the runtime cannot take: named below
            pass
        else:
            if column.kind != "text" or max(map(len, texts)) <= MAX_TEXT:
                out[:] = texts
                return
    read = read_prose if column.kind == "text" else read_text
    for row, value in enumerate(values):
        try:
            out[row] = read(value)
        except RefusedError as error:
            faults.add(row, column.name, str(error))
