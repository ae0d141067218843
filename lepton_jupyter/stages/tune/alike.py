"""Which trials are so alike that one program can train them: they differ in numbers, and in nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lepton_jupyter.stages.train.frameworks.registry import framework_of
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.torch_names import OUR_SCHEDULES, optimizer_class, schedule_word
from lepton_jupyter.stages.tune.space import Space
from lepton_jupyter.stages.tune.stacked import NotStackableError
from lepton_jupyter.stages.tune.trial import Question

NUMBERS = ("lr", "weight_decay", "seed")  # flags in which trials of one program may differ
OPTIMIZERS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
ARGUMENTS = ("betas", "eps", "amsgrad", "momentum", "dampening", "nesterov")
OWN_STEPS = ("training_step", "validation_step")

_REFUSED: tuple[tuple[str, Callable[[Train], bool]], ...] = (
    ("--augment changes batches by chance", lambda spec: bool(spec.augment)),
    ("--ema keeps an average of its own", lambda spec: spec.ema is not None),
    ("--accumulate takes a batch in parts", lambda spec: spec.accumulate > 1),
    ("--compile yes compiles each by itself", lambda spec: spec.compile == "yes"),
    ("--scale-target is of one training", lambda spec: spec.scale_target),
)


def why_not(question: Question, spec: Train, space: Space) -> str:
    """Return why trials go one by one, as far as what was asked tells; empty where they may go together."""
    model = question.model
    if framework_of(model, spec.model).name != "torch":
        return "only torch modules can be one program"
    for one in space:
        if not (one.is_number and (one.name in NUMBERS if one.place == "flag" else one.place == "param")):
            return f"'{one.name}' is more than a number of a step"
    own = [name for name in OWN_STEPS if hasattr(model, name)]
    if own:
        return f"the module has its own {own[0]}"
    brought = [key for key in question.names if not key.startswith("augment:")]
    if brought:
        return f"--{brought[0].replace('_', '-')} is the notebook's own"
    said = next((reason for reason, is_so in _REFUSED if is_so(spec)), "")
    return said or _of_steps(spec)


def _of_steps(spec: Train) -> str:
    chosen = optimizer_class(spec.optimizer)
    if chosen not in OPTIMIZERS:
        return f"{chosen.__name__} does not step many as one (adam, adamw and sgd do)"
    others = [key for key in spec.optimizer_args if key not in ARGUMENTS]
    if others:
        return f"{chosen.__name__} with {others[0]} does not step many as one"
    if schedule_word(spec.lr_scheduler) not in OUR_SCHEDULES:
        return f"--lr-scheduler {spec.lr_scheduler} is no share of the rate ({', '.join(OUR_SCHEDULES.values())} are)"
    return ""


def check_alike(one: nn.Module, other: nn.Module) -> None:
    """Raise `NotStackableError` where two modules differ in more than weights and rates of dropouts.

    A module is refused as well where it has buffers, or weights that are frozen, shared or no float32.
    """
    name = type(one).__name__
    if next(one.buffers(), None) is not None:
        raise NotStackableError(f"'{name}' has buffers, which change with every batch of its own")
    if [own for own in OWN_STEPS if hasattr(one, own)]:
        raise NotStackableError("the module has its own step")
    weights = list(one.named_parameters(remove_duplicate=False))
    if len(weights) != len(list(one.parameters())):
        raise NotStackableError(f"'{name}' uses some weights twice")
    if not all(weight.requires_grad and weight.dtype == torch.float32 for _, weight in weights):
        raise NotStackableError(f"'{name}' has weights that are frozen, or no float32")
    if [(key, weight.shape) for key, weight in weights] != [(key, p.shape) for key, p in other.named_parameters()]:
        raise NotStackableError("trials differ in the shapes of their weights")
    for (path, part), (_, twin) in zip(one.named_modules(), other.named_modules(), strict=True):
        differing = _differing(part, twin)
        if differing and not (type(part) is nn.Dropout and differing == ["p"]):
            where = f"'{path}'" if path else f"'{name}' itself"
            raise NotStackableError(f"trials differ in '{differing[0]}' of {where}, which is no rate of an nn.Dropout")


def _differing(one: nn.Module, other: nn.Module) -> list[str]:
    """Return the names of what two modules keep beside weights and parts, where it differs."""
    if type(one) is not type(other):
        return ["type"]
    found = []
    for key in {**vars(one), **vars(other)}:
        if key in ("_parameters", "_modules", "_buffers"):
            continue
        mine, theirs = vars(one).get(key), vars(other).get(key)
        if not (mine is theirs or _is_equal(mine, theirs)):
            found.append(key)
    return found


def _is_equal(one: Any, other: Any) -> bool:
    if inspect.isfunction(one) and inspect.isfunction(other):
        return one.__code__ is other.__code__
    try:
        return bool(one == other)
    except Exception:  # arrays, and whatever else does not say
        return False
