"""How much of a request log is kept: what is too old or too much goes, and is counted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.processes import Lock, is_held
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.formats.requestlog import SEGMENT_BYTES, TABLES, frames_of

DAYS = 90.0
GB = 1.0
RECORD = "removed.json"
LOCK = ".removing"

Count = Callable[[Path], tuple[int, int]]


class Keep(NamedTuple):
    """What is kept of a log: as long, and as many bytes."""

    age_s: float = 86_400 * DAYS
    size_bytes: int = int(GB * 10**9)

    @property
    def segment_bytes(self) -> int:
        """Size at which a segment is closed: a small log must not be one segment."""
        return max(1, min(SEGMENT_BYTES, self.size_bytes // 4))


def keep_of(options: Options) -> Keep:
    """Return how much of a log is kept."""
    days, gb = (DAYS if options.log_days is None else options.log_days), options.log_gb
    return Keep(86_400 * days, int((GB if gb is None else gb) * 10**9))


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept no more, since the log began.

    Attributes
    ----------
    n_requests, n_rows, size_bytes : int
        What shadows said is in `size_bytes` only.
    until : float
        Newest of it, seconds since 1970, UTC; 0 where nothing was removed.
    """

    n_requests: int = 0
    n_rows: int = 0
    size_bytes: int = 0
    until: float = 0.0

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            n_requests=self.n_requests + other.n_requests,
            n_rows=self.n_rows + other.n_rows,
            size_bytes=self.size_bytes + other.size_bytes,
            until=max(self.until, other.until),
        )


def removed(folder: Path) -> Removed:
    """Return what is gone of the log in a folder, by whoever removed it."""
    return _read(folder / RECORD) + _read(folder / TABLES / RECORD)


def surplus(paths: Sequence[Path], keep: Keep, *, now: float | None = None, room: int = 0) -> list[Path]:
    """Return which files must go, of those given from the oldest to the newest.

    Parameters
    ----------
    paths : sequence of Path
        What somebody writes to stays, and does not count.
    keep : Keep
    now : float, optional
        Seconds since 1970, UTC.
    room : int
        Bytes that are kept free for what is written now.
    """
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if not is_held(path):
                about = path.stat()
                found.append((path, about.st_size, about.st_mtime))
    oldest = (time.time() if now is None else now) - keep.age_s
    excess = sum(size for _, size, _ in found) + room - keep.size_bytes
    gone = []
    for path, size, written_at in found:
        if excess > 0 or written_at < oldest:
            gone.append(path)
            excess -= size
    return gone


def remove(paths: Sequence[Path], record: Path, count: Count) -> Removed:
    """Remove files and return what was removed now; `record`, whose one writer is the caller, says how much in all.

    Nothing is removed while another process removes by the same record.

    Raises
    ------
    OSError
        As the file system says.
    """
    lock = Lock.take(record.with_name(LOCK)) if paths else None
    if lock is None:
        return Removed()
    gone = Removed()
    try:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                n_requests, n_rows = count(path)
                path.unlink()
                gone += Removed(n_requests=n_requests, n_rows=n_rows, size_bytes=about.st_size, until=about.st_mtime)
        write_atomic(record, encode(_read(record) + gone))
    finally:
        lock.release()
    return gone


def count_segment(path: Path) -> tuple[int, int]:
    """Return how many requests and rows a segment holds, what shadows said left out."""
    n_requests = n_rows = 0
    for about in frames_of(path):
        if not about.is_shadow:
            n_requests += len(about.request_id) if isinstance(about.request_id, list) else 1
            n_rows += sum(about.n_rows) if isinstance(about.n_rows, list) else about.n_rows
    return n_requests, n_rows


def _read(path: Path) -> Removed:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Removed)
    except (OSError, msgspec.DecodeError):
        return Removed()
