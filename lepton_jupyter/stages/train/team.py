"""Who trains: one process alone, or one of several that train as one. What several must agree on is asked here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a job has a team whatever its framework is
    import torch
    from torch import nn

    from lepton_jupyter.stages.train.batches import Batch
    from lepton_jupyter.stages.train.feed import Tensors
    from lepton_jupyter.stages.train.strides import LossOf


class Team:
    """One process alone: it agrees with itself. `distributed.Ranks` is one of several.

    Attributes
    ----------
    n : int
        Processes that train.
    rank : int
        Of this one. The first logs, judges and writes.
    device : device or None
        What this one computes on; None where it may choose.
    """

    n = 1
    rank = 0
    device: torch.device | None = None

    @property
    def is_first(self) -> bool:
        """Whether this one logs, judges and writes."""
        return self.rank == 0

    # -- the model

    def prepare(self, module: nn.Module) -> nn.Module:
        """Return a module that lies on its device, ready to be trained by all; each draws its own numbers now."""
        return module

    def loss_of(self, module: nn.Module, plain: LossOf, function: object) -> LossOf:
        """Return what gives the loss of this process's share of a batch; its gradient becomes that of the whole batch.

        Parameters
        ----------
        plain : callable
            Gives the loss of a batch.
        function : object
            The loss itself: how much a row counts in its mean.
        """
        return plain

    # -- a step

    def share(self, inputs: Tensors, target: torch.Tensor) -> Batch:
        """Return this process's rows of a batch."""
        return inputs, target

    def parts(self, n_rows: int, n_parts: int) -> list[tuple[int, int]]:
        """Return the slices in which a share goes through the model: as many in every process."""
        size = -(-n_rows // n_parts)
        return [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]

    def part(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Return what a part runs in: only the last one's gradients are exchanged."""
        return nullcontext()

    # -- what is agreed on

    def losses(self, found: torch.Tensor) -> list[float]:
        """Return the losses of whole batches, [steps], from those of the shares."""
        values: list[float] = found.tolist()
        return values

    def first(self, value: float) -> float:
        """Return the first process's number."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether it holds in one of them."""
        return flag

    def told(self, values: dict[str, float]) -> dict[str, float]:
        """Return the first process's values."""
        return values

    # -- a pass without gradients

    def dealt(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        """Yield the batches that this process passes through the model, and whether they are its own.

        Those that are not only keep the processes in step.
        """
        for batch in batches:
            yield batch, True

    def collected(self, *lists: list[Any]) -> tuple[list[Any], ...] | None:
        """Return what all found for the batches that were dealt, in their order; None but in the first process."""
        return lists

    # -- random numbers

    def seed(self, *numbers: int) -> None:
        """Let each process draw other numbers."""

    def random_states(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the states of all generators, by rank; nothing where there is one process."""
        return []


ALONE = Team()
