"""The learning rate's way: ours step by step in closed form, torch's and the user's own epoch by epoch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.judged import is_greater_better
from lepton_jupyter.stages.train.torch_names import schedule_word, scheduler_class

PLATEAU = torch.optim.lr_scheduler.ReduceLROnPlateau
Plan = Callable[[int], float]  # the share of --lr after so many steps


class Schedule(Protocol):
    """What the loop asks of a schedule.

    Attributes
    ----------
    is_per_step : bool
        Whether `step` does anything: it is called after each step of the optimizer only then.
    """

    is_per_step: bool

    def step(self) -> None:
        """Set the rate of the next step."""

    def epoch(self, judged: float) -> None:
        """End an epoch that was judged by this value of ``--metric``."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it needs to go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, and set the rate that holds there."""


def make_schedule(job: Job, optimizer: torch.optim.Optimizer, n_steps: int | None) -> Schedule:
    """Return the schedule of a job; the rate of the first step is set.

    ``cosine``, ``one-cycle`` and ``constant`` set the rate step by step. ``step``, ``plateau`` and the names of
    `torch.optim.lr_scheduler` change it at the end of an epoch; so does the notebook's own (a function of an
    optimizer that returns something with ``step()``). ``--warmup`` goes before any of them.

    Parameters
    ----------
    job : Job
    optimizer : Optimizer
        To go on from a checkpoint, make the schedule first, then load the optimizer's state, then the schedule's.
    n_steps : int or None
        Steps of the optimizer in an epoch; None where nobody knows: then the rate changes between epochs only.

    Raises
    ------
    LeptonError
        If the name is unknown, or the schedule does not fit the optimizer.
    """
    spec = job.spec
    own = job.names.get("lr_scheduler")
    total = spec.epochs * (n_steps or 1)
    plan = PLANS.get(schedule_word(spec.lr_scheduler)) if own is None else None
    if plan is not None:
        return Planned(optimizer, plan(spec.warmup, total), is_per_step=n_steps is not None)
    inner = _torchs(job, optimizer) if own is None else _own(own, job, optimizer)
    return Epochs(optimizer, inner, n_warm=round(spec.warmup * total), is_per_step=n_steps is not None)


class Planned:
    """A schedule that knows the rate of every step from the start."""

    def __init__(self, optimizer: torch.optim.Optimizer, plan: Plan, *, is_per_step: bool) -> None:
        self.is_per_step = is_per_step
        self._plan = plan
        self._optimizer = optimizer  # not its groups: a state that is loaded brings others
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._done = 0
        self._set()

    def step(self) -> None:
        """Set the rate of the next step."""
        self._done += 1
        self._set()

    def epoch(self, judged: float) -> None:
        """End an epoch."""
        if not self.is_per_step:
            self.step()

    def _set(self) -> None:
        share = self._plan(self._done)
        for group, lr in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = lr * share

    def state_dict(self) -> dict[str, Any]:
        """Return what it needs to go on: a longer run goes on from the same step of a longer plan."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, and set the rate that holds there."""
        self._done = state["done"]
        self._set()


class Epochs:
    """A schedule of torch or of the notebook, stepped once an epoch; a warm-up before it goes step by step."""

    def __init__(self, optimizer: torch.optim.Optimizer, inner: Any, *, n_warm: int, is_per_step: bool) -> None:
        self.is_per_step = is_per_step and n_warm > 0
        self._optimizer, self._inner, self._n_warm = optimizer, inner, n_warm
        self._done = 0
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]  # as if there were no warm-up
        self._warm()

    def step(self) -> None:
        """Set the rate of the next step."""
        if self._done < self._n_warm:
            self._done += 1
            self._warm()

    def epoch(self, judged: float) -> None:
        """End an epoch."""
        groups = self._optimizer.param_groups
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
        if isinstance(self._inner, PLATEAU):
            self._inner.step(judged)
        else:
            self._inner.step()
        self._rates = [float(group["lr"]) for group in groups]
        if not self.is_per_step:
            self._done += 1
        self._warm()

    def _warm(self) -> None:
        if self._done < self._n_warm:
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * (self._done + 1) / self._n_warm
        elif self._done == self._n_warm:
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Return what it needs to go on."""
        state = self._inner.state_dict() if hasattr(self._inner, "state_dict") else {}
        return {"done": self._done, "rates": self._rates, "inner": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, and set the rate that holds there."""
        self._done, self._rates = state["done"], list(state["rates"])
        if hasattr(self._inner, "load_state_dict"):
            self._inner.load_state_dict(state["inner"])
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        self._warm()


def _cosine(warmup: float, total: int) -> Plan:
    """Return a linear warm-up, then half a cosine down to 0 (I. Loshchilov and F. Hutter, 2017, "SGDR")."""
    n_warm = round(warmup * total)
    n_rest = max(1, total - n_warm)

    def plan(done: int) -> float:
        if done < n_warm:
            return (done + 1) / n_warm
        return 0.5 * (1 + math.cos(math.pi * min(done - n_warm, n_rest) / n_rest))

    return plan


def _constant(warmup: float, total: int) -> Plan:
    """Return a linear warm-up, then the rate itself."""
    n_warm = round(warmup * total)
    return lambda done: (done + 1) / n_warm if done < n_warm else 1.0


def _one_cycle(warmup: float, total: int) -> Plan:
    """Return torch's OneCycleLR without its momentum: up for ``--warmup`` (else 0.3) of all steps, then down to 4e-6.

    L. N. Smith and N. Topin (2018), "Super-convergence: very fast training of neural networks using large rates".
    """
    peak = max(0.0, (warmup or 0.3) * total - 1)
    last = max(total - 1, peak + 1)

    def plan(done: int) -> float:
        if done < peak:
            return _eased(1 / 25, 1.0, done / peak)
        return _eased(1.0, 1 / 25e4, min(1.0, (done - peak) / (last - peak)))

    return plan


def _eased(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


PLANS: dict[str, Callable[[float, int], Plan]] = {"cosine": _cosine, "onecycle": _one_cycle, "constant": _constant}


def _torchs(job: Job, optimizer: torch.optim.Optimizer) -> Any:
    found: Any = scheduler_class(job.spec.lr_scheduler)
    return found(optimizer, **_arguments(found, job))


def _own(own: Any, job: Job, optimizer: torch.optim.Optimizer) -> Any:
    made = own(optimizer)
    if not hasattr(made, "step"):
        raise LeptonError(
            f"'{job.spec.lr_scheduler}' gave a {type(made).__name__}, not a schedule.",
            "Let it return one of torch.optim.lr_scheduler, made of the optimizer that it is given.",
        )
    return made


def _arguments(found: Any, job: Job) -> dict[str, Any]:
    """Return what a schedule of torch needs beside the optimizer, for the run's number of epochs."""
    spec = job.spec
    epochs, lr = spec.epochs, spec.lr
    if found is PLATEAU:
        mode = "max" if is_greater_better(spec.metric, job.task) else "min"
        patience = max(1, min(10, epochs // 10, spec.patience // 2 if spec.patience else 10))
        return {"mode": mode, "patience": patience}
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
