"""What a run has told so far, folded from its events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.events import EventReader


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
    """

    def __init__(self, events: Iterable[dict[str, Any]] = ()) -> None:
        self.state = ""
        self.seq = 0
        self.error: dict[str, Any] | None = None
        self.started_at: float | None = None
        self.series: dict[str, list[tuple[float, float]]] = {}
        self.notes: dict[str, Any] = {}
        self.progress: dict[str, Any] = {}
        self.progress_at: list[tuple[float, float]] = []
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
                self.progress_at.append((float(event.get("at", 0.0)), float(event.get("done", 0))))

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
        return found or dict(list(self.series.items())[:2])

    def remaining_s(self, now: float) -> float | None:
        """Return about how long it still takes, by its pace so far; None where that cannot be said."""
        total, done = self.progress.get("total"), self.progress.get("done")
        if not total or not done or self.started_at is None or done >= total:
            return None
        first_at, first_done = self.progress_at[0]
        last_at, last_done = self.progress_at[-1]
        if last_done <= first_done:
            return None
        left = (total - done) * (last_at - first_at) / (last_done - first_done)
        return max(0.0, left - (now - last_at))


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
