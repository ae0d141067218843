"""Batches of an epoch: the same order for the same seed and epoch, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from lepton_jupyter.stages.train.feed import Rows, Tensors, auto_batch_size, batch_bounds
from lepton_jupyter.stages.train.losses import Loss, encode_targets

if TYPE_CHECKING:
    from lepton_jupyter.stages.train.frameworks.torch import TorchFitted
    from lepton_jupyter.stages.train.job import Given, Job
    from lepton_jupyter.stages.train.spec import Train

GATHER_BYTES = 2**26  # of rows that are gathered at once: one call for many batches, which are views of what it gives

Batch = tuple[Tensors, torch.Tensor]


class Batches(Protocol):
    """What the loop trains on (or validates on, where a split does not fit into memory).

    Attributes
    ----------
    n_rows : int or None
        Rows of an epoch; None where nobody knows.
    n_batches : int or None
        Batches of an epoch; None where nobody knows.
    batch_size : int or None
        Rows of a batch but the last; None where the user's own loader decides.
    is_exact : bool
        Whether `epoch` gives the same batches again, so that a resumed run sees what the first would have seen.
    """

    @property
    def n_rows(self) -> int | None: ...

    @property
    def n_batches(self) -> int | None: ...

    @property
    def batch_size(self) -> int | None: ...

    @property
    def is_exact(self) -> bool: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch on the device.

        Parameters
        ----------
        number : int
            Of the epoch, from 1. The order depends on the seed and this number alone.
        start : int
            How many batches to leave out at its beginning.
        """


class InMemory:
    """Batches of rows that lie on the device, gathered by a permuted index."""

    is_exact = True

    def __init__(self, rows: Rows, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, len(rows))
        self.n_rows = len(rows)
        self.n_batches = len(batch_bounds(self.n_rows, batch_size))
        self._seed = seed
        row_bytes = sum(t.element_size() * t[:1].numel() for t in (*rows.inputs, rows.targets))
        self._at_once = max(1, GATHER_BYTES // max(1, row_bytes * self.batch_size))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch: views of rows that are gathered many batches at a time."""
        order = torch.randperm(self.n_rows, generator=generator_of(self._seed, number))
        order = order.to(self.rows.targets.device)
        n_whole = self.n_rows // self.batch_size if self.n_batches > 1 else 0
        n_whole = min(n_whole, self.n_batches - 1)  # the last one may have fewer rows, or one more
        for first in range(start, n_whole, self._at_once):
            last = min(first + self._at_once, n_whole)
            inputs, targets = self.rows.take(order[first * self.batch_size : last * self.batch_size])
            parts = [tensor.split(self.batch_size) for tensor in inputs]
            yield from zip(zip(*parts, strict=True), targets.split(self.batch_size), strict=True)
        if start < self.n_batches:
            yield self.rows.take(order[n_whole * self.batch_size :])


def generator_of(seed: int, *numbers: int) -> torch.Generator:
    """Return a generator on the CPU that depends on a seed and some numbers, and on nothing before."""
    mixed = np.random.SeedSequence([abs(seed), *numbers]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 | int(mixed[1]) >> 1)


def rows_of(
    job: Job, fitted: TorchFitted, split: str, *, loss: Loss, like: tuple[int, ...], device: torch.device
) -> Rows:
    """Return a split on the device, as the module and the loss take it."""
    given: Given = job.dataset.packed(split) if fitted.plan is not None else job.dataset.tensors(split)
    values = job.targets(split)
    targets = encode_targets(values, loss, fitted.head, like=like).to(device)
    return Rows(tuple(tensor.to(device) for tensor in fitted.inputs(given)), targets, values)


def batches_of(
    job: Job,
    fitted: TorchFitted,
    split: str,
    *,
    loss: Loss,
    like: tuple[int, ...],
    device: torch.device,
    batch_size: int | None = None,
) -> Batches:
    """Return the batches of a split.

    Parameters
    ----------
    like : tuple of int
        Shape of one row of the module's output.
    batch_size : int, optional
        Of a run that goes on; else what ``--batch-size`` says.
    """
    rows = rows_of(job, fitted, split, loss=loss, like=like, device=device)
    return InMemory(rows, batch_size or asked_batch_size(job.spec, len(rows)), job.spec.seed)


def asked_batch_size(spec: Train, n_rows: int) -> int:
    """Return the rows of a batch that ``--batch-size`` says, or what ``auto`` is for so many rows."""
    return auto_batch_size(n_rows) if spec.batch_size == "auto" else spec.batch_size


def validation_of(
    job: Job, fitted: TorchFitted, *, loss: Loss, like: tuple[int, ...], device: torch.device
) -> Rows | Batches | None:
    """Return what epochs are judged on, or None where there is no validation split."""
    if "validation" not in job.dataset.splits():
        return None
    return rows_of(job, fitted, "validation", loss=loss, like=like, device=device)
