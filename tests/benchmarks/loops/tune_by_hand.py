"""Optuna in one process around the best loop by hand: ``tune_by_hand.py SIZES BATCH ROWS EPOCHS TRIALS THREADS``.

SIZES: the widths of an MLP, such as ``30-32-32-1``. Prints one JSON line: trials per second from the first trial's
begin to the last one's end, and the best trial. With ``LR WEIGHT_DECAY`` behind, trains with these five times instead,
each with a seed of its own, and prints the validation losses.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from time import perf_counter

import numpy as np
import optuna
import torch
from torch import nn

N_HELD = 4000
Data = tuple[torch.Tensor, torch.Tensor]


def rows(n_features: int, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows [N + N_HELD, F] and labels of 0 and 1, a tenth of them wrong."""
    random = np.random.default_rng(0)
    x = random.normal(size=(n_rows + N_HELD, n_features)).astype(np.float32)
    inner = np.tanh(x @ random.normal(size=(n_features, 8)) / 3)
    y = (inner @ random.normal(size=8) > 0) ^ (random.random(len(x)) < 0.1)
    return x, y.astype(np.int64)


def mlp(sizes: list[int]) -> nn.Sequential:
    """Return the model of both sides."""
    parts: list[nn.Module] = []
    for place, (n_in, n_out) in enumerate(pairwise(sizes)):
        parts += [nn.Linear(n_in, n_out), *([nn.ReLU()] if place < len(sizes) - 2 else [])]
    return nn.Sequential(*parts)


def train(sizes: list[int], data: tuple[Data, Data], rate: float, decay: float, batch: int, epochs: int) -> float:
    """Train once; return the best epoch's validation loss."""
    (x, y), (x_held, y_held) = data
    module, criterion = mlp(sizes), nn.BCEWithLogitsLoss()
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay, fused=True)
    best = float("inf")
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for inputs, target in zip(x[order].split(batch), y[order].split(batch), strict=True):
            optimizer.zero_grad()
            criterion(module(inputs), target).backward()
            optimizer.step()
        with torch.inference_mode():
            best = min(best, float(criterion(module(x_held), y_held)))
    return best


def main(sizes: list[int], batch: int, n_rows: int, epochs: int, n_trials: int, threads: int) -> None:
    """Search, or train with the values that were given, and print what came out."""
    torch.set_num_threads(threads)
    features, labels = rows(sizes[0], n_rows)
    x, y = torch.from_numpy(features), torch.from_numpy(labels).float().unsqueeze(1)
    data = ((x[:n_rows], y[:n_rows]), (x[n_rows:], y[n_rows:]))
    if len(sys.argv) > 7:
        found = []
        for seed in range(5):
            torch.manual_seed(seed)
            found.append(train(sizes, data, float(sys.argv[7]), float(sys.argv[8]), batch, epochs))
        print(json.dumps({"val_losses": found}))
        return

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(0)
        rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
        return train(sizes, data, rate, decay, batch, epochs)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    started = perf_counter()
    study.optimize(objective, n_trials=n_trials)
    seconds = perf_counter() - started
    print(json.dumps({"trials_per_s": n_trials / seconds, "value": study.best_value, "params": study.best_params}))


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1].split("-")], *(int(word) for word in sys.argv[2:7]))
