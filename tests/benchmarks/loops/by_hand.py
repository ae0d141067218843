"""What an expert writes by hand, and what most people write: ``python by_hand.py MODEL KIND EPOCHS THREADS``.

KIND: ``permuted`` (a shuffled copy an epoch, batches are views), ``indexed`` (a gather a batch) or ``loader`` (a
DataLoader over a TensorDataset). Prints one JSON line: rows per second from the first step to the last.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from time import perf_counter

import torch
from models import BATCH, MODELS, N_TRAIN, rows
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

Batch = tuple[torch.Tensor, torch.Tensor]


def permuted(x: torch.Tensor, y: torch.Tensor, size: int) -> Iterator[Batch]:
    order = torch.randperm(len(x))
    return zip(x[order].split(size), y[order].split(size), strict=True)


def indexed(x: torch.Tensor, y: torch.Tensor, size: int) -> Iterator[Batch]:
    return ((x[index], y[index]) for index in torch.randperm(len(x)).split(size))


def main(model: str, kind: str, epochs: int, threads: int) -> None:
    """Train, and print how fast it went."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    x, y = rows(model)
    n, size = N_TRAIN[model], BATCH[model]
    y = y.float().unsqueeze(1) if model == "mlp" else y
    module = MODELS[model]()
    criterion = nn.BCEWithLogitsLoss() if model == "mlp" else nn.CrossEntropyLoss()
    # the expert's optimizer is fused; most people's is as it comes
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, **({} if kind == "loader" else {"fused": True}))
    loader = DataLoader(TensorDataset(x[:n], y[:n]), batch_size=size, shuffle=True) if kind == "loader" else None
    started = perf_counter()
    for _ in range(epochs):
        module.train()
        total = torch.zeros(())
        if loader is not None:
            batches: Iterator[Batch] = iter(loader)
        else:
            batches = (permuted if kind == "permuted" else indexed)(x[:n], y[:n], size)
        for inputs, target in batches:
            optimizer.zero_grad()
            loss = criterion(module(inputs), target)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        module.eval()
        with torch.inference_mode():
            output = torch.cat([module(part) for part in x[n:].split(8192)])
            val_loss = float(criterion(output, y[n:]))
    seconds = perf_counter() - started
    print(json.dumps({"rows_per_s": n * epochs / seconds, "val_loss": val_loss}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
