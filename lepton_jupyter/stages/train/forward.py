"""From a training batch to its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.heads import first_tensor
from lepton_jupyter.stages.train.losses import Loss
from lepton_jupyter.stages.train.precision import Precision
from lepton_jupyter.stages.train.strides import LossOf


def loss_function(
    module: nn.Module, called: Callable[..., Any], *, feed: Feed, loss: Loss, precision: Precision
) -> LossOf:
    """Return what gives the loss of a training batch: the module's own step where it has one.

    Parameters
    ----------
    called : callable
        Stands for the module in a forward pass: itself, or what was made of it.
    """
    own: Callable[..., Any] = getattr(module, "training_step", None)  # type: ignore[assignment]

    def of_own(inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        __tracebackhide__ = True
        answer = own((*feed.given(inputs), target))
        return answer["loss"] if isinstance(answer, dict) else answer

    def of_output(inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        __tracebackhide__ = True
        return loss(first_tensor(feed.call(called, inputs)), target)

    plain = of_own if own is not None else of_output
    if precision.name == "fp32":
        return plain

    def lower(inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        __tracebackhide__ = True
        with precision.context():
            return plain(inputs, target)

    return lower
