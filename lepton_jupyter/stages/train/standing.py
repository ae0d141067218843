"""Where a training stands: all that a checkpoint holds, taken and put back to the last bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lepton_jupyter.stages.train.average import Average
from lepton_jupyter.stages.train.checkpoints import restore, snapshot
from lepton_jupyter.stages.train.job import History
from lepton_jupyter.stages.train.randomness import random_state, set_random_state
from lepton_jupyter.stages.train.schedules import Schedule
from lepton_jupyter.stages.train.sharding import laid_out, own_part, whole
from lepton_jupyter.stages.train.team import ALONE, Team


@dataclass
class Standing:
    """How far a training has come.

    Attributes
    ----------
    epoch : int
        The one that is going on, from 1; one more than there are after the last.
    step : int
        Steps done in it.
    losses, sizes : list
        Loss and rows of each of these steps.
    lr : float
        Learning rate at its beginning.
    at_start : dict
        State of the random generators at its beginning.
    best : float or None
        By which the best epoch was judged.
    best_epoch : int
        0 while there is none.
    metrics : dict
        Those of the best epoch.
    history : dict of list
    """

    epoch: int = 1
    step: int = 0
    losses: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    lr: float = 0.0
    at_start: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    history: History = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a checkpoint holds it."""
        return {
            **vars(self),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "sizes": torch.tensor(self.sizes, dtype=torch.int64),
            "metrics": dict(self.metrics),
            "history": {name: list(values) for name, values in self.history.items()},
        }

    @classmethod
    def of_dict(cls, state: dict[str, Any]) -> Standing:
        """Return it as it was taken."""
        return cls(**{**state, "losses": state["losses"].tolist(), "sizes": state["sizes"].tolist()})


@dataclass
class Parts:
    """What moves while a model is trained.

    Attributes
    ----------
    generator : Generator
        Of the augmentation.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    generator: torch.Generator
    average: Average | None
    device: torch.device


def capture(parts: Parts, standing: Standing, settled: dict[str, Any], team: Team = ALONE) -> dict[str, Any]:
    """Return copies of all that moves, on the CPU.

    Parameters
    ----------
    settled : dict
        What a run that goes on takes over: ``threads``, ``batch_size`` and so on, JSON-ready.
    """
    return {
        "settled": settled,
        "standing": standing.as_dict(),
        "module": snapshot(parts.module),
        "optimizer": _copied(parts.optimizer.state_dict()),
        "schedule": _copied(parts.schedule.state_dict()),
        "average": _copied(parts.average.state_dict()) if parts.average is not None else None,
        "generator": parts.generator.get_state(),
        "random": random_state(parts.device),
        "randoms": team.random_states(random_state(parts.device)),
    }


def put_back(parts: Parts, state: dict[str, Any], team: Team = ALONE) -> Standing:
    """Put all that moves back to a captured state; return how far that was."""
    restore(parts.module, state["module"])
    parts.optimizer.load_state_dict(_copied(state["optimizer"]))
    _lay_out(parts.optimizer)
    parts.schedule.load_state_dict(_copied(state["schedule"]))
    if parts.average is not None and state["average"] is not None:
        parts.average.load_state_dict(state["average"])
    parts.generator.set_state(state["generator"])
    standing = Standing.of_dict(_copied(state["standing"]))
    states = state.get("randoms") or [state["random"]]
    set_random_state(states[team.rank] if len(states) == team.n else state["random"], parts.device)
    if len(states) != team.n:  # another number of devices than before
        team.seed(standing.epoch, standing.step)
    return standing


def is_finite(module: nn.Module) -> bool:
    """Whether every weight that lies in this process is a finite number."""
    weights = [own_part(weight.detach()) for weight in module.parameters() if weight.is_floating_point()]
    weights = [weight for weight in weights if weight.numel()]
    if not weights:
        return True
    norms = torch._foreach_norm(weights, float("inf"))
    return bool(torch.isfinite(torch.stack([norm.float() for norm in norms])).all())


def _copied(value: Any) -> Any:
    """Return a nested state with copies of its tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return whole(value.detach()).cpu().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Lay the optimizer's tensors out as the weights are (channels last, shards): fused steps want that."""
    for weight, state in optimizer.state.items():
        for key, value in state.items():
            if not isinstance(value, torch.Tensor) or value.shape != weight.shape:
                continue
            value = state[key] = laid_out(value, weight)
            if value.stride() != weight.stride():
                state[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
