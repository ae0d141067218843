"""What a run has told so far, folded from its events."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.events import EventReader

PACE_POINTS = 120  # what the time that is left is judged by: the last two minutes at most


def read_events(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """Yield the events of a run as they lie on disk: merged by the backend, else as kernel and supervisor wrote."""
    if folder.events.exists():
        yield from (event for _, event in EventReader(folder.events).read())
        return
    events = [
        event for path in (folder.supervisor_events, folder.kernel_events) for _, event in EventReader(path).read()
    ]
    yield from sorted(events, key=lambda event: event.get("at", 0.0))


class History:
    """State, curves, notes and progress, as of the last event that was added.

    Attributes
    ----------
    seq : int
        Sequence number of the newest event that the backend has merged.
    series : dict
        ``(step, value)`` pairs by metric.
    telemetry : dict
        Newest value of how the work and the machine do.
    within : list
        ``(epoch, loss)`` of single batches, which a card draws until two epochs are judged.
    """

    def __init__(self, events: Iterable[dict[str, Any]] = ()) -> None:
        self.state = ""
        self.seq = 0
        self.error: dict[str, Any] | None = None
        self.started_at: float | None = None
        self.series: dict[str, list[tuple[float, float]]] = {}
        self.notes: dict[str, Any] = {}
        self.progress: dict[str, Any] = {}
        self.telemetry: dict[str, float] = {}
        self.within: list[tuple[float, float]] = []
        self._pace: deque[tuple[float, float]] = deque(maxlen=PACE_POINTS)
        for event in events:
            self.add(event)

    def add(self, event: dict[str, Any]) -> None:
        """Take in one event."""
        self.seq = max(self.seq, int(event.get("seq", 0)))
        match event.get("kind"):
            case "state" if event.get("state") == "stopping":
                self.notes["stopping"] = True
            case "state":
                self.state = str(event.get("state", self.state))
                self.error = event.get("error") or self.error
                if self.state == "running" and self.started_at is None:
                    self.started_at = event.get("at")
            case "metric":
                self._measure(event)
            case "note":
                self.notes[str(event.get("key"))] = event.get("value")
            case "progress":
                self.progress = {key: event[key] for key in ("done", "total", "unit") if key in event}
                self._came_to(event, float(event.get("done", 0)))
            case "telemetry" if isinstance(event.get("values"), dict):
                self._tell(event)

    def _tell(self, event: dict[str, Any]) -> None:
        told = event["values"]
        self.telemetry |= {name: value for name, value in told.items() if isinstance(value, (int, float))}
        if "epoch" not in told:
            return
        if "loss" in told:
            self.within.append((_as_float(told["epoch"]), _as_float(told["loss"])))
        if self.progress.get("unit") == "epochs":
            self._came_to(event, _as_float(told["epoch"]))

    def _came_to(self, event: dict[str, Any], done: float) -> None:
        if not self._pace or done > self._pace[-1][1]:
            self._pace.append((float(event.get("at", 0.0)), done))

    def _measure(self, event: dict[str, Any]) -> None:
        for name, value in event.get("values", {}).items():
            points = self.series.setdefault(name, [])
            step = event.get("step")
            points.append((float(len(points) if step is None else step), _as_float(value)))

    @property
    def is_ended(self) -> bool:
        """Whether the run has come to an end."""
        return self.state in ENDED

    @property
    def metrics(self) -> dict[str, float]:
        """Newest value of every metric."""
        return {name: points[-1][1] for name, points in self.series.items() if points}

    @property
    def losses(self) -> dict[str, list[tuple[float, float]]]:
        """The curves that a card draws: those whose names speak of a loss, else the first two."""
        found = {name: points for name, points in self.series.items() if "loss" in name}
        if self.within and all(len(points) < 2 for points in found.values()):
            return {"loss": self.within}
        return found or dict(list(self.series.items())[:2])

    def remaining_s(self, now: float) -> float | None:
        """Return about how long it still takes, by its pace of late; None where that cannot be said."""
        total = self.progress.get("total")
        if not total or self.started_at is None or len(self._pace) < 2:
            return None
        (first_at, first_done), (last_at, last_done) = self._pace[0], self._pace[-1]
        if last_done >= total:
            return None
        left = (total - last_done) * (last_at - first_at) / (last_done - first_done)
        return max(0.0, left - (now - last_at))


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
