"""The request log of an endpoint: framed segments, appended by one writer, read by whoever makes tables of them.

A frame is ``LPRQ`` (one request) or ``LPRB`` (several that one version answered), the payload's length and crc32
(little-endian), then the payload in MessagePack. A torn or damaged frame is passed over: the reader goes on at the next
``LPR`` whose frame is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.core.processes import is_held
from lepton_jupyter.formats.packing import Packed, count_rows
from lepton_jupyter.formats.schema import SENTINEL

MAGIC = b"LPR"  # what all frames begin with
SEGMENT_BYTES = 64 * 2**20
LOGGED_PIXELS = 1024  # bytes of an image's row; of larger ones the hash alone is kept
SEGMENT_S = 3600.0  # what is older is closed, so that it can become a table, or go

TABLES = "tables"  # the folder within the log's

T = TypeVar("T")

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
        float32, for a model of tensors; uint8 for one of images whose rows have at most `LOGGED_PIXELS`; else empty.
    images : list of str
        Of a model of images: sha256 of each file as it was sent, hexadecimal.
    ids : list or None
        What the id column held.
    prediction : list
        [n_rows] labels (as text) or [n_rows][T] numbers.
    probability : bytes
        float32 [n_rows, K], little-endian, row by row; empty for a regression.
    status : int
        What the client was answered; from 400 on no row was scored, `n_rows` is 0 and `error` says why.
    is_shadow : bool
        Nobody was answered this: a shadow was asked the same beside the live version, whose record has the same id.
    share : float
        Of such requests, the share that is logged, 0–1: this one stands for ``1 / share``. Refusals are all logged.
    withheld : dict
        Columns whose values were kept out because they are personal: None, or [n_rows] pseudonyms. In `num` and `txt`
        they are missing; the id column's pseudonyms stand in `ids`.
    """

    request_id: str
    at: float
    version: str
    latency_ms: float
    n_rows: int
    num: bytes = b""
    txt: list[list[str | None]] = msgspec.field(default_factory=list)
    tensor: bytes = b""
    images: list[str] = msgspec.field(default_factory=list)
    ids: list[Any] | None = None
    prediction: list[Any] = msgspec.field(default_factory=list)
    probability: bytes = b""
    bundle: str = ""
    status: int = 200
    error: str = ""
    is_shadow: bool = False
    share: float = 1.0
    withheld: dict[str, list[str | None] | None] = msgspec.field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Packed | NDArray[Any], **rest: Any) -> LoggedRequest:
        """Return the record of these packed rows; `rest` are its other fields."""
        return cls(n_rows=count_rows(rows), **packed_fields([rows]), **rest)


class LoggedBatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Requests that one version answered, one behind the other: their rows as one table.

    Attributes
    ----------
    request_id, at, latency_ms, n_rows, ids : list
        One item a request; the other fields are as in `LoggedRequest`, over the rows of all requests.
    """

    request_id: list[str]
    at: list[float]
    latency_ms: list[float]
    n_rows: list[int]
    ids: list[list[Any] | None]
    version: str
    bundle: str = ""
    num: bytes = b""
    txt: list[list[str | None]] = msgspec.field(default_factory=list)
    tensor: bytes = b""
    images: list[str] = msgspec.field(default_factory=list)
    prediction: list[Any] = msgspec.field(default_factory=list)
    probability: bytes = b""
    is_shadow: bool = False
    share: float = 1.0
    withheld: dict[str, list[str | None] | None] = msgspec.field(default_factory=dict)

    def requests(self) -> Iterator[LoggedRequest]:
        """Yield them one by one."""
        n_all = sum(self.n_rows)
        for place, (n_rows, end) in enumerate(zip(self.n_rows, accumulate(self.n_rows), strict=True)):
            start = end - n_rows
            cut: dict[str, Any] = {
                name: content[len(content) // n_all * start : len(content) // n_all * end] if n_all else content
                for name, content in (("num", self.num), ("tensor", self.tensor), ("probability", self.probability))
            }
            yield LoggedRequest(
                request_id=self.request_id[place],
                at=self.at[place],
                version=self.version,
                latency_ms=self.latency_ms[place],
                n_rows=n_rows,
                txt=self.txt[start:end],
                images=self.images[start:end],
                ids=self.ids[place],
                prediction=self.prediction[start:end],
                bundle=self.bundle,
                is_shadow=self.is_shadow,
                share=self.share,
                withheld={
                    name: None if values is None else values[start:end] for name, values in self.withheld.items()
                },
                **cut,
            )


Logged = LoggedRequest | LoggedBatch
_KINDS: dict[bytes, type[LoggedRequest] | type[LoggedBatch]] = {b"LPRQ": LoggedRequest, b"LPRB": LoggedBatch}
_MAGICS = {kind: magic for magic, kind in _KINDS.items()}


def logged_pixels(pixels: Any) -> NDArray[np.uint8]:
    """Return what the log keeps of images [N, C, H, W]: all of small ones, nothing of others, in memory of its own."""
    is_small = math.prod(pixels.shape[1:]) <= LOGGED_PIXELS
    return np.array(pixels if is_small else np.empty((len(pixels), 0)), np.uint8)


def packed_fields(parts: Sequence[Packed | NDArray[Any]]) -> dict[str, Any]:
    """Return the fields ``num``, ``txt`` and ``tensor`` of a record of these rows, one part behind the other."""
    packed = [part for part in parts if isinstance(part, Packed)]
    tensors = [part for part in parts if not isinstance(part, Packed)]
    texts = [row for part in packed if part.txt.size for row in part.txt.tolist()]
    return {
        "num": joined([part.num for part in packed], "<f8"),
        "txt": [[None if text == SENTINEL else text for text in row] for row in texts],
        "tensor": joined(tensors, "|u1" if tensors and tensors[0].dtype == np.uint8 else "<f4"),
    }


def joined(arrays: Sequence[NDArray[Any]], dtype: str) -> bytes:
    """Return the bytes of arrays of one row's shape, one behind the other."""
    return np.concatenate(arrays).astype(dtype, copy=False).tobytes() if arrays else b""


