"""Modules of one shape as one program: their weights in one table, their forward pass in one call.

Any module goes through `torch.func.vmap`; `matrices` has a faster way for those of linear layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.func import functional_call, vmap

from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.heads import first_tensor
from lepton_jupyter.stages.train.losses import Loss

# T trials, B rows, P weights of one module

Weights = dict[str, torch.Tensor]  # by the module's own names, each [T, *shape]; and the rates [T] of its dropouts
LossesOf = Callable[[torch.Tensor], torch.Tensor]  # each trial's loss [T] of outputs [T, B, …]

PLAIN_LOSSES = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
TOLERANCE = 1e-4
RATE = ".rate"


class NotStackableError(Exception):
    """Modules cannot be one program; the text says why."""


class Forward(Protocol):
    """A forward pass of all trials."""

    name: str

    def __call__(self, weights: Weights, inputs: Tensors, *, is_shared: bool, is_training: bool) -> torch.Tensor:
        """Return the outputs [T, B, …] for rows [B, …] that all share, or [T, B, …]."""

    def gradients(
        self, weights: Weights, leaves: Sequence[str], inputs: Tensors, losses_of: LossesOf, *, is_shared: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return each trial's loss [T] in training, and the gradients of these weights, each [T, *shape]."""


def by_autograd(
    forward: Forward,
    weights: Weights,
    leaves: Sequence[str],
    inputs: Tensors,
    losses_of: LossesOf,
    *,
    is_shared: bool,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return what `Forward.gradients` does, for any way of calling."""
    losses = losses_of(forward(weights, inputs, is_shared=is_shared, is_training=True))
    return losses.detach(), list(torch.autograd.grad(losses.sum(), [weights[name] for name in leaves]))


class Table:
    """The weights of T modules.

    Attributes
    ----------
    flat : Tensor
        float32 [T, P].
    leaves : dict of Tensor
        Views of it, each [T, *shape], for which gradients are computed.
    rates : dict of Tensor
        float32 [T] of every dropout, by its name.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        named = [dict(module.named_parameters()) for module in modules]
        self.shapes = {name: weight.shape for name, weight in named[0].items()}
        rows = [torch.cat([weight.detach().reshape(-1) for weight in one.values()]) for one in named]
        self.rates = {
            name + RATE: torch.tensor([rates_of(module)[name] for module in modules], device=device)
            for name in rates_of(modules[0])
        }
        self._lay(torch.stack(rows).to(device))

    def _lay(self, flat: torch.Tensor) -> None:
        self.flat = flat
        self.leaves = {name: part.detach().requires_grad_() for name, part in self.parts(flat).items()}

    def parts(self, flat: torch.Tensor) -> Weights:
        """Return a table's columns under the module's own names."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        columns = flat.split(sizes, dim=1)
        return {
            name: column.unflatten(1, shape) if shape else column.squeeze(1)
            for (name, shape), column in zip(self.shapes.items(), columns, strict=True)
        }

    def keep(self, places: torch.Tensor) -> None:
        """Let all other trials go."""
        self.rates = {name: rate[places] for name, rate in self.rates.items()}
        self._lay(self.flat[places].clone())

    @property
    def weights(self) -> Weights:
        """What a forward pass is given."""
        return self.leaves | self.rates


def rates_of(module: nn.Module) -> dict[str, float]:
    """Return the rates of a module's dropouts, by name."""
    return {name: float(part.p) for name, part in module.named_modules() if type(part) is nn.Dropout}


def dropped(x: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """Return x with a share of its numbers at 0, and the others so much larger."""
    return x * (torch.rand_like(x) >= rate) / (1 - rate).clamp(min=1e-6)


class Dropped(nn.Module):
    """A dropout whose rate is a tensor, so that every trial may have its own."""

    rate: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rate", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, in training with holes."""
        return dropped(x, self.rate) if self.training else x


class Mapped:
    """`torch.func.vmap` over the module itself."""

    name = "vmap"

    def __init__(self, module: nn.Module, feed: Feed) -> None:
        self._template = copy.deepcopy(module)
        self._feed = feed
        for name in rates_of(module):
            place, _, last = name.rpartition(".")
            setattr(self._template.get_submodule(place), last, Dropped())

    def __call__(self, weights: Weights, inputs: Tensors, *, is_shared: bool, is_training: bool) -> torch.Tensor:
        """Return the outputs [T, B, …]."""
        if self._template.training is not is_training:
            self._template.train(is_training)

        def one(own: Weights, rows: Tensors) -> torch.Tensor:
            names = self._feed.names
            args = rows if len(names) == 1 else ()
            keywords = {} if len(names) == 1 else dict(zip(names, rows, strict=True))
            found: torch.Tensor = first_tensor(functional_call(self._template, own, args, keywords))
            return found

        how = vmap(one, in_dims=(0, None if is_shared else 0), randomness="different")
        outputs: torch.Tensor = how(weights, inputs)
        return outputs

    def gradients(
        self, weights: Weights, leaves: Sequence[str], inputs: Tensors, losses_of: LossesOf, *, is_shared: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return each trial's loss [T] and the gradients of its leaves, each [T, *shape]."""
        return by_autograd(self, weights, leaves, inputs, losses_of, is_shared=is_shared)


def check_forward(forward: Forward, modules: Sequence[nn.Module], feed: Feed, rows: Tensors) -> None:
    """Raise `NotStackableError` where the modules together answer otherwise than each by itself."""
    device = rows[0].device
    table = Table(modules, device)
    with torch.no_grad():
        found = forward(table.weights, rows, is_shared=True, is_training=False)
        for place, module in enumerate(modules):
            alone = first_tensor(feed.call(copy.deepcopy(module).to(device).eval(), rows))
            if found[place].shape != alone.shape or not torch.allclose(
                found[place], alone, atol=TOLERANCE, rtol=TOLERANCE
            ):
                raise NotStackableError("together they answer otherwise than each by itself")


def losses_of(loss: Loss) -> Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]:
    """Return what gives each trial's mean loss [T] of outputs [T, B, …] and targets, shared [B, …] or [T, B, …]."""
    function: Any = loss.function
    if type(function) not in PLAIN_LOSSES or getattr(function, "weight", None) is not None:

        def mapped(output: torch.Tensor, target: torch.Tensor, is_shared: bool) -> torch.Tensor:
            found: torch.Tensor = vmap(loss, in_dims=(0, None if is_shared else 0))(output, target)
            return found

        return mapped
    bare = copy.copy(function)
    bare.reduction = "none"

    def plain(output: torch.Tensor, target: torch.Tensor, is_shared: bool) -> torch.Tensor:
        if is_shared:
            target = target.expand(len(output), *target.shape)
        if loss.wants == "codes":
            rows = bare(output.flatten(0, 1), target.reshape(-1))
        else:
            rows = bare(output.reshape(target.shape), target)
        found: torch.Tensor = rows.reshape(len(output), -1).mean(1)
        return found

    return plain
