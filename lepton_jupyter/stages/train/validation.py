"""A pass over the validation split: the loss and every metric that epochs are judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lepton_jupyter.formats.schema import ROWS_AT_ONCE
from lepton_jupyter.stages.train.batches import Batch, Batches
from lepton_jupyter.stages.train.feed import Feed, Rows, chunks
from lepton_jupyter.stages.train.heads import Head, first_tensor
from lepton_jupyter.stages.train.judged import Judge
from lepton_jupyter.stages.train.losses import Loss
from lepton_jupyter.stages.train.memory import free_memory, is_out_of_memory, no_room
from lepton_jupyter.stages.train.precision import Precision
from lepton_jupyter.stages.train.team import ALONE, Team


@dataclass
class Validation:
    """The validation split, and how a model is judged on it.

    Attributes
    ----------
    held : Rows or Batches
    chunk_rows : int
        Rows that go through the model at once; fewer where memory asks for it.
    """

    held: Rows | Batches
    feed: Feed
    loss: Loss
    judge: Judge
    precision: Precision
    chunk_rows: int = ROWS_AT_ONCE
    team: Team = ALONE

    def run(self, module: nn.Module) -> dict[str, float]:
        """Return the metrics, in original units; the module is left in evaluation mode.

        Raises
        ------
        LeptonError
            If there is no room for a single row.
        """
        __tracebackhide__ = True
        while True:
            try:
                return self._run(module)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.chunk_rows == 1 or self.team.n > 1:
                    raise no_room(self.precision.device, "validate") from error
            self.chunk_rows //= 2
            free_memory()

    def _run(self, module: nn.Module) -> dict[str, float]:
        __tracebackhide__ = True
        module.eval()
        own = getattr(module, "validation_step", None)
        losses, outputs, targets = Pile(), Pile(), Pile()  # of the batches that are this process's own
        with torch.no_grad(), self.precision.context():
            for (inputs, target), is_own in self.team.dealt(self._parts()):
                output = first_tensor(self.feed.call(module, inputs))
                if own is None:
                    value = self.loss(output, target)
                else:
                    answer = own((*self.feed.given(inputs), target))
                    value = answer["loss"] if isinstance(answer, dict) else answer
                if not is_own:
                    continue
                losses.add(value.detach().reshape(1))
                outputs.add(output)
                if not isinstance(self.held, Rows):
                    targets.add(target)
        found = self.team.collected(losses.parts(), outputs.sizes, outputs.parts(), targets.parts())
        return self.team.told(self._judged(*found) if found is not None else {})

    def _judged(self, losses: list[Any], sizes: list[int], outputs: list[Any], targets: list[Any]) -> dict[str, float]:
        """Return the metrics of what was found batch by batch."""
        head = self.judge.head
        if isinstance(self.held, Rows):
            values = self.held.values
        else:
            values = decoded_targets(torch.cat(targets), self.loss, head)
        mean = float(np.average(torch.cat(losses).tolist(), weights=sizes))
        return self.judge.metrics(head.decode(torch.cat(outputs)), values, mean)

    def _parts(self) -> Iterator[Batch]:
        if not isinstance(self.held, Rows):
            for inputs, target in self.held.epoch(1):
                size = min(self.chunk_rows, self.feed.at_once)
                for start in range(0, len(target), size):
                    end = start + size
                    yield tuple(tensor[start:end] for tensor in inputs), target[start:end]
            return
        start = 0
        device = self.precision.device
        for inputs in chunks(self.held.inputs, min(self.chunk_rows, self.feed.at_once)):
            n = len(inputs[0])
            targets = self.held.targets[start : start + n]
            yield tuple(tensor.to(device) for tensor in inputs), targets.to(device)
            start += n


class Pile:
    """Tensors laid one behind the other in one piece of memory.

    Of many that stay, each in a piece of its own, the heap could not give back what was used between them: with
    batches from disk, a gigabyte.

    Attributes
    ----------
    sizes : list of int
        Rows of each.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._n = 0
        self._room = torch.empty(0)

    def add(self, tensor: torch.Tensor) -> None:
        """Copy a tensor [B, …] behind the others."""
        n = self._n + len(tensor)
        if n > len(self._room) or not self.sizes:
            room = tensor.new_empty((max(n, 2 * self._n), *tensor.shape[1:]))
            if self.sizes:
                room[: self._n] = self._room[: self._n]
            self._room = room
        self._room[self._n : n] = tensor
        self._n = n
        self.sizes.append(len(tensor))

    def parts(self) -> list[torch.Tensor]:
        """Return what was added, in its order."""
        return list(self._room[: self._n].split(self.sizes)) if self.sizes else []


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
