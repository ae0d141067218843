"""Batches of an epoch: the same order for the same seed and epoch, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from lepton_jupyter.stages.train.feed import Rows, Tensors

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
    """Batches of rows that lie in memory (the device's, where they fit there), gathered by a permuted index."""

    is_exact = True

    def __init__(self, rows: Rows, batch_size: int, seed: int, device: torch.device | None = None) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, len(rows))
        self.n_rows = len(rows)
        self.n_batches = n_batches_of(self.n_rows, batch_size)
        self._device = device or rows.targets.device
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
            inputs, targets = self._take(order[first * self.batch_size : last * self.batch_size])
            parts = [tensor.split(self.batch_size) for tensor in inputs]
            yield from zip(zip(*parts, strict=True), targets.split(self.batch_size), strict=True)
        if start < self.n_batches:
            yield self._take(order[n_whole * self.batch_size :])

    def _take(self, index: torch.Tensor) -> Batch:
        inputs, targets = self.rows.take(index)
        if targets.device == self._device:
            return inputs, targets
        return tuple(tensor.to(self._device) for tensor in inputs), targets.to(self._device)


def n_batches_of(n_rows: int, batch_size: int) -> int:
    """Return the number of batches of an epoch. A last batch of one row joins the one before: BatchNorm cannot take it.

    Examples
    --------
    >>> n_batches_of(9, 4), n_batches_of(10, 4), n_batches_of(1, 4)
    (2, 3, 1)
    """
    n = -(-n_rows // batch_size)
    return n - 1 if n > 1 and n_rows - (n - 1) * batch_size == 1 else n


def generator_of(seed: int, *numbers: int) -> torch.Generator:
    """Return a generator on the CPU that depends on a seed and some numbers, and on nothing before."""
    mixed = np.random.SeedSequence([abs(seed), *numbers]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 | int(mixed[1]) >> 1)
