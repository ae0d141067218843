"""Follow one run: merge what kernel, supervisor and backend say into ``events.jsonl``, and keep its view.

``events.jsonl`` is the truth about a run that has not ended: each line holds its sequence number and how many bytes
of the two other files had been read, so that a backend that starts again goes on exactly there.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from lepton_jupyter.backend.view import applied, first_view
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.processes import Identity
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.events import EventReader, EventWriter
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import Failure

Event = dict[str, Any]


class FollowedRun:
    """One run that is followed. Its methods may be called from any thread.

    Attributes
    ----------
    view : RunView
        As it stands; replaced, never changed.
    supervisor, kernel : Identity or None
        Whom a signal goes to.
    devices : tuple of str
        The lease that the run was given.
    stop_asked : str or None
        Why somebody asked it to stop.
    ending : dict or None
        The end that the supervisor wrote, until `end` makes it seen: see `pull`.
    begun_at : float
        When its present supervisor was started.
    n_restarts : int
        How often it was started again after a death that counts.
    """

    def __init__(self, folder: RunFolder, record: RunRecord) -> None:
        self.folder = folder
        self.record = record
        self.view = first_view(folder, record)
        self.supervisor: Identity | None = None
        self.kernel: Identity | None = None
        self.devices: tuple[str, ...] = ()
        self.stop_asked: str | None = None
        self.ending: Event | None = None
        self.begun_at = 0.0
        self.n_restarts = 0
        self._logged: set[tuple[str, int]] | None = None
        self._lock = threading.RLock()
        self._kernel_events = EventReader(folder.kernel_events)
        self._supervisor_events = EventReader(folder.supervisor_events)
        self._merged = [0, 0]
        self._unwritten: list[Event] = []
        self._writer: EventWriter | None = None
        self._replay()

    def _replay(self) -> None:
        for _, event in EventReader(self.folder.events).read():
            self._merged = list(event.get("read", self._merged))
            self._apply(event)
        self._kernel_events.offset, self._supervisor_events.offset = self._merged

    def close(self) -> None:
        """Close the file that is written."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    @property
    def is_ended(self) -> bool:
        """Whether the view shows an end."""
        return self.view.state in ENDED

    def add(self, kind: str, **data: Any) -> None:
        """Say something as the backend."""
        with self._lock:
            self._put({"kind": kind, **data}, "backend")

    def pull(self) -> bool:
        """Merge what is new; return whether anything was.

        An end that the supervisor wrote is not merged: it waits in `ending` until `end` is called, so that what the
        run leaves (a version) is there before anybody sees that it has ended.
        """
        with self._lock:
            if self.is_ended or self.ending is not None:
                return False
            # the supervisor's events are read first: what the kernel wrote before an end is then surely there
            from_supervisor = list(self._supervisor_events.read())
            from_kernel = list(self._kernel_events.read())
            if from_supervisor and _is_end(from_supervisor[-1][1]):
                self.ending = from_supervisor.pop()[1]
            from_supervisor = [item for item in from_supervisor if not _is_end(item[1])]  # of an earlier life
            either = heapq.merge(
                ((event.get("at", 0.0), 0, offset, event) for offset, event in from_kernel),
                ((event.get("at", 0.0), 1, offset, event) for offset, event in from_supervisor),
                key=lambda item: (item[0], item[1]),
            )
            n_new = 0
            for _, place, offset, event in either:
                self._merged[place] = offset
                if self._is_told_again(event):
                    continue
                self._put(event, ("kernel", "supervisor")[place])
                n_new += 1
            self._flush()
            return n_new > 0

    def end(self, state: str, *, error: Failure | None = None, at: float | None = None, **data: Any) -> None:
        """Let everybody see that the run has ended."""
        with self._lock:
            self._merged[1] = max(self._merged[1], self._supervisor_events.offset)
            told = {"error": msgspec.to_builtins(error)} if error is not None else {}
            when = {"at": at} if at is not None else {}
            self._put({"kind": "state", "state": state, **when, **told, **data}, "backend")
            self.ending = None
            self.close()

    def go_on(self, why: str, *, is_counted: bool) -> None:
        """Put a run whose processes are dead back into the queue: it goes on from its checkpoint."""
        with self._lock:
            self._merged[1] = max(self._merged[1], self._supervisor_events.offset)
            self.ending = None
            n_restarts = self.n_restarts + is_counted
            told = {"restarting": why, "restarts": n_restarts, "needs": f"to go on: {why}"}
            self._put({"kind": "state", "state": "queued", **told}, "backend")
            self._put({"kind": "note", "key": "restart_reason", "value": why}, "backend")
            self._put({"kind": "note", "key": "restarts", "value": n_restarts}, "backend")

    def _is_told_again(self, event: Event) -> bool:
        """Whether a run that goes on from a checkpoint tells of steps that it had told of before it died."""
        if self._logged is None or event.get("kind") != "metric" or not isinstance(event.get("values"), dict):
            return False
        event["values"] = {
            name: value for name, value in event["values"].items() if (name, event.get("step", 0)) not in self._logged
        }
        return not event["values"]

    def _remember(self) -> None:
        """Know every metric's steps from now on: some may come again."""
        if self._logged is None:
            told = (event for _, event in EventReader(self.folder.events).read())
            self._logged = {pair for event in (*told, *self._unwritten) for pair in _steps(event)}

    def events_after(self, seq: int, reader: EventReader) -> Iterator[Event]:
        """Yield the merged events behind a sequence number; `reader` is the caller's own, on `folder.events`."""
        with self._lock:
            unwritten = list(self._unwritten)
        for _, event in reader.read():
            if event.get("seq", 0) > seq:
                seq = event["seq"]
                yield _told(event)
        for event in unwritten:
            if event["seq"] > seq:
                seq = event["seq"]
                yield _told(event)

    def _put(self, event: Event, source: str) -> None:
        merged = {"at": time.time(), **event, "seq": self.view.seq + 1, "source": source, "read": list(self._merged)}
        self._unwritten.append(merged)
        self._apply(merged)
        self._flush()

    def _flush(self) -> None:
        """Write what is not written; what a full disk refuses stays in memory and is tried again."""
        if self._unwritten and self._writer is None:
            self._writer = EventWriter(self.folder.events)
        while self._unwritten and self._writer is not None:
            event = self._unwritten[0]
            if not self._writer.write(event["kind"], **{key: value for key, value in event.items() if key != "kind"}):
                self.close()
                return
            self._unwritten.pop(0)

    def _apply(self, event: Event) -> None:
        self.view = applied(self.view, event)
        for name in ("process", "kernel"):
            if isinstance(event.get(name), dict) and event["kind"] == "state":
                identity = Identity(**event[name])
                if name == "process":
                    self.supervisor = identity
                else:
                    self.kernel = identity
        if event.get("source") == "backend":
            if "device" in event:
                self.devices = tuple(filter(None, str(event["device"] or "").split(",")))
            if event.get("state") == "stopping":
                self.stop_asked = str(event.get("why", ""))
            if event.get("state") == "starting":
                self.begun_at = float(event.get("at", 0.0))
            if "restarting" in event:
                self.n_restarts = int(event.get("restarts", 0))
                self.supervisor = self.kernel = None
                self.devices = ()
                self._remember()
        if event["kind"] == "note" and event.get("key") in ("resumed", "restarts"):
            self._remember()
        if self._logged is not None:
            self._logged.update(_steps(event))


def _is_end(event: Event) -> bool:
    return event.get("kind") == "state" and event.get("state") in ENDED


def _steps(event: Event) -> list[tuple[str, int]]:
    """Return the metrics of an event, each with its step."""
    if event.get("kind") != "metric" or not isinstance(event.get("values"), dict):
        return []
    return [(name, event.get("step", 0)) for name in event["values"]]


def _told(event: Event) -> Event:
    return {key: value for key, value in event.items() if key != "read"}
