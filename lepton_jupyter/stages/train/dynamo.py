"""torch's optimizers without torch's compiler, for a training that compiles nothing.

Making an optimizer, and its first step, import ``torch._dynamo`` (torch 2.13: 1.4 to 1.9 s, as much as torch itself)
only to tell a compiler that nobody has asked for to leave them alone. Once it is loaded, all is as torch made it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

DISABLED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
KEPT = "__dynamo_disable"  # where `torch._compile` looks for what it made of a function
COMPILER = "torch._dynamo"


def spare_compiler() -> None:
    """Let torch's optimizers be made and stepped without loading the compiler; where it is loaded, do nothing."""
    if COMPILER in sys.modules:
        return
    for name in DISABLED:
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, KEPT):
            setattr(plain, KEPT, _until_loaded(plain))
    for found in list(vars(torch.optim).values()):
        if isinstance(found, type) and issubclass(found, Optimizer) and "step" in vars(found):
            _spare_step(found)


def _until_loaded(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is itself, until the compiler is there to be told to leave it alone."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if COMPILER in sys.modules and getattr(plain, KEPT, None) is call:
            delattr(plain, KEPT)  # torch makes its own at the next call
        return plain(*args, **kwargs)

    return call


def _spare_step(optimizer: Any) -> None:
    torchs = optimizer.step
    plain = getattr(torchs, "__wrapped__", None)
    if plain is None or torchs.__code__.co_name != "_use_grad":
        return  # not the wrapper that imports it

    @functools.wraps(plain)
    def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if COMPILER in sys.modules:
            return torchs(self, *args, **kwargs)
        before = torch.is_grad_enabled()
        try:
            torch.set_grad_enabled(self.defaults["differentiable"])
            return plain(self, *args, **kwargs)
        finally:
            torch.set_grad_enabled(before)

    optimizer.step = step


@contextmanager
def spare_wrapper() -> Iterator[None]:
    """Let `DistributedDataParallel` be made here without loading the compiler, which it asks for one word."""
    if COMPILER in sys.modules:
        yield
        return
    plain = getattr(getattr(DistributedDataParallel._inside_ddp_forward, "__wrapped__", None), "__wrapped__", None)
    if plain is not None and not hasattr(plain, KEPT):
        setattr(plain, KEPT, _until_loaded(plain))
    word = SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer")  # torch's default
    torch._dynamo = SimpleNamespace(utils=word)  # type: ignore[assignment]
    try:
        yield
    finally:
        del torch._dynamo
