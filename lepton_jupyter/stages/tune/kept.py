"""The best weights so far: in the run's own ``checkpoints/``, whichever trial they came from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.stages.train.job import Outcome

BEST, WEIGHTS = "best.json", "best.safetensors"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Which trial the weights are of."""

    params: dict[str, Any]
    value: float
    history: dict[str, list[float]]
    epochs: int | None = None


@dataclass
class Keeper:
    """Keeps the weights of the best trial.

    Parameters
    ----------
    folder : Path
        The run's.
    """

    folder: Path
    is_maximized: bool

    @property
    def place(self) -> Path:
        """Where the weights are kept."""
        return self.folder / "checkpoints"

    def read(self) -> Kept | None:
        """Return what is kept, or None."""
        try:
            return msgspec.json.decode((self.place / BEST).read_bytes(), type=Kept)
        except (OSError, msgspec.DecodeError):
            return None

    def is_better(self, value: float) -> bool:
        """Whether a value is better than that of what is kept."""
        kept = self.read()
        return kept is None or (value > kept.value if self.is_maximized else value < kept.value)

    def has_weights(self, params: dict[str, Any]) -> bool:
        """Whether the weights of the trial with these values are here."""
        kept = self.read()
        return kept is not None and kept.params == params and (self.place / WEIGHTS).exists()

    def keep(self, params: dict[str, Any], value: float, outcome: Outcome, trial: Path) -> None:
        """Take over the weights below a trial's folder, where its value is the best so far."""
        weights = trial / "checkpoints" / WEIGHTS
        if not self.is_better(value) or not weights.exists():
            return
        self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.place / BEST).unlink(missing_ok=True)  # whoever is killed between the two has none, not a wrong one
        shutil.move(weights, self.place / WEIGHTS)
        kept = Kept(params=params, value=value, history=outcome.history, epochs=outcome.epochs)
        write_atomic(self.place / BEST, msgspec.json.encode(kept), is_durable=False)
