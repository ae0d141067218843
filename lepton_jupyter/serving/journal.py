"""The request log's thread: answers are handed over without waiting, and written a moment later."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.formats.personal import TENSOR, mode_of
from lepton_jupyter.formats.requestlog import (
    LoggedBatch,
    LoggedRequest,
    SegmentWriter,
    is_sampled,
    joined,
    logged_pixels,
    packed_fields,
    segments,
)
from lepton_jupyter.formats.retention import RECORD, count_segment, keep_of, remove, removed, surplus
from lepton_jupyter.serving.predict import Asked
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.scorer import Outputs
from lepton_jupyter.serving.withholding import spare

MAX_ROWS_WAITING = 250_000
PAUSE_S = 0.2
LAG_S = 0.05  # under load: of what waits longer there is so much that each collection of garbage stops requests
TIDY_S = 30.0
LONGEST_ERROR = 200
QUOTES = (400, 422)  # statuses whose reason quotes what was sent
UNQUOTED = "The reason is not kept: it may quote a personal value."
FRAME_REQUESTS = 256  # in one frame, at most; and so many rows, unless one request has more
FRAME_ROWS = 4096
AS_SAID_NOWHERE = Options()

logger = logging.getLogger(__name__)


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

    Parameters
    ----------
    folder : Path
    key_path : Path
        Where the key for pseudonyms lies.
    options : Options
        What is kept, until `follow` says otherwise.

    Attributes
    ----------
    n_dropped : int
        Requests that found the queue full.
    n_left_out : int
        Requests that are in no segment because a share of all is logged.
    n_removed : int
        Requests that were logged and are kept no more, since the log began.
    """

    def __init__(self, folder: Path, key_path: Path, options: Options = AS_SAID_NOWHERE) -> None:
        self.n_dropped = self.n_left_out = self.n_not_written = self.n_removed = 0
        self._folder, self._key_path, self._options = folder, key_path, options
        self._may_quote = True
        self._tidy_at = 0.0
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
        return self.n_dropped + self.n_not_written + self._writer.n_lost

    def follow(self, *releases: Release) -> None:
        """Keep as much as the first of these releases wants, and no personal value of any of them."""
        self._options = releases[0].config.options
        self._may_quote = all(mode_of(each.schema, each.config.options) == "keep" for each in releases)

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
        if self._has_room(_worth(outputs)):
            if asked.hashes is not None:  # what waits here must not hold images
                asked = asked._replace(rows=logged_pixels(asked.rows))
            self._waiting.append(_Answered(release, asked, outputs, request_id, latency_ms, time.time(), is_shadow))

    def add_refused(self, version: str, request_id: str, latency_ms: float, *, status: int, error: str) -> None:
        """Hand over one request for rows that was refused, or failed."""
        if self._has_room(1):
            may_quote = self._may_quote or status not in QUOTES
            self._waiting.append(
                LoggedRequest(
                    request_id=request_id,
                    at=time.time(),
                    version=version,
                    latency_ms=latency_ms,
                    n_rows=0,
                    status=status,
                    error=error[:LONGEST_ERROR] if may_quote else UNQUOTED,
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
        while not self._is_closing.wait(self._pause_s()):  # no wake-up a request: it would cost the hot path
            if self._waiting:
                self._n_rows_done += self._write_some()
            if time.monotonic() >= self._tidy_at:
                self._tidy()
        while self._waiting:
            self._n_rows_done += self._write_some()
        self._writer.close()

    def _pause_s(self) -> float:
        """Return how long to wait before the next frame, so that what waits now is written within `LAG_S`.

        Frames one behind the other would keep the interpreter from the requests for long; one at a time costs a few.
        """
        if not self._waiting:
            return PAUSE_S
        n_rows = self._n_rows_added - self._n_rows_done
        return LAG_S / (1 + max(len(self._waiting) / FRAME_REQUESTS, n_rows / FRAME_ROWS))

    def _tidy(self) -> None:
        """Close what has been written for long, and remove what is too old or too much."""
        self._tidy_at = time.monotonic() + TIDY_S
        keep = keep_of(self._options)
        self._writer.segment_bytes = keep.segment_bytes
        self._writer.close_old()
        try:
            gone = surplus(segments(self._folder), keep, room=keep.segment_bytes)
            remove(gone, self._folder / RECORD, count_segment)
        except Exception as error:  # the log is written on, whatever lies there
            logger.warning("what is too much of the request log cannot be removed: %s", error)
        self.n_removed = removed(self._folder).n_requests

    def _write_some(self) -> int:
        """Write some of what waits: answers, one frame a version, then what was refused; return how many rows."""
        refused: list[LoggedRequest] = []
        answered: dict[tuple[int, bool], list[_Answered]] = {}  # two versions may answer by turns
        n_rows = n_requests = 0
        while self._waiting and n_rows < FRAME_ROWS and n_requests < FRAME_REQUESTS:
            each = self._waiting.popleft()
            n_requests += 1
            if isinstance(each, LoggedRequest):
                n_rows += 1
                refused.append(each)
            else:
                n_rows += _worth(each.outputs)
                answered.setdefault((id(each.release), each.is_shadow), []).append(each)
        for frame in answered.values():
            self._write_frame(frame)
        for each in refused:
            self._put(each)
        return n_rows

    def _write_frame(self, frame: Sequence[_Answered]) -> None:
        share = _share(frame[0].release)
        if share < 1.0:
            kept = [each for each in frame if is_sampled(each.request_id, share)]
            self.n_left_out += 0 if frame[0].is_shadow else len(frame) - len(kept)
            frame = kept
        if frame:
            self._put(frame)

    def _put(self, told: LoggedRequest | Sequence[_Answered]) -> None:
        """Write one record; whatever keeps it from being written, those behind it are."""
        n_requests = 1 if isinstance(told, LoggedRequest) else len(told)
        try:
            self._writer.write(told if isinstance(told, LoggedRequest) else _record(told, self._key_path))
        except LeptonError as error:  # no key: what would be a pseudonym is not written as it is
            self.n_not_written += n_requests
            logger.warning("%s %d requests are not logged", error.message, n_requests)
        except Exception:
            self.n_not_written += n_requests
            logger.exception("%d requests are not logged", n_requests)


def _worth(outputs: Outputs) -> int:
    """Return how much room a request takes: one without rows takes some too."""
    return max(1, len(outputs.prediction))


def _share(release: Release) -> float:
    said = release.config.options.log_share
    return 1.0 if said is None else said


def _record(together: Sequence[_Answered], key_path: Path) -> LoggedBatch:
    release = together[0].release
    asked = [each.asked for each in together]
    spared = spare(release, [each.rows for each in asked], [_fitting(each.ids) for each in asked], key_path)
    outputs = [each.outputs for each in together]
    prediction = np.concatenate([part.prediction for part in outputs]).tolist()
    if outputs[0].probability is not None:
        prediction = [release.schema.classes[code] for code in prediction]
    shares = [part.probability for part in outputs if part.probability is not None]
    return LoggedBatch(
        request_id=[each.request_id for each in together],
        at=[each.at for each in together],
        latency_ms=[each.latency_ms for each in together],
        n_rows=[len(part.prediction) for part in outputs],
        ids=spared.ids,
        version=release.config.version,
        bundle=release.config.bundle.rpartition("/")[2],
        prediction=prediction,
        probability=joined(shares, "<f4"),
        is_shadow=together[0].is_shadow,
        images=[] if TENSOR in spared.withheld else [digest for each in asked for digest in each.hashes or ()],
        share=_share(release),
        withheld=spared.withheld,
        **packed_fields(spared.parts),
    )


def _fitting(ids: list[Any] | None) -> list[Any] | None:
    """Return the ids with integers of over 64 bits as text: MessagePack has no room for them."""
    if ids is None:
        return None
    return [str(value) if isinstance(value, int) and abs(value) >= 2**63 else value for value in ids]
