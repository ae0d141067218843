"""Rows that are images: files in base64 or as they are, or pixels already. Call it in a reading thread, never the loop.

What decoding makes of a body is counted: a request has a limit, and all of them together have one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats import pixels
from lepton_jupyter.formats.packing import (
    MAX_FAULTS,
    PackingError,
    RowFault,
    column_ids,
    describe_columns,
    dropped_columns,
    pack_tensor,
    row_ids,
)
from lepton_jupyter.formats.pixels import ImageError, decode
from lepton_jupyter.formats.schema import ImageInput, Schema
from lepton_jupyter.formats.values import describe
from lepton_jupyter.serving.answers import check_count, refused

COLUMN = "image"
MAX_DECODED_BYTES = 256 * 2**20  # of one request
MAX_UNDER_WAY_BYTES = 512 * 2**20  # of all that are not answered yet

DECODER_TOLERANCE = 2  # of 255

_SIGNS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


class Sent(NamedTuple):
    """Images as a model's rows.

    Attributes
    ----------
    pixels : NDArray
        uint8 [N, C, H, W].
    hashes : list of str
        sha256 of each file as it was sent (of its pixels, where these were), hexadecimal.
    ids : list or None
        What the id column held.
    """

    pixels: NDArray[np.uint8]
    hashes: list[str]
    ids: list[Any] | None = None


class _UnderWay:
    """Bytes of pixels that requests hold; an array gives its own back when nobody has it any more."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._lock = threading.RLock()  # a collection of garbage under it may give an array back

    def empty(self, n_rows: int, image: ImageInput) -> NDArray[np.uint8]:
        """Return an array uint8 [n_rows, C, H, W] that counts for as long as it lives."""
        n_bytes = n_rows * image.channels * image.height * image.width
        if n_bytes > MAX_DECODED_BYTES:
            raise refused(
                413,
                f"{n_rows} images of {image} take {n_bytes // 2**20} MiB once decoded; at most "
                f"{MAX_DECODED_BYTES // 2**20} are taken at once.",
                "Send them in several requests.",
            )
        with self._lock:
            if self.n_bytes + n_bytes > MAX_UNDER_WAY_BYTES:
                raise refused(503, "Too much is under way.", "Ask again.", headers=[(b"retry-after", b"1")])
            self.n_bytes += n_bytes
        found = np.empty((n_rows, *image.shape), np.uint8)
        weakref.finalize(found, self._give_back, n_bytes)
        return found

    def _give_back(self, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes -= n_bytes


under_way = _UnderWay()


def read_rows(image: ImageInput, values: Sequence[Any], *, into: NDArray[np.uint8] | None = None) -> Sent:
    """Return files, each in base64 or as its bytes, as rows.

    Parameters
    ----------
    into : NDArray, optional
        uint8 [N, C, H, W] to be filled; None: a new one, which counts among those of all requests.

    Raises
    ------
    PackingError
        If one is none of these, or no image that is taken; its row is named.
    HttpError
        413 for more pixels than a request may have, 503 where all requests have too many.
    """
    found = under_way.empty(len(values), image) if into is None else into
    faults: list[RowFault] = []
    hashes: list[str] = []
    for row, value in enumerate(values):
        try:
            content = content_of(value)
            found[row] = decode(content, height=image.height, width=image.width, channels=image.channels)
            hashes.append(hashlib.sha256(content).hexdigest())
        except ImageError as error:
            faults.append(RowFault(row, COLUMN, str(error)))
            if len(faults) == MAX_FAULTS:
                break
    if faults:
        raise PackingError(faults, hint="Send a JPEG or PNG file, in base64 where it stands in JSON.")
    return Sent(found, hashes)


def check_decoder(parity: Mapping[str, Any]) -> None:
    """Compare what Pillow makes of a file here with what it made of it when a version was proved.

    Parameters
    ----------
    parity : Mapping
        Of the version's card.

    Raises
    ------
    LeptonError
        If they are more than `DECODER_TOLERANCE` apart: the model would see other pixels than it was proved with.
    """
    said = parity.get("pixels")
    if not said:
        return
    apart = max(abs(ours - theirs) for ours, theirs in zip(pixels.fingerprint(), said, strict=True))
    if apart > DECODER_TOLERANCE:
        raise LeptonError(
            f"Pillow {pixels.pillow_version()} decodes images otherwise than Pillow {parity.get('pillow')}, with which "
            f"this version was proved: up to {apart} of 255.",
            f"pip install pillow=={parity.get('pillow')}, or train again.",
            code="refused",
        )


def from_document(schema: Schema, document: Any, max_rows: int) -> Sent:
    """Return what a body of JSON asks for: objects with ``image``, columns of them, texts in base64, or pixels.

    Raises
    ------
    PackingError, HttpError
        As `read_rows`; 413 for too many rows.
    """
    if isinstance(document, dict) and len(document) == 1:
        (form, inner), *_ = document.items()
        if form == "columns" and isinstance(inner, dict):
            return _from_columns(schema, inner, max_rows)
        if form == "rows" and isinstance(inner, list):
            document = inner
    rows = document if isinstance(document, list) else [document]
    check_count(len(rows), max_rows, of="images")
    if rows and isinstance(rows[0], list):
        return from_pixels(schema, rows)
    values, faults = [], []
    known = {COLUMN, *dropped_columns(schema)}
    for place, row in enumerate(rows):
        if isinstance(row, Mapping) and COLUMN in row and row.keys() <= known:
            values.append(row[COLUMN])
        elif isinstance(row, str):
            values.append(row)
        else:
            faults.append(_misfit(place, row, known))
    if faults:
        raise PackingError(faults[:MAX_FAULTS], n_faults=len(faults), hint=describe_columns(schema))
    sent = read_rows(_image(schema), values)
    named = [row if isinstance(row, Mapping) else {} for row in rows]
    return sent._replace(ids=row_ids(schema, named))


def from_pixels(schema: Schema, values: Any) -> Sent:
    """Return pixels, nested lists or an array [N, C, H, W] of whole numbers from 0 to 255, as rows.

    Raises
    ------
    PackingError, HttpError
        As `formats.packing.pack_tensor`; 413 and 503 as `read_rows`.
    """
    packed = pack_tensor(schema, values)
    found = under_way.empty(len(packed), _image(schema))
    found[:] = packed
    return Sent(found, [hashlib.sha256(row.tobytes()).hexdigest() for row in packed])


def _from_columns(schema: Schema, columns: Mapping[str, Any], max_rows: int) -> Sent:
    unknown = sorted(columns.keys() - {COLUMN} - dropped_columns(schema))
    faults = [RowFault(None, name, "the model knows no such column") for name in unknown]
    values = columns.get(COLUMN)
    if not isinstance(values, list):
        what = "the column is missing" if COLUMN not in columns else f"{describe(values)} is given; a column is a list"
        faults.append(RowFault(None, COLUMN, what))
    for name, other in columns.items():
        if isinstance(values, list) and isinstance(other, list) and len(other) != len(values):
            faults.append(RowFault(None, name, f"{len(other)} values are given; '{COLUMN}' has {len(values)}"))
    if faults:
        raise PackingError(faults[:MAX_FAULTS], n_faults=len(faults), hint=describe_columns(schema))
    assert isinstance(values, list)
    check_count(len(values), max_rows, of="images")
    return read_rows(_image(schema), values)._replace(ids=column_ids(schema, columns))


def _misfit(place: int, row: Any, known: set[str]) -> RowFault:
    if not isinstance(row, Mapping):
        return RowFault(place, None, f"{describe(row)} is given; a row is an object with '{COLUMN}'")
    strange = sorted(map(str, row.keys() - known))
    if strange:
        return RowFault(place, strange[0][:100], "the model knows no such column")
    return RowFault(place, COLUMN, "the column is missing")


def content_of(value: Any) -> bytes:
    """Return a file's bytes: what is given if these are such, else what its base64 says (a data URL's too).

    Raises
    ------
    ImageError
        If it is neither.
    """
    if isinstance(value, bytes) and value.startswith(_SIGNS):
        return value
    if not isinstance(value, (str, bytes)):
        raise ImageError(f"{describe(value)} is given; a file in base64 is wanted")
    if isinstance(value, str) and value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        is_file = isinstance(value, bytes)
        raise ImageError("it is no JPEG or PNG" if is_file else "it is no base64") from error


def _image(schema: Schema) -> ImageInput:
    assert schema.image is not None
    return schema.image
