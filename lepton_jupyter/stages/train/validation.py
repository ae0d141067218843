"""A pass over the validation split: the loss and every metric that epochs are judged by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lepton_jupyter.stages.train.batches import Batch, Batches
from lepton_jupyter.stages.train.feed import Feed, Rows, chunks
from lepton_jupyter.stages.train.heads import Head, first_tensor
from lepton_jupyter.stages.train.judged import Judge
from lepton_jupyter.stages.train.losses import Loss
from lepton_jupyter.stages.train.precision import Precision
from lepton_jupyter.stages.train.team import ALONE, Team


def validate(
    module: nn.Module,
    held: Rows | Batches,
    *,
    feed: Feed,
    loss: Loss,
    judge: Judge,
    precision: Precision,
    team: Team = ALONE,
) -> dict[str, float]:
    """Return the metrics of the validation split, in original units; the module is left in evaluation mode."""
    __tracebackhide__ = True
    module.eval()
    own = getattr(module, "validation_step", None)
    losses, sizes, outputs, targets = [], [], [], []  # of the batches that are this process's own
    with torch.no_grad(), precision.context():
        for (inputs, target), is_own in team.dealt(_parts(held)):
            output = first_tensor(feed.call(module, inputs))
            if own is None:
                value = loss(output, target)
            else:
                answer = own((*inputs, target))
                value = answer["loss"] if isinstance(answer, dict) else answer
            if not is_own:
                continue
            losses.append(value.detach().reshape(()))
            sizes.append(len(target))
            outputs.append(output)
            if not isinstance(held, Rows):
                targets.append(target)
    found = team.collected(losses, sizes, outputs, targets)
    if found is None:
        return team.told({})
    losses, sizes, outputs, targets = found
    values = held.values if isinstance(held, Rows) else decoded_targets(torch.cat(targets), loss, judge.head)
    mean = float(np.average(torch.stack(losses).tolist(), weights=sizes))
    return team.told(judge.metrics(judge.head.decode(torch.cat(outputs)), values, mean))


def _parts(held: Rows | Batches) -> Iterator[Batch]:
    if not isinstance(held, Rows):
        yield from held.epoch(1)
        return
    start = 0
    for inputs in chunks(held.inputs):
        n = len(inputs[0])
        yield inputs, held.targets[start : start + n]
        start += n


def decoded_targets(targets: torch.Tensor, loss: Loss, head: Head) -> npt.NDArray[Any]:
    """Return targets as they were before `losses.encode_targets`: int64 codes [N] or float64 [N, T]."""
    array = targets.cpu().numpy()
    if loss.wants == "codes":
        return array
    if loss.wants == "onehot":
        return array.argmax(1)
    if loss.wants == "logit":
        is_positive = array.reshape(len(array)) > 0.5
        return np.where(is_positive, head.positive_index, 1 - head.positive_index).astype(np.int64)
    numbers = array.astype(np.float64).reshape(len(array), head.n_outputs)
    return numbers * np.array(head.scale) + np.array(head.offset) if head.scale else numbers
