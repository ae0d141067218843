"""Tables of Arrow IPC for ``/predict`` and ``/invocations``, where pyarrow is installed.

What arrives is hostile until `_checked` has seen it: pyarrow slices buffers where the message says, so that offsets,
lengths and indices are believed only after a full validation; and text that a dictionary or a view repeats may unfold
to any size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import (
    MAX_FAULTS,
    Packed,
    PackingError,
    RowFault,
    check_packed,
    column_ids,
    describe_columns,
    pack_columns,
)
from lepton_jupyter.formats.schema import SENTINEL, Column, ColumnKind, Schema
from lepton_jupyter.serving.answers import check_count, refused, too_large, unfit
from lepton_jupyter.serving.predict import Asked, write_rows
from lepton_jupyter.serving.release import Release

STREAM = b"application/vnd.apache.arrow.stream"

_HEADER_KIND, _HEADER, _COMPRESSION, _DATA, _IS_DELTA = (
    6,
    8,
    10,
    6,
    8,
)  # places in the tables of a message (Arrow's Message.fbs)
_DICTIONARY = 2
_FILE = b"ARROW1"
_NO_ARROW = (OSError, OverflowError, ValueError, TypeError, IndexError, struct.error)  # beside pyarrow's own
_WANTED: dict[ColumnKind, str] = {
    "number": "numbers",
    "integer": "whole numbers",
    "boolean": "truth values, or 0 and 1,",
    "datetime": "timestamps, dates or seconds since 1970",
    "string": "texts",
    "text": "texts",
}


def is_there() -> bool:
    """Whether bodies of Arrow can be read."""
    return find_spec("pyarrow") is not None and find_spec("flatbuffers") is not None


def read(release: Release, body: bytes) -> Asked:
    """Read a table of Arrow IPC, as a stream.

    Raises
    ------
    HttpError
        400 for what is no Arrow, 413 for too many rows or too much text, 415 for compressed buffers and dictionaries
        that grow, 422 for rows that do not fit the schema.
    """
    schema = release.schema
    if schema.tensor_shape is not None:
        raise refused(415, "This model takes arrays; a table of Arrow has none.", describe_columns(schema))
    if body.startswith(_FILE):
        raise refused(
            415, "A file of Arrow is not taken.", "Send a stream: polars' write_ipc_stream, pyarrow's new_stream."
        )
    import pyarrow as pa

    try:
        _refuse_what_unfolds(body)
        with pa.ipc.open_stream(body) as reader:
            _check_names(schema, reader.schema.names)
            table = pa.Table.from_batches(_checked(reader, release.config.max_rows), reader.schema)
        packed, ids = _pack(schema, table, release.config.max_body_bytes)
    except PackingError as error:
        raise unfit(error) from error
    except (pa.ArrowException, *_NO_ARROW) as error:
        raise refused(400, f"The body is no Arrow IPC: {(str(error).splitlines() or [''])[0][:200]}.") from error
    return Asked(packed, ids, partial(write_rows, release, ids))


def _check_names(schema: Schema, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise refused(400, "A column is named twice.")
    pack_columns(schema, {name: [] for name in names})  # names those that are missing or unknown


def _checked(reader: Any, max_rows: int) -> Iterator[Any]:
    n_rows = 0
    for batch in reader:
        n_rows += batch.num_rows
        check_count(n_rows, max_rows)
        batch.validate(full=True)
        yield batch


def _refuse_what_unfolds(stream: bytes) -> None:
    """Refuse compressed buffers, and dictionaries that grow: pyarrow makes room for what they claim, without limit."""
    import pyarrow as pa
    from flatbuffers import encode, packer
    from flatbuffers.table import Table

    for message in pa.ipc.MessageReader.open_stream(stream):
        if message.type not in ("record batch", "dictionary"):
            continue
        content = bytes(message.metadata)
        root = Table(content, encode.Get(packer.uoffset, content, 0))
        header = Table(content, 0)
        root.Union(header, root.Offset(_HEADER))
        if content[root.Pos + root.Offset(_HEADER_KIND)] == _DICTIONARY:
            if header.Offset(_IS_DELTA) and content[header.Pos + header.Offset(_IS_DELTA)]:
                raise refused(415, "Dictionaries of Arrow that grow are not taken.", "Send each of them whole.")
            header = Table(content, header.Indirect(header.Pos + header.Offset(_DATA)))
        if header.Offset(_COMPRESSION):
            raise refused(
                415, "Compressed buffers of Arrow are not taken.", "Write them plain, and compress the body as gzip."
            )


def _pack(schema: Schema, table: Any, max_text: int) -> tuple[Packed, list[Any] | None]:
    faults = []
    for column in schema.columns:
        given = table.schema.field(column.name).type
        if not _is_taken(given, column.kind):
            faults.append(RowFault(None, column.name, f"{given} is given; {_WANTED[column.kind]} are wanted"))
    if faults:
        raise PackingError(faults[:MAX_FAULTS], n_faults=len(faults), hint=describe_columns(schema))
    num = np.empty((table.num_rows, len(schema.num)), np.float64)
    txt = np.empty((table.num_rows, len(schema.txt)), object)
    for place, column in enumerate(schema.num):
        num[:, place] = _numbers(table[column.name])
    for place, column in enumerate(schema.txt):
        txt[:, place] = _texts(column, table[column.name], max_text)
    packed = Packed(num, txt)
    check_packed(schema, packed)
    return packed, _ids(schema, table, max_text)


def _is_taken(given: Any, kind: ColumnKind) -> bool:
    from pyarrow import types

    if types.is_null(given):
        return True
    if kind in ("string", "text"):
        return _is_text(given)
    is_number = types.is_integer(given) or types.is_floating(given) or types.is_decimal(given)
    if kind == "boolean":
        return is_number or types.is_boolean(given)
    return is_number or (kind == "datetime" and (types.is_timestamp(given) or types.is_date(given)))


def _is_text(given: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(given):
        given = given.value_type
    return types.is_string(given) or types.is_large_string(given) or types.is_string_view(given)


def _numbers(values: Any) -> NDArray[np.float64]:
    """Return numbers, truth values, and moments as seconds since 1970; NaN where a value is missing."""
    import pyarrow as pa

    parts_a_second = 1.0
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(values.type):
        parts_a_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[values.type.unit]
        values = values.cast(pa.int64())
    elif pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    numbers: NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy()
    return numbers / parts_a_second


def _texts(column: Column, values: Any, max_text: int) -> list[str]:
    found = _values(values, max_text)
    if SENTINEL in found:
        message = f"'{SENTINEL}' is reserved for missing values; send null"
        raise PackingError([RowFault(found.index(SENTINEL), column.name, message)])
    return [SENTINEL if text is None else text for text in found]


def _values(values: Any, max_text: int) -> list[Any]:
    """Return the values of a column.

    Raises
    ------
    HttpError
        413 where they are more than `max_text` bytes of text, unfolded.
    """
    import pyarrow as pa

    found: list[Any] = []
    n_bytes = 0
    for chunk in values.chunks:
        if pa.types.is_dictionary(chunk.type):
            known = _values(pa.chunked_array([chunk.dictionary]), max_text)  # shared by all who repeat one
            part = [None if place is None else known[place] for place in chunk.indices.to_pylist()]
            n_bytes += sum(len(text) for text in part if text)
        else:
            n_bytes += _text_bytes(chunk)
            part = chunk.to_pylist() if n_bytes <= max_text else []
        if n_bytes > max_text:
            raise too_large(max_text)
        found += part
    return found


def _text_bytes(chunk: Any) -> int:
    """Return how long the texts of an array are; views may all show the same bytes."""
    import pyarrow as pa

    if not pa.types.is_string_view(chunk.type):
        return 0  # no more than came: the offsets have been validated
    lengths = np.frombuffer(chunk.buffers()[1], np.int32).reshape(-1, 4)[chunk.offset :, 0][: len(chunk)]
    return int(lengths[chunk.is_valid().to_numpy(zero_copy_only=False)].sum(dtype=np.int64))


def _ids(schema: Schema, table: Any, max_text: int) -> list[Any] | None:
    name = schema.id_column
    if name is None or name not in table.schema.names:
        return None
    given = table.schema.field(name).type
    if not _is_text(given) and not _is_taken(given, "number"):
        raise PackingError([RowFault(None, name, f"{given} is given; an id is text or a number")])
    return column_ids(schema, {name: _values(table[name], max_text)})
