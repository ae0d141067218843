"""Lightning and skorch on the same rows: ``python peers.py MODEL NAME EPOCHS``, by an interpreter that has them.

Prints one JSON line: rows per second from the first training step to the last, as each library trains when asked
plainly (no loggers, no bars, no checkpoints).
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from time import perf_counter
from typing import Any

import torch
from models import BATCH, MODELS, N_TRAIN, rows
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")


def lightning(model: str, epochs: int) -> float:
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    x, y = rows(model)
    n = N_TRAIN[model]
    y = y.float().unsqueeze(1) if model == "mlp" else y
    times: list[float] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MODELS[model]()
            self.criterion = nn.BCEWithLogitsLoss() if model == "mlp" else nn.CrossEntropyLoss()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            if not times:
                times.append(perf_counter())
            return self.criterion(self.inner(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", self.criterion(self.inner(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(
        Module(),
        DataLoader(TensorDataset(x[:n], y[:n]), batch_size=BATCH[model], shuffle=True),
        DataLoader(TensorDataset(x[n:], y[n:]), batch_size=8192),
    )
    return n * epochs / (perf_counter() - times[0])


def skorch(model: str, epochs: int) -> float:
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback
    from skorch.helper import predefined_split

    x, y = rows(model)
    n = N_TRAIN[model]
    y = y.float().unsqueeze(1) if model == "mlp" else y
    times: list[float] = []

    class Clock(Callback):
        def on_batch_begin(self, net: Any, **_: Any) -> None:
            if not times:
                times.append(perf_counter())

    net = NeuralNetClassifier(
        MODELS[model],
        criterion=nn.BCEWithLogitsLoss if model == "mlp" else nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam, lr=1e-3, batch_size=BATCH[model], max_epochs=epochs, verbose=0,
        iterator_train__shuffle=True, iterator_valid__batch_size=8192,
        train_split=predefined_split(TensorDataset(x[n:], y[n:])), callbacks=[("clock", Clock())],
        callbacks__valid_acc=None,
    )  # fmt: skip
    net.fit(TensorDataset(x[:n], y[:n]), None)
    return n * epochs / (perf_counter() - times[0])


if __name__ == "__main__":
    print(
        json.dumps(
            {"rows_per_s": {"lightning": lightning, "skorch": skorch}[sys.argv[2]](sys.argv[1], int(sys.argv[3]))}
        )
    )
