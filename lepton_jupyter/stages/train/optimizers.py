"""The optimizer and its schedule: by torch's names in any case, or the user's own."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.torch_names import optimizer_class


def make_optimizer(job: Job, module: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a job.

    Raises
    ------
    LeptonError
        If the name is unknown, or the optimizer needs what our loop does not give.
    """
    spec = job.spec
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not weights:
        raise LeptonError(f"'{job.name}' has no weights to train.", "Register it as it is: lepton.save(model, name=…).")
    chosen: Any = job.names.get("optimizer") or optimizer_class(spec.optimizer)
    if isinstance(chosen, torch.optim.Optimizer):
        raise LeptonError(
            f"'{spec.optimizer}' is an optimizer of other weights than those of the run.",
            "Give a class or a function of (params, lr) instead.",
        )
    takes_lr = "lr" in inspect.signature(chosen).parameters
    return chosen(weights, lr=spec.lr) if takes_lr else chosen(weights)


def make_scheduler(job: Job, optimizer: torch.optim.Optimizer) -> Any:
    """Return the schedule of a job, stepped once an epoch."""
    from lepton_jupyter.stages.train.schedules import make_schedule

    return make_schedule(job, optimizer, None)


def step_scheduler(scheduler: Any, val_loss: float) -> None:
    """Go one epoch on."""
    scheduler.epoch(val_loss)
