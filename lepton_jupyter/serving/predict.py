"""``POST /predict``: rows as objects or columns in, the prediction table's rows out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import (
    Packed,
    PackingError,
    RowFault,
    column_ids,
    count_rows,
    describe_columns,
    pack_columns,
    pack_rows,
    pack_tensor,
    row_ids,
)
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.formats.values import describe
from lepton_jupyter.serving import pictures
from lepton_jupyter.serving.answers import Answer, check_count, decode_error, json_answer, refused, unfit
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.scorer import Outputs

_decode = msgspec.json.Decoder().decode


class Asked(NamedTuple):
    """What a request asks for, and how it wants to be answered.

    Attributes
    ----------
    rows : Packed or NDArray
    ids : list or None
        What the id column held.
    write : callable
        Returns the answer for outputs and a request id.
    hashes : list of str or None
        Of images: sha256 of each as it was sent.
    """

    rows: Packed | NDArray[Any]
    ids: list[Any] | None
    write: Callable[[Outputs, str], Answer]
    hashes: list[str] | None = None


def read(release: Release, body: bytes) -> Asked:
    """Read the body of ``POST /predict``.

    Raises
    ------
    HttpError
        400 for broken JSON, 413 for too many rows, 422 for rows that do not fit the schema.
    """
    found = release.reader.read(body)
    if found is None:
        return _read_carefully(release, body)
    rows, ids = found
    check_count(count_rows(rows), release.config.max_rows)
    return Asked(rows, ids, partial(write_rows, release, ids))


def read_image(release: Release, body: bytes) -> Asked:
    """Read a body that is one JPEG or PNG file.

    Raises
    ------
    HttpError
        415 where the model takes none, 400 for what is no image that is taken.
    """
    image = release.schema.image
    if image is None:
        raise refused(415, "This model takes no image files.", describe_columns(release.schema))
    try:
        return asked_of(release, pictures.read_rows(image, [body]))
    except PackingError as error:
        raise refused(400, f"The body is no image that is taken: {error.faults[0].message}.") from error


def asked_of(release: Release, sent: pictures.Sent) -> Asked:
    """Return the request for images that were read."""
    return Asked(sent.pixels, sent.ids, partial(write_rows, release, sent.ids), sent.hashes)


def _read_carefully(release: Release, body: bytes) -> Asked:
    try:
        document = _decode(body)
    except (ValueError, RecursionError) as error:
        raise decode_error(error, body) from error
    try:
        if release.schema.image is not None:
            return asked_of(release, pictures.from_document(release.schema, document, release.config.max_rows))
        rows, ids = _read(release.schema, document, release.config.max_rows)
    except PackingError as error:
        raise unfit(error) from error
    check_count(count_rows(rows), release.config.max_rows)
    return Asked(rows, ids, partial(write_rows, release, ids))


def write_rows(release: Release, ids: list[Any] | None, outputs: Outputs, request_id: str) -> Answer:
    """Return the prediction table row by row, and what answered."""
    config = release.config
    return json_answer(
        {
            "predictions": release.scorer.records(outputs, ids),
            "model": config.model,
            "version": config.version,
            "request_id": request_id,
        }
    )


def _read(schema: Schema, document: Any, max_rows: int) -> tuple[Packed | NDArray[Any], list[Any] | None]:
    if schema.tensor_shape is not None:
        tensor = pack_tensor(schema, document["rows"] if _is_only(document, "rows", list) else document)
        check_count(len(tensor), max_rows)
        return tensor, None
    if _is_only(document, "columns", dict):
        columns = document["columns"]
        check_count(max((len(c) for c in columns.values() if isinstance(c, list)), default=0), max_rows)
        return pack_columns(schema, columns), column_ids(schema, columns)
    if _is_only(document, "rows", list):
        document = document["rows"]
    rows = document if isinstance(document, list) else [document]
    if not isinstance(document, (list, dict)):
        message = f"{describe(document)} is given; an object, a list of objects, 'rows' or 'columns' is wanted"
        raise PackingError([RowFault(None, None, message)], hint=describe_columns(schema))
    check_count(len(rows), max_rows)
    return pack_rows(schema, rows), row_ids(schema, rows)


def _is_only(document: Any, key: str, kind: type) -> bool:
    """Whether the document is ``{key: [...]}``; no column holds lists or objects, so that it cannot be a row."""
    return isinstance(document, dict) and len(document) == 1 and isinstance(document.get(key), kind)
