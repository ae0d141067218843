"""The model that everybody serves."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """32-64-64-2."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
