"""The request log's thread: answers are handed over without waiting, and written a moment later."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from lepton_jupyter.formats.requestlog import LoggedRequest, SegmentWriter
from lepton_jupyter.serving.predict import Scored
from lepton_jupyter.serving.release import Release

MAX_ROWS_WAITING = 250_000
PAUSE_S = 0.2
LONGEST_ERROR = 200


class Journal:
    """Write what was asked and answered. `add` never waits: what finds the queue full is dropped and counted.

    Attributes
    ----------
    n_dropped : int
        Requests that found the queue full.
    """

    def __init__(self, folder: Path) -> None:
        self.n_dropped = 0
        self._writer = SegmentWriter(folder)
        self._waiting: deque[tuple[Release, Scored, str, float, float] | LoggedRequest] = deque()
        self._n_rows_added = 0  # written by the caller's thread only
        self._n_rows_done = 0  # written by ours only
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="request log", daemon=True)
        self._thread.start()

    @property
    def n_lost(self) -> int:
        """Requests that are in no segment: dropped, or not taken by the disk."""
        return self.n_dropped + self._writer.n_lost

    def add(self, release: Release, scored: Scored, request_id: str, latency_ms: float) -> None:
        """Hand over one answered request."""
        if self._has_room(len(scored.outputs.prediction)):
            self._waiting.append((release, scored, request_id, latency_ms, time.time()))

    def add_refused(self, version: str, request_id: str, latency_ms: float, *, status: int, error: str) -> None:
        """Hand over one request for rows that was refused, or failed."""
        if self._has_room(1):
            self._waiting.append(
                LoggedRequest(
                    request_id=request_id,
                    at=time.time(),
                    version=version,
                    latency_ms=latency_ms,
                    n_rows=0,
                    status=status,
                    error=error[:LONGEST_ERROR],
                )
            )

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._is_closing.set()
        self._thread.join(timeout=10)

    def _has_room(self, n_rows: int) -> bool:
        if self._n_rows_added - self._n_rows_done + n_rows > MAX_ROWS_WAITING:
            self.n_dropped += 1
            return False
        self._n_rows_added += n_rows
        return True

    def _write_on(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_closing.wait(PAUSE_S)  # no wake-up a request: it would cost the hot path
            while self._waiting:
                waiting = self._waiting.popleft()
                if isinstance(waiting, LoggedRequest):
                    self._writer.write(waiting)
                    self._n_rows_done += 1
                    continue
                release, scored, request_id, latency_ms, at = waiting
                self._writer.write(_record(release, scored, request_id=request_id, latency_ms=latency_ms, at=at))
                self._n_rows_done += len(scored.outputs.prediction)
                del scored, release, waiting  # an old release must not live on here
        self._writer.close()


def _record(release: Release, scored: Scored, *, request_id: str, latency_ms: float, at: float) -> LoggedRequest:
    outputs = scored.outputs
    is_classes = outputs.probability is not None
    classes = release.schema.classes
    return LoggedRequest.of_rows(
        scored.rows,
        request_id=request_id,
        at=at,
        version=release.config.version,
        bundle=release.config.bundle.rpartition("/")[2],
        latency_ms=latency_ms,
        ids=_fitting(scored.ids),
        prediction=[classes[code] for code in outputs.prediction] if is_classes else outputs.prediction.tolist(),
        probability=outputs.probability.astype(np.dtype("<f4")).tobytes() if outputs.probability is not None else b"",
    )


def _fitting(ids: list[Any] | None) -> list[Any] | None:
    """Return the ids with integers of over 64 bits as text: MessagePack has no room for them."""
    if ids is None:
        return None
    return [str(value) if isinstance(value, int) and abs(value) >= 2**63 else value for value in ids]