def is_sampled(request_id: str, share: float) -> bool:
    """Whether a request is among this share of all: by its id alone, so the same wherever it is asked.

    Examples
    --------
    >>> is_sampled("3f2a", 1.0), is_sampled("3f2a", 0.0), sum(is_sampled(str(n), 0.1) for n in range(1000))
    (True, False, 104)
    """
    if share >= 1.0:
        return True
    digest = blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


class SegmentWriter:
    """Append frames to numbered segments in a folder. A segment is locked while it is written.

    A new writer begins a new segment, so that it never appends behind a torn frame. Nothing here raises because of the
    disk: what could not be written is counted.

    Attributes
    ----------
    n_lost : int
        Requests that could not be written.
    last_error : str
        What the system said.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, segment_s: float = SEGMENT_S) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.segment_s = segment_s
        self.n_lost = 0
        self.last_error = ""
        self._descriptor = -1
        self._size = 0
        self._ends_at = 0.0
        self._encoder = msgspec.msgpack.Encoder()

    def write(self, record: Logged) -> bool:
        """Append one record; False where it was lost."""
        payload = self._encoder.encode(record)
        frame = _HEADER.pack(_MAGICS[type(record)], len(payload), zlib.crc32(payload)) + payload
        try:
            if self._descriptor < 0 or self._size + len(frame) > self.segment_bytes:
                self._begin_segment()
            written = os.write(self._descriptor, frame)
            self._size += written
            if written != len(frame):
                raise OSError(28, "No space left on device")
        except OSError as error:
            self.n_lost += len(record.request_id) if isinstance(record, LoggedBatch) else 1
            self.last_error = error.strerror or str(error)
            self.close()  # the next frame begins a segment of its own, behind no torn one
            return False
        return True

    def close_old(self) -> None:
        """Close the segment where it was begun so long ago that nobody should wait for its end."""
        if self._descriptor >= 0 and time.monotonic() >= self._ends_at:
            self.close()

    def close(self) -> None:
        """Close the segment."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin_segment(self) -> None:
        self.close()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = _last_number(self.folder)
        while self._descriptor < 0:
            number += 1
            path = self.folder / f"{number:010d}{_SUFFIX}"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                self._descriptor = os.open(path, flags, 0o600)
            except FileExistsError:  # another writer in this folder had the number
                continue
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._size = 0
        self._ends_at = time.monotonic() + self.segment_s


def _last_number(folder: Path) -> int:
    """Return the highest number that was given to a segment, those that have become tables among them."""
    names = [path.name for path in (*segments(folder), *tables(folder))]
    return max((number_of(name) for name in names), default=0)


def number_of(name: str) -> int:
    """Return the number of a segment, or of a table that was made of it, by its file's name."""
    return int(name[:10])


def segments(folder: Path) -> list[Path]:
    """Return the segments in a folder, oldest first; the last one may still grow."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def tables(folder: Path) -> list[Path]:
    """Return the tables that closed segments in a folder have become, oldest first: ``NUMBER-BUNDLE.parquet``.

    List segments before tables: one that has gone meanwhile is then among these.
    """
    return sorted(path for path in (folder / TABLES).glob("*-*.parquet") if path.name[:10].isdigit())


def is_closed(segment: Path) -> bool:
    """Whether a segment holds something, and nobody writes to it any more."""
    try:
        return segment.stat().st_size > 0 and not is_held(segment)
    except OSError:
        return False


def read_segment(path: Path, offset: int = 0) -> Iterator[tuple[int, LoggedRequest]]:
    """Yield ``(offset, request)`` for every request in the whole frames from `offset` on.

    A reader goes on at that offset: behind the frame for its last request, at its beginning for those before. A torn
    tail ends the reading; damage in the middle is passed over.
    """
    for start, end, record in _frames(path, offset, _KINDS):
        try:
            found = list(record.requests()) if isinstance(record, LoggedBatch) else [record]
        except IndexError:  # of another format: as good as damaged
            continue
        for place, request in enumerate(found, start=1):
            yield (end if place == len(found) else start), request


class FrameAbout(msgspec.Struct, frozen=True):
    """What of a frame costs nearly nothing to read."""

    request_id: str | list[str]
    n_rows: int | list[int]
    is_shadow: bool = False


def frames_of(path: Path) -> Iterator[FrameAbout]:
    """Yield what the whole frames of a segment are, without their rows."""
    return (about for _, _, about in _frames(path, 0, dict.fromkeys(_KINDS, FrameAbout)))


def _frames(path: Path, offset: int, kinds: Mapping[bytes, type[T]]) -> Iterator[tuple[int, int, T]]:
    """Yield where each whole frame begins and ends, and what it says as the type that its magic stands for."""
    decoders = {magic: msgspec.msgpack.Decoder(kind) for magic, kind in kinds.items()}
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    at = content.find(MAGIC)
    while at >= 0 and at + _HEADER.size <= len(content):
        magic, length, crc = _HEADER.unpack_from(content, at)
        end = at + _HEADER.size + length
        payload = content[at + _HEADER.size : end]
        is_whole = magic in decoders and len(payload) == length and zlib.crc32(payload) == crc
        if is_whole:
            with contextlib.suppress(msgspec.DecodeError):  # of another format: as good as damaged
                yield offset + at, offset + end, decoders[magic].decode(payload)
        at = content.find(MAGIC, end if is_whole else at + 1)
