"""The three models of the training benchmark and their data, the same for everybody."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BATCH = {"mlp": 256, "cnn": 128, "transformer": 128}
N_TRAIN = {"mlp": 200_000, "cnn": 12_000, "transformer": 8_000}
N_VALIDATION = {"mlp": 20_000, "cnn": 1_200, "transformer": 800}
N_CLASSES = {"mlp": 2, "cnn": 10, "transformer": 5}


class MLP(nn.Module):
    """32-64-64-1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class CNN(nn.Module):
    """Two convolutions on 28×28."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Transformer(nn.Module):
    """Two layers over 16 tokens of 32 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(32, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.outward = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outward(self.encoder(self.inward(x)).mean(1))


MODELS: dict[str, Any] = {"mlp": MLP, "cnn": CNN, "transformer": Transformer}


def rows(model: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x [N, …] float32 and y [N] int64: training rows first, then those of validation."""
    order = torch.Generator().manual_seed(7)
    n = N_TRAIN[model] + N_VALIDATION[model]
    shape = {"mlp": (32,), "cnn": (1, 28, 28), "transformer": (16, 32)}[model]
    x = torch.randn(n, *shape, generator=order)
    directions = torch.randn(x[0].numel(), N_CLASSES[model], generator=order)
    y = (x.reshape(n, -1) @ directions + torch.randn(n, N_CLASSES[model], generator=order)).argmax(1)
    return x, y
