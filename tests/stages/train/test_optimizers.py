"""Optimizers by name, compared with torch's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.optimizers import make_optimizer
from lepton_jupyter.stages.train.state_file import read_state, write_state
from lepton_jupyter.stages.train.torch_names import OPTIMIZERS

SOFTMAX, SIGMOID = Head("softmax", 2, positive_index=1), Head("sigmoid", 2, positive_index=1)


WORKING = sorted(value.__name__ for value in OPTIMIZERS.values() if value.__name__ not in ("LBFGS", "SparseAdam"))


@pytest.mark.parametrize("word", WORKING)
def test_every_optimizer_of_torch_learns_and_goes_on_from_a_file(
    job: Callable[..., Job], word: str, tmp_path: Path
) -> None:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0])

    def at_work() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        return module, make_optimizer(job(optimizer=word.lower(), lr=0.01), module)

    def go(module: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> list[float]:
        losses = []
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            loss = ((module(x)[:, 0] - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    losses = go(*at_work(), 30)
    assert losses[-1] < losses[0]
    module, optimizer = at_work()
    go(module, optimizer, 20)
    write_state(tmp_path / "state", {"model": module.state_dict(), "optimizer": optimizer.state_dict()})
    state = read_state(tmp_path / "state")
    module, optimizer = at_work()
    module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    assert go(module, optimizer, 10) == losses[20:]


@pytest.mark.parametrize("word", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_the_fused_step_is_taken_where_torch_has_one(job: Callable[..., Job], word: str) -> None:
    assert make_optimizer(job(optimizer=word), nn.Linear(2, 2)).param_groups[0]["fused"] is True
    plain = make_optimizer(job(optimizer=word, optimizer_args={"foreach": False}), nn.Linear(2, 2))
    assert not plain.param_groups[0]["fused"]


def test_weight_decay_and_arguments_reach_the_optimizer(job: Callable[..., Job]) -> None:
    arguments = {"betas": [0.8, 0.9], "amsgrad": True}
    group = make_optimizer(job(weight_decay=0.3, lr=0.02, optimizer_args=arguments), nn.Linear(2, 2)).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"], group["amsgrad"]) == (0.02, 0.3, (0.8, 0.9), True)
    made: dict[str, Any] = {}

    def mine(weights: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        made.update(lr=lr, momentum=momentum, weight_decay=weight_decay)
        return torch.optim.SGD(weights, lr=lr)

    one = job(optimizer="mine", names={"optimizer": mine}, weight_decay=0.1, optimizer_args={"momentum": 0.9})
    make_optimizer(one, nn.Linear(2, 2))
    assert made == {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.1}


def test_muon_steps_matrices_and_leaves_the_rest_to_adamw(job: Callable[..., Job]) -> None:
    optimizer = make_optimizer(job(optimizer="muon", weight_decay=0.2), nn.Linear(3, 2))
    assert [tuple(weight.shape) for group in optimizer.param_groups for weight in group["params"]] == [(2, 3), (2,)]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.2]
    assert "ns_steps" in optimizer.param_groups[0] and "betas" in optimizer.param_groups[1]


def test_sparse_adam_takes_sparse_embeddings_alone(job: Callable[..., Job]) -> None:
    assert make_optimizer(job(optimizer="sparseadam"), nn.Embedding(3, 2, sparse=True))
    with pytest.raises(LeptonError, match="has a Linear, whose are dense"):
        make_optimizer(job(optimizer="sparseadam"), nn.Linear(2, 2))
