"""``POST /invocations``: rows as MLflow's scoring server takes them, and tables of CSV for ``/predict`` too."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from lepton_jupyter.formats.packing import (
    PackingError,
    RowFault,
    column_ids,
    describe_columns,
    pack_columns,
    pack_rows,
    pack_tensor,
    row_ids,
)
from lepton_jupyter.formats.schema import ColumnKind, Schema
from lepton_jupyter.formats.values import describe
from lepton_jupyter.serving import pictures
from lepton_jupyter.serving.answers import check_count, decode_error, refused, unfit
from lepton_jupyter.serving.predict import Asked, asked_of, write_rows
from lepton_jupyter.serving.release import Release

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_BESIDE = ("params",)  # of MLflow's; no model of ours has any
_TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

_decode = msgspec.json.Decoder().decode


def read(release: Release, body: bytes) -> Asked:
    """Read a body of JSON.

    Raises
    ------
    HttpError
        400 for broken JSON, 413 for too many rows, 422 for rows that do not fit the schema.
    """
    try:
        document = _decode(body)
    except (ValueError, RecursionError) as error:
        if b"NaN" not in body:
            raise decode_error(error, body) from error
        try:
            document = _decode(without_nan(body))
        except (ValueError, OverflowError, RecursionError) as second:
            raise decode_error(second, body) from second
    given = [name for name in document if name not in _BESIDE] if isinstance(document, dict) else []
    if len(given) != 1 or given[0] not in FORMS:
        said = ", ".join(map(str, given))[:200] if isinstance(document, dict) else describe(document)
        raise refused(400, f"{said or 'Nothing'} is given; one of {', '.join(FORMS)} is wanted.")
    try:
        return _asked(release, given[0], document[given[0]])
    except PackingError as error:
        raise unfit(error) from error


def read_csv(release: Release, body: bytes) -> Asked:
    """Read a body of CSV: a line of names, then a line a row; an empty field is a missing value.

    Raises
    ------
    HttpError
        400 for what is no CSV in UTF-8, 413 for too many rows, 422 for rows that do not fit the schema.
    """
    schema = release.schema
    if schema.tensor_shape is not None:
        what = "arrays" if schema.image is None else "images"
        raise refused(415, f"This model takes {what}, which CSV has none of.", describe_columns(schema))
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise refused(400, f"The body is no CSV in UTF-8: {error}.") from error
    lines = [line for line in lines if line]
    if not lines:
        raise refused(400, "The body is empty; a line of column names is wanted.", describe_columns(schema))
    names, *rows = lines
    if len(set(names)) != len(names):
        raise refused(400, "A column is named twice.")
    check_count(len(rows), release.config.max_rows)
    try:
        for place, row in enumerate(rows):
            if len(row) != len(names):
                raise _fault(schema, f"{len(row)} fields are given; the header has {len(names)}", place)
        kinds = {column.name: column.kind for column in schema.columns}
        columns = {
            name: [_READ[kinds[name]](field) if name in kinds else _id(field) for field in column]
            for name, column in zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True)
        }
        packed, ids = pack_columns(schema, columns), column_ids(schema, columns)
    except PackingError as error:
        raise unfit(error) from error
    return Asked(packed, ids, partial(write_rows, release, ids))


def without_nan(body: bytes) -> bytes:
    """Return a body with null in the places of NaN, which MLflow's clients write where a value is missing.

    Raises
    ------
    ValueError
        If it is no JSON in any other way.
    """
    return msgspec.json.encode(json.loads(body, parse_constant=_missing, parse_float=_finite))


def _missing(word: str) -> None:
    if word != "NaN":
        raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is out of range")
    return number


def _asked(release: Release, form: str, value: Any) -> Asked:
    schema, max_rows = release.schema, release.config.max_rows
    if schema.image is not None:
        if form == "dataframe_split":
            value = _split(schema, value)
        elif form == "inputs" and isinstance(value, dict):
            value = {"columns": {name: one if isinstance(one, list) else [one] for name, one in value.items()}}
        return asked_of(release, pictures.from_document(schema, value, max_rows))
    if schema.tensor_shape is not None:
        if form.startswith("dataframe"):
            raise _fault(schema, f"'{form}' is given; this model takes arrays, as 'instances' or 'inputs'")
        tensor = pack_tensor(schema, value)
        check_count(len(tensor), max_rows)
        return Asked(tensor, None, partial(write_rows, release, None))
    if form == "inputs" and isinstance(value, dict):
        columns = {name: one if isinstance(one, list) else [one] for name, one in value.items()}
        check_count(max((len(column) for column in columns.values()), default=0), max_rows)
        packed, ids = pack_columns(schema, columns), column_ids(schema, columns)
        return Asked(packed, ids, partial(write_rows, release, ids))
    rows = _split(schema, value) if form == "dataframe_split" else value
    if not isinstance(rows, list):
        raise _fault(schema, f"'{form}' is {describe(rows)}; a list of objects is wanted")
    check_count(len(rows), max_rows)
    packed, ids = pack_rows(schema, rows), row_ids(schema, rows)
    return Asked(packed, ids, partial(write_rows, release, ids))


def _split(schema: Schema, value: Any) -> list[dict[str, Any]]:
    """Return the rows of what pandas writes as ``split``."""
    names, data = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(names, list) or not isinstance(data, list) or not all(isinstance(name, str) for name in names):
        raise _fault(schema, "'dataframe_split' wants 'columns', a list of names, and 'data', a list of rows")
    for place, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(names):
            raise _fault(schema, f"{describe(row)} is given; a list of {len(names)} values is wanted", place)
    return [dict(zip(names, row, strict=True)) for row in data]


def _fault(schema: Schema, message: str, row: int | None = None) -> PackingError:
    return PackingError([RowFault(row, None, message)], hint=describe_columns(schema))


# -- fields of CSV, which are text: what is no number or truth value stays text, and is refused by name


def _number(field: str) -> Any:
    if not field.strip():
        return None
    try:
        number = float(field)
    except ValueError:
        return field
    return number if math.isfinite(number) else field


def _date(field: str) -> Any:
    return _number(field) if field.strip().lstrip("+-").replace(".", "", 1).isdigit() else field or None


def _id(field: str) -> Any:
    """Return an id as JSON would have it: a whole number stays one, all else is text (and so is ``007``)."""
    is_whole = field.isascii() and field.lstrip("-").isdigit() and len(field) < 19
    return (int(field) if is_whole and str(int(field)) == field else field) if field else None


_READ: dict[ColumnKind, Callable[[str], Any]] = {
    "number": _number,
    "integer": _number,
    "boolean": lambda field: _TRUTHS.get(field.strip().lower(), field) if field.strip() else None,
    "datetime": _date,
    "string": lambda field: field or None,
    "text": lambda field: field or None,
}
