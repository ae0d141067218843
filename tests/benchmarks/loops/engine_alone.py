"""Our engine with nothing on: no events, telemetry, tracking, checkpoints. ``python engine_alone.py MODEL EPOCHS``.

Beside ``%lepton train``, which has all of them, it shows what they cost. The dataset lies in LEPTON_HOME. Prints one
JSON line: rows per second over the epochs that began after the export proof had ended.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from models import MODELS

from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.store import Store
from lepton_jupyter.stages.train import checkpoints, engine
from lepton_jupyter.stages.train.spec import Train


class Silent:
    """A session that nobody follows; it only takes the times."""

    run_id = "0" * 12
    devices: tuple[str, ...] = ("cpu-0",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs_at: list[float] = []
        self.proved_at = 0.0

    def log(self, **_: Any) -> None:
        self.epochs_at.append(perf_counter())

    def note(self, key: str, _: Any) -> None:
        if key == "exportable" and not self.proved_at:
            self.proved_at = perf_counter()

    def result(self, **_: Any) -> None: ...

    def progress(self, *_: Any) -> None: ...

    def telemetry(self, **_: Any) -> None: ...

    def should_stop(self) -> bool:
        return False


def main(model: str, epochs: int) -> None:
    """Train without a word, and print how fast it went."""
    for name in ("keep", "flush", "save", "due"):
        if hasattr(checkpoints.Checkpoints, name):
            setattr(checkpoints.Checkpoints, name, _nothing(name))
    dataset = Store(Home.current()).open(f"bench_{model}")
    spec = Train(
        model=MODELS[model].__name__, data=dataset.ref, epochs=epochs, optimizer="adam", lr_scheduler="constant",
        batch_size=int(sys.argv[3]), preprocess="none",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        session = Silent(Path(folder))
        engine.train(session, MODELS[model], dataset, spec)
        times = [at for at in session.epochs_at if at > session.proved_at]
        n = dataset.record.split_rows["train"]
        print(json.dumps({"rows_per_s": n * (len(times) - 1) / (times[-1] - times[0])}))


def _nothing(name: str) -> Any:
    def keep(self: Any, kind: str, state: Any, *_: Any, **__: Any) -> None:
        if kind == "best":
            self.best = state

    return keep if name == "keep" else lambda *_, **__: False


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
