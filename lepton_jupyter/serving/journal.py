"""The request log's thread: answers are handed over without waiting, and written a moment later."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lepton_jupyter.formats.requestlog import (
    LoggedBatch,
    LoggedRequest,
    SegmentWriter,
    joined,
    logged_pixels,
    packed_fields,
)
from lepton_jupyter.serving.predict import Asked
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.scorer import Outputs

MAX_ROWS_WAITING = 250_000
PAUSE_S = 0.2
LONGEST_ERROR = 200
FRAME_REQUESTS = 256  # in one frame, at most; and so many rows, unless one request has more
FRAME_ROWS = 4096


class _Answered(NamedTuple):
    release: Release
    asked: Asked
    outputs: Outputs
    request_id: str
    latency_ms: float
    at: float
    is_shadow: bool


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
        self._waiting: deque[_Answered | LoggedRequest] = deque()
        self._n_rows_added = 0  # written by the caller's thread only
        self._n_rows_done = 0  # written by ours only
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="request log", daemon=True)
        self._thread.start()

    @property
    def n_lost(self) -> int:
        """Requests that are in no segment: dropped, or not taken by the disk."""
        return self.n_dropped + self._writer.n_lost

    def add(
        self,
        release: Release,
        asked: Asked,
        outputs: Outputs,
        *,
        request_id: str,
        latency_ms: float,
        is_shadow: bool = False,
    ) -> None:
        """Hand over one answered request, or what a shadow says to it."""
        if self._has_room(len(outputs.prediction)):
            if asked.hashes is not None:  # what waits here must not hold images
                asked = asked._replace(rows=logged_pixels(asked.rows))
            self._waiting.append(_Answered(release, asked, outputs, request_id, latency_ms, time.time(), is_shadow))

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
                self._n_rows_done += self._write_some()
        self._writer.close()

    def _write_some(self) -> int:
        """Write the next frame of each version; return how many rows that was, a refusal counted as one."""
        first = self._waiting.popleft()
        if isinstance(first, LoggedRequest):
            self._writer.write(first)
            return 1
        together = [first]
        n_rows = len(first.outputs.prediction)
        while self._waiting and n_rows < FRAME_ROWS and len(together) < FRAME_REQUESTS:
            following = self._waiting[0]
            if isinstance(following, LoggedRequest):
                break
            together.append(following)
            n_rows += len(following.outputs.prediction)
            self._waiting.popleft()
        frames: dict[tuple[int, bool], list[_Answered]] = {}
        for each in together:  # two versions may answer by turns
            frames.setdefault((id(each.release), each.is_shadow), []).append(each)
        for frame in frames.values():
            self._writer.write(_record(frame))
        return n_rows


def _record(together: Sequence[_Answered]) -> LoggedBatch:
    release = together[0].release
    outputs = [each.outputs for each in together]
    prediction = np.concatenate([part.prediction for part in outputs]).tolist()
    if outputs[0].probability is not None:
        prediction = [release.schema.classes[code] for code in prediction]
    is_of_images = together[0].asked.hashes is not None
    shares = [part.probability for part in outputs if part.probability is not None]
    return LoggedBatch(
        request_id=[each.request_id for each in together],
        at=[each.at for each in together],
        latency_ms=[each.latency_ms for each in together],
        n_rows=[len(part.prediction) for part in outputs],
        ids=[_fitting(each.asked.ids) for each in together],
        version=release.config.version,
        bundle=release.config.bundle.rpartition("/")[2],
        prediction=prediction,
        probability=joined(shares, "<f4"),
        is_shadow=together[0].is_shadow,
        images=[digest for each in together for digest in each.asked.hashes or ()] if is_of_images else [],
        **packed_fields([each.asked.rows for each in together]),
    )


def _fitting(ids: list[Any] | None) -> list[Any] | None:
    """Return the ids with integers of over 64 bits as text: MessagePack has no room for them."""
    if ids is None:
        return None
    return [str(value) if isinstance(value, int) and abs(value) >= 2**63 else value for value in ids]
