"""How many threads a model is trained with."""

from __future__ import annotations

import torch
from torch import nn

SMALL_MODEL = 1_000_000  # weights; below, one thread is as fast as several, and leaves the others to others


def settle_threads(module: nn.Module) -> int:
    """Set torch's number of threads for this model, and return it. Equal metrics need equal threads."""
    n_weights = sum(parameter.numel() for parameter in module.parameters())
    if n_weights < SMALL_MODEL:
        torch.set_num_threads(1)
    return torch.get_num_threads()
