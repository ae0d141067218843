"""Events of a run: one JSON line each; only newline-ended lines count."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

KINDS = ("state", "metric", "note", "progress", "cell", "result", "log", "check", "telemetry")

EARLY_S = 0.1  # whoever asks once a second is a little early now and then
PAUSE_S, PAUSE_MAX_S, PAUSE_SHARE = 1.0, 30.0, 1 / 300  # a day of telemetry is then some thousand lines


def pause_s(elapsed_s: float) -> float:
    """Return how long to wait between two pieces of telemetry, after so many seconds of a run.

    Examples
    --------
    >>> [pause_s(elapsed) for elapsed in (0, 60, 3600, 86400)]
    [1.0, 1.0, 12.0, 30.0]
    """
    return min(PAUSE_MAX_S, max(PAUSE_S, elapsed_s * PAUSE_SHARE))


class Pace:
    """How often telemetry of a run is told: each second, in the end each half minute."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = self._began

    def is_due(self) -> bool:
        """Whether it is time; whoever asks then tells."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + pause_s(now - self._began) - EARLY_S
        return True


class EventWriter:
    """Append events to a file of one's own. A failed write is counted and named, and never raises.

    Attributes
    ----------
    n_lost : int
        Events that could not be written.
    last_error : str
        What the system said, such as ``No space left on device``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_lost = 0
        self.last_error = ""
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _repair_tail(self._descriptor)
        except OSError as error:
            self.last_error = error.strerror or str(error)

    def write(self, kind: str, **data: Any) -> bool:
        """Append one event with the time of now (seconds since 1970, UTC); False where it was lost."""
        line = _encode({"at": time.time(), "kind": kind, **data}) + b"\n"
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
                raise OSError(28, "No space left on device")
        except OSError as error:
            self.n_lost += 1
            self.last_error = error.strerror or str(error)
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _repair_tail(descriptor: int) -> None:
    """Cut a torn last line, so that the next one is not glued to it."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - 4096)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end != size:
        os.ftruncate(descriptor, end)


class EventReader:
    """Follow an event file by offset, across restarts of whoever reads.

    Parameters
    ----------
    path : Path
        The file need not be there yet.
    offset : int
        Bytes already read.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield ``(offset behind the event, event)`` for every whole new line; what is not JSON is passed over."""
        try:
            if self.path.stat().st_size <= self.offset:
                return
            with self.path.open("rb") as file:
                file.seek(self.offset)
                content = file.read()
        except OSError:
            return
        for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
            self.offset += len(line)
            try:
                event = _decode(line)
            except msgspec.DecodeError:
                continue
            if isinstance(event, dict):
                yield self.offset, event
