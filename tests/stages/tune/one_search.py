"""A search in a process of its own, to be killed: its folder, home, --batched and devices are the arguments."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn

from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.store import Store
from lepton_jupyter.stages.tune.engine import open_search, run_search
from lepton_jupyter.stages.tune.searching import Searching
from lepton_jupyter.stages.tune.spec import Tune
from tests.stages.train.conftest import Recorder

TRIALS = 40


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_outputs))
        with (Path(os.environ["SEEN"]) / str(os.getpid())).open("a"):
            pass  # which processes make models

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def search(folder: Path, home: Path, batched: str, devices: tuple[str, ...], *, epochs: int = 30) -> Searching:
    session = Recorder(folder)
    session.devices = devices
    dataset = Store(Home(home)).open("wdbc")
    texts = ("lr=loguniform(1e-4,1e-1)", "weight_decay=loguniform(1e-6,1e-1)")
    spec = Tune(
        model="Net", data=dataset.ref, search=texts, trials=TRIALS, epochs=epochs, pruner="none", batched=batched
    )  # type: ignore[arg-type]
    found = open_search(session, Net, dataset, spec, {})
    run_search(found)
    return found


if __name__ == "__main__":
    search(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], tuple(sys.argv[4:]))
