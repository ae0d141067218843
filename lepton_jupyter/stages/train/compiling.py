"""``torch.compile``, where it is shown to earn back what it costs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.batches import Batch
from lepton_jupyter.stages.train.feed import Feed
from lepton_jupyter.stages.train.heads import first_tensor

LEAST_LEFT_S = 600.0  # compiling takes up to a minute: a training that ends sooner does without
LEAST_GAIN = 1.1  # a step that is hardly faster is not worth other digits
N_WARM, N_TIMED = 3, 10
TOLERANCE = 1e-2  # of outputs, relative: the same model, in another order of sums
BACKEND = "inductor"


@dataclass(frozen=True)
class Decided:
    """Whether a model is compiled, and why.

    Attributes
    ----------
    module : callable or None
        What stands for the module in training; None: itself.
    why : str
        For a person.
    """

    module: Callable[..., Any] | None
    why: str


def is_worth_trying(asked: str, module: nn.Module, *, left_s: float) -> str:
    """Return why a model is not compiled; empty where it is to be tried.

    Parameters
    ----------
    asked : str
        ``auto``, ``yes`` or ``no``.
    left_s : float
        What the training still takes as it is.
    """
    if asked == "no":
        return "not asked for"
    if hasattr(module, "training_step"):
        return "the model has a training_step of its own"
    if asked == "auto" and left_s < LEAST_LEFT_S:
        return f"the training takes {left_s:.0f} s more, and compiling up to a minute"
    return ""


def try_compiled(asked: str, module: nn.Module, feed: Feed, batch: Batch) -> Decided:
    """Compile a copy, compare it with the model itself on a batch, and decide.

    Raises
    ------
    LeptonError
        If it was asked for and cannot be done.
    """
    inputs, _ = batch
    with torch.random.fork_rng(devices=[]):
        try:
            began = perf_counter()
            plain, twin = copy.deepcopy(module).train(), copy.deepcopy(module).train()
            compiled = _compile(twin)
            seconds = [_step_s(feed, one, inputs) for one in (plain, compiled)]
            cost_s = perf_counter() - began
            is_same = _is_same(feed, module, inputs)
        except Exception as error:  # whatever the compiler says: a training goes on without it
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
            if asked == "yes":
                raise LeptonError(
                    f"--compile yes: the model cannot be compiled. {reason}", "Leave it at auto."
                ) from error
            return Decided(None, f"it cannot be compiled: {reason}")
    gain = seconds[0] / seconds[1]
    figures = f"a step takes {seconds[0] * 1e3:.2f} ms as it is and {seconds[1] * 1e3:.2f} ms compiled"
    if not is_same:
        return Decided(None, "compiled it answers differently")
    if asked == "auto" and gain < LEAST_GAIN:
        return Decided(None, f"{figures}; trying took {cost_s:.0f} s")
    return Decided(for_whole_batches(module, len(batch[1])), f"{figures}; trying took {cost_s:.0f} s")


def _compile(module: nn.Module) -> Any:
    mode = "reduce-overhead" if next(module.parameters()).is_cuda and BACKEND == "inductor" else None
    return torch.compile(module, backend=BACKEND, mode=mode)  # on GPUs with CUDA graphs


def for_whole_batches(module: nn.Module, n_rows: int) -> Callable[..., Any]:
    """Return the compiled module for whole batches; others, once an epoch, would be compiled anew."""
    compiled = _compile(module)

    def call(*args: torch.Tensor, **named: torch.Tensor) -> Any:
        first = args[0] if args else next(iter(named.values()))
        return (compiled if len(first) == n_rows else module)(*args, **named)

    return call


def _step_s(feed: Feed, module: Any, inputs: Any) -> float:
    """Return the seconds of a step forth and back: the fastest of some, after some more."""
    best = float("inf")
    for place in range(N_WARM + N_TIMED):
        began = perf_counter()
        loss = first_tensor(feed.call(module, inputs)).float().square().mean()
        loss.backward()
        loss.item()  # waits for the device
        if place >= N_WARM:
            best = min(best, perf_counter() - began)
    return best


def _is_same(feed: Feed, module: nn.Module, inputs: Any) -> bool:
    """Whether a compiled copy answers as the model does, in evaluation mode."""
    plain = copy.deepcopy(module).eval()
    with torch.no_grad():
        wanted = first_tensor(feed.call(plain, inputs)).float()
        found = first_tensor(feed.call(_compile(plain), inputs)).float()
    return torch.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE * float(wanted.abs().max()))
