"""Images to be scored: a folder, files, what a notebook holds in memory, or a table with a column of them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats import pixels
from lepton_jupyter.formats.packing import pack_tensor
from lepton_jupyter.formats.pixels import ImageError
from lepton_jupyter.formats.schema import ImageInput
from lepton_jupyter.serving.pictures import COLUMN, content_of
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.stages.data.images import PATH, SUFFIXES
from lepton_jupyter.stages.data.reading import array_of, frame_of, read_table

AT_ONCE_BYTES = 16 * 2**20  # of files, and of pixels, that are held at once
_WANTED = "a folder, paths of JPEG or PNG files, their bytes, Pillow's images, or a table with a column 'image'"


class Listed(NamedTuple):
    """Images, none of which was read yet.

    Attributes
    ----------
    names : list
        What the table of predictions calls each: its path as given, or below the folder that was given; None for what
        has no name.
    sources : list
        Paths, bytes, text in base64 or Pillow's images.
    """

    names: list[Any] | None
    sources: list[Any]


def listed(rows: Any) -> Listed:
    """Return what somebody means by images.

    Raises
    ------
    LeptonError
        If it is nothing that holds any.
    """
    if isinstance(rows, (str, os.PathLike)):
        path = Path(rows).expanduser()
        if path.is_dir():
            return _folder(path)
        if path.suffix.lower() not in SUFFIXES:
            return _table(read_table(path))
        rows = [path]
    if isinstance(rows, bytes) or hasattr(rows, "getexif"):
        rows = [rows]
    if not isinstance(rows, (list, tuple)):
        return _table(frame_of(rows))
    if rows and all(isinstance(one, Mapping) for one in rows):
        return _table(frame_of(list(rows)))
    is_named = all(isinstance(one, (str, os.PathLike)) for one in rows)
    return Listed([str(one) for one in rows] if is_named else None, list(rows))


def _folder(root: Path) -> Listed:
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise LeptonError(f"There are no {', '.join(SUFFIXES)} files in '{root}'.", "Name another folder.")
    return Listed([path.relative_to(root).as_posix() for path in found], list(found))


def _table(frame: pl.DataFrame) -> Listed:
    if COLUMN not in frame.columns:
        raise LeptonError(
            f"The table has no column '{COLUMN}'. It has: {', '.join(frame.columns[:12])}.",
            f"Give {_WANTED} (bytes, or text in base64).",
        )
    names = frame[PATH].to_list() if PATH in frame.columns else None
    sources = [
        _decoded(text, row) if isinstance(text, str) else text for row, text in enumerate(frame[COLUMN].to_list())
    ]
    return Listed(names, sources)


def _decoded(text: str, row: int) -> bytes:
    try:
        return content_of(text)
    except ImageError as error:
        raise LeptonError(f"Row {row}, column '{COLUMN}': {error}.", "Give the file's bytes.") from error


def pieces(found: Listed, image: ImageInput) -> Iterator[tuple[int, list[bytes]]]:
    """Yield files' bytes, some at a time, with the number of the first.

    Raises
    ------
    LeptonError
        If a file cannot be read; it is named.
    """
    most = max(1, AT_ONCE_BYTES // int(np.prod(image.shape)))
    contents: list[bytes] = []
    start = n_bytes = 0
    for row, source in enumerate(found.sources):
        content = _content(source, row)
        if contents and (len(contents) == most or n_bytes + len(content) > AT_ONCE_BYTES):
            yield start, contents
            start, n_bytes, contents = row, 0, []
        contents.append(content)
        n_bytes += len(content)
    if contents:
        yield start, contents


def _content(source: Any, row: int) -> bytes:
    if isinstance(source, bytes):
        return source
    if hasattr(source, "getexif"):
        buffer = io.BytesIO()
        source.save(buffer, "PNG")
        return buffer.getvalue()
    if not isinstance(source, (str, os.PathLike)):
        raise LeptonError(f"Row {row} is a {type(source).__name__}.", f"Give {_WANTED}.")
    path = Path(source).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise LeptonError(f"'{path}' cannot be read: {error.strerror}.", "Check the path.", code="not_found") from error


def predict_pictures(scorer: Scorer, rows: Any) -> pl.DataFrame:
    """Score images; pixels (an array [N, C, H, W] of 0 to 255) are taken too.

    Returns
    -------
    polars.DataFrame
        ``path`` where they have one, ``prediction``, ``probability_CLASS`` …

    Raises
    ------
    LeptonError
        If one cannot be read or decoded; it is named.
    """
    schema, array = scorer.schema, array_of(rows)
    if array is not None:
        return pl.DataFrame(scorer.table(scorer.score(pack_tensor(schema, array))))
    assert schema.image is not None
    found = listed(rows)
    tables = [scorer.table(scorer.score(np.zeros((0, *schema.image.shape), np.uint8)))]
    for start, contents in pieces(found, schema.image):
        names = found.names[start : start + len(contents)] if found.names is not None else None
        tables.append(scorer.table(scorer.score(_pixels(found, start, contents, schema.image)), names))
    full = [pl.DataFrame(table, strict=False) for table in tables[1:]]
    return pl.concat(full) if full else pl.DataFrame(tables[0])


def _pixels(found: Listed, start: int, contents: list[bytes], image: ImageInput) -> NDArray[np.uint8]:
    rows = np.empty((len(contents), *image.shape), np.uint8)
    for place, content in enumerate(contents):
        try:
            rows[place] = pixels.decode(content, height=image.height, width=image.width, channels=image.channels)
        except ImageError as error:
            row = start + place
            name = f"'{found.names[row]}'" if found.names is not None else f"Row {row}"
            raise LeptonError(f"{name} is no image that is taken: {error}.", "Leave it out, or repair it.") from error
    return rows
