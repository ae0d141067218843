"""A training in a process of its own that kills itself at a step: ``python killed_run.py HOME FOLDER KILL_AT``.

0 never kills. It writes ``told.json``: the weights' digest and the history of the whole run.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.session import Quiet
from lepton_jupyter.stages.data.store import Store
from lepton_jupyter.stages.train import checkpoints, loop, strides
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.spec import Train

KILL_AT = int(sys.argv[3])
n_steps = 0


class Net(nn.Module):
    """Draws from every generator, and kills its process."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, n_outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global n_steps
        if self.training and torch.is_grad_enabled():
            n_steps += 1
            if n_steps == KILL_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            x = x + 0.01 * float(np.random.normal())
        return self.net(x)


def main() -> None:
    """Train to the end, or to the kill."""
    for module in (checkpoints, loop):
        module.PAUSE_S = 0.02  # type: ignore[attr-defined]
    checkpoints.COST_SHARE = 1.0
    strides.STRIDE_S = 0.005
    folder = Path(sys.argv[2])
    dataset = Store(Home(Path(sys.argv[1]))).open("wdbc")
    spec = Train(model="Net", data="wdbc", epochs=40, checkpoint_every_s=0.02, ema=0.99, lr_scheduler="one-cycle")
    trained = train(Quiet("0" * 12, folder), Net, dataset, spec)
    history = {name: values for name, values in trained.history.items() if name != "rows_per_s"}
    digest = hashlib.sha256(trained.bundle.read("weights.safetensors")).hexdigest()
    (folder / "told.json").write_text(json.dumps({"weights": digest, "history": history}))


if __name__ == "__main__":
    main()
