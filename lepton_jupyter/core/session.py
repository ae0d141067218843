"""What an engine may say while it works. The runner hands it one; a test hands it a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


class Session(Protocol):
    """The engine's line to whoever follows the run."""

    @property
    def run_id(self) -> str:
        """Id of the run."""

    @property
    def folder(self) -> Path:
        """The run's folder: checkpoints and the bundle go below it."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that the run holds: ``cpu-0``, or a GPU's UUID; empty where nobody leased any."""

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        """Record metrics at a step (an epoch in our own loop). Never raises because a disk is full."""

    def note(self, key: str, value: Any) -> None:
        """Record one JSON-ready fact under a key, such as ``threads`` or ``exportable``."""

    def result(self, **summary: Any) -> None:
        """Record what the run found, JSON-ready: a card shows it."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the work is."""

    def telemetry(self, **values: float) -> None:
        """Record how the work goes between two metrics; call it a few times a second at most.

        Known: ``epoch`` (2.5: in the middle of the third), ``loss``, ``lr``, ``grad_norm``, ``rows_per_s``,
        ``steps_per_s``.
        """

    def should_stop(self) -> bool:
        """Whether the user asked the run to stop; the engine ends at its next step and keeps its best."""


class Quiet:
    """A session that nobody follows, and nobody stops."""

    def __init__(self, run_id: str, folder: Path, devices: tuple[str, ...] = ()) -> None:
        self.run_id, self.folder, self.devices = run_id, folder, devices

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        """Nobody hears it."""

    def note(self, key: str, value: Any) -> None:
        """Nobody hears it."""

    def result(self, **summary: Any) -> None:
        """Nobody hears it."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Nobody hears it."""

    def telemetry(self, **values: float) -> None:
        """Nobody hears it."""

    def should_stop(self) -> bool:
        """Nobody asks."""
        return False
