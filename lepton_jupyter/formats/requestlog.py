"""The request log of an endpoint: framed segments, appended by one writer, read by whoever makes tables of them.

A frame is ``LPRQ``, the payload's length and crc32 (little-endian), then the payload in MessagePack. A torn or damaged
frame is passed over: the reader goes on at the next ``LPRQ`` whose frame is whole.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import SENTINEL

MAGIC = b"LPRQ"
SEGMENT_BYTES = 64 * 2**20
KEPT_SEGMENTS = 16

_HEADER = struct.Struct("<4sII")
_SUFFIX = ".lprq"


class LoggedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request: answered, or refused with the reason.

    Attributes
    ----------
    at : float
        When it was answered, seconds since 1970, UTC.
    version : str
        What answered, such as ``NAME@3``.
    bundle : str
        The bundle's folder name, by which a reader finds the columns; empty in older segments.
    latency_ms : float
        From the first byte of the body to the answer.
    num : bytes
        float64 [n_rows, k], little-endian, row by row; NaN where a value was missing.
    txt : list of list
        [n_rows][m] text, None where a value was missing.
    tensor : bytes
        float32, for a model of tensors; else empty.
    ids : list or None
        What the id column held.
    prediction : list
        [n_rows] labels (as text) or [n_rows][T] numbers.
    probability : bytes
        float32 [n_rows, K], little-endian, row by row; empty for a regression.
    status : int
        What the client was answered; from 400 on no row was scored, `n_rows` is 0 and `error` says why.
    """

    request_id: str
    at: float
    version: str
    latency_ms: float
    n_rows: int
    num: bytes = b""
    txt: list[list[str | None]] = msgspec.field(default_factory=list)
    tensor: bytes = b""
    ids: list[Any] | None = None
    prediction: list[Any] = msgspec.field(default_factory=list)
    probability: bytes = b""
    bundle: str = ""
    status: int = 200
    error: str = ""

    @classmethod
    def of_rows(cls, rows: Packed | NDArray[np.float32], **rest: Any) -> LoggedRequest:
        """Return the record of these packed rows; `rest` are its other fields."""
        if not isinstance(rows, Packed):
            return cls(n_rows=rows.shape[0], tensor=rows.astype("<f4").tobytes(), **rest)
        txt = (
            [[None if text == SENTINEL else text for text in row] for row in rows.txt.tolist()] if rows.txt.size else []
        )
        return cls(n_rows=rows.n_rows, num=rows.num.astype("<f8").tobytes(), txt=txt, **rest)


class SegmentWriter:
    """Append frames to numbered segments in a folder; the oldest are removed once there are too many.

    A new writer begins a new segment, so that it never appends behind a torn frame. Nothing here raises because of the
    disk: what could not be written is counted.

    Attributes
    ----------
    n_lost : int
        Frames that could not be written.
    last_error : str
        What the system said.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, kept: int = KEPT_SEGMENTS) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.kept = kept
        self.n_lost = 0
        self.last_error = ""
        self._descriptor = -1
        self._size = 0
        self._encoder = msgspec.msgpack.Encoder()

    def write(self, record: LoggedRequest) -> bool:
        """Append one record; False where it was lost."""
        payload = self._encoder.encode(record)
        frame = _HEADER.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload
        try:
            if self._descriptor < 0 or self._size + len(frame) > self.segment_bytes:
                self._begin_segment()
            written = os.write(self._descriptor, frame)
            self._size += written
            if written != len(frame):
                raise OSError(28, "No space left on device")
        except OSError as error:
            self.n_lost += 1
            self.last_error = error.strerror or str(error)
            self.close()  # the next frame begins a segment of its own, behind no torn one
            return False
        return True

    def close(self) -> None:
        """Close the segment."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin_segment(self) -> None:
        self.close()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = segments(self.folder)
        for old in found[: max(0, len(found) - self.kept + 1)]:
            old.unlink(missing_ok=True)
        number = int(found[-1].stem) + 1 if found else 1
        path = self.folder / f"{number:010d}{_SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0


def segments(folder: Path) -> list[Path]:
    """Return the segments in a folder, oldest first; the last one may still grow."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def read_segment(path: Path, offset: int = 0) -> Iterator[tuple[int, LoggedRequest]]:
    """Yield ``(offset behind the record, record)`` for every whole frame from `offset` on.

    A torn tail ends the reading; damage in the middle is passed over.
    """
    decoder = msgspec.msgpack.Decoder(LoggedRequest)
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    at = content.find(MAGIC)
    while at >= 0 and at + _HEADER.size <= len(content):
        _, length, crc = _HEADER.unpack_from(content, at)
        end = at + _HEADER.size + length
        payload = content[at + _HEADER.size : end]
        record = None
        if len(payload) == length and zlib.crc32(payload) == crc:
            try:
                record = decoder.decode(payload)
            except msgspec.DecodeError:  # of another format: as good as damaged
                pass
        if record is not None:
            yield offset + end, record
        at = content.find(MAGIC, end if record is not None else at + 1)
