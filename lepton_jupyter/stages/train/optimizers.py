"""The optimizer and its schedule: by torch's names in any case, or the user's own."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.torch_names import optimizer_class, scheduler_class

PLATEAU = torch.optim.lr_scheduler.ReduceLROnPlateau


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
    """Return the learning rate's schedule, stepped once an epoch; None for ``constant``.

    Raises
    ------
    LeptonError
        If the name is unknown.
    """
    word = job.spec.lr_scheduler
    own = job.names.get("lr_scheduler")
    if own is not None:
        return own(optimizer)  # type: ignore[operator]  # the user's function of an optimizer
    found = scheduler_class(word)
    return None if found is None else found(optimizer, **_arguments(found, job))


def _arguments(found: Any, job: Job) -> dict[str, Any]:
    """Return what a schedule of torch needs beside the optimizer, for the run's number of epochs."""
    epochs, lr = job.spec.epochs, job.spec.lr
    of_length = {"total_iters": epochs, "total_steps": epochs + 1, "step_size_up": max(1, epochs // 4)}
    required = {
        "T_max": epochs,
        "T_0": max(1, epochs // 3),
        "step_size": max(1, epochs // 3),
        "milestones": [max(1, epochs // 2), max(2, epochs * 3 // 4)],
        "gamma": 0.95,
        "max_lr": lr,
        "base_lr": lr / 10,
        "swa_lr": lr / 10,
    }
    names = inspect.signature(found).parameters
    return {key: value for key, value in of_length.items() if key in names} | {
        key: value for key, value in required.items() if key in names and names[key].default is inspect.Parameter.empty
    }


def step_scheduler(scheduler: Any, val_loss: float) -> None:
    """Go one epoch on."""
    if isinstance(scheduler, PLATEAU):
        scheduler.step(val_loss)
    elif scheduler is not None:
        scheduler.step()
