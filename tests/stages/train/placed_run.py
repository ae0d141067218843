"""A training in a process and a home of its own: ``python placed_run.py FOLDER TABLE``.

The table lies in the folder; the bundle is FOLDER/run/bundle.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.session import Quiet
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Store
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.spec import Train


class Net(nn.Module):
    """Its file lies elsewhere each time: what an exporter keeps of it must not show."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Reader(nn.Module):
    """Of prose alone."""

    def __init__(self, vocab_size: int, n_outputs: int) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(vocab_size, 8)
        self.out = nn.Linear(8, n_outputs)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(tokens))


TABLES = {
    "penguins.csv": (Net, {"target": ("species",)}),
    "reviews.csv": (Reader, {"target": ("liked",), "text": ("review",), "ignore": ("order", "days", "bought_by")}),
}


def main(folder: Path, table: str) -> None:
    """Add the table that lies in the folder, and train on it."""
    home = Home(folder / "home").make()
    model, flags = TABLES[table]
    add(home, Data(name="data", source=str(folder / table), **flags), None)  # type: ignore[arg-type]
    run = folder / "run"
    run.mkdir()
    spec = Train(model="Net", data="data", epochs=3)
    train(Quiet("0" * 12, run), model, Store(home).open("data"), spec)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
