"""Batches of a split that is larger than memory: read a few row groups at a time, shuffled, and ahead of the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from lepton_jupyter.stages.data.row_groups import GROUP_BYTES, RowGroups, Some
from lepton_jupyter.stages.train.batches import Batch, generator_of, n_batches_of
from lepton_jupyter.stages.train.feed import Tensors

POOL_GROUPS = 4  # row groups whose rows are shuffled among each other; two such pools are in memory at once
POOL_BYTES = POOL_GROUPS * GROUP_BYTES

Make = Callable[[Some], Batch]  # from rows as they lie on disk to inputs and targets


@dataclass
class Streamed:
    """Batches from disk. The order is one of row groups, then of the rows within a few of them.

    Attributes
    ----------
    groups : RowGroups
    make : callable
        What turns rows as they were read into tensors.
    batch_size : int
    seed : int or None
        None: the rows in their own order.
    device : device
        Where the batches go.
    """

    groups: RowGroups
    make: Make
    batch_size: int
    seed: int | None
    device: torch.device
    is_exact: bool = True

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""
        return int(self.groups.counts.sum())

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return n_batches_of(self.n_rows, self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch; the next pool is read while those of this one are used."""
        first = start * self.batch_size
        pools = list(self._pools(number))
        ends = np.cumsum([sum(int(self.groups.counts[group]) for group in pool) for pool in pools])
        place = int(np.searchsorted(ends, first, side="right"))  # pools before it are not even read
        if place == len(pools):
            return
        skip = first - int(ends[place - 1]) if place else first
        with ThreadPoolExecutor(1, thread_name_prefix="rows") as reader:
            yield from self._cut(self._read_ahead(reader, number, pools[place:], place), start, skip)

    def _pools(self, number: int) -> Iterator[list[int]]:
        """Yield the groups of each pool."""
        n = len(self.groups.counts)
        if self.seed is None:
            order = list(range(n))
        else:
            order = torch.randperm(n, generator=generator_of(self.seed, number)).tolist()
        order = [group for group in order if self.groups.counts[group]]
        for at in range(0, len(order), POOL_GROUPS):
            yield order[at : at + POOL_GROUPS]

    def _read_ahead(
        self, reader: ThreadPoolExecutor, number: int, pools: list[list[int]], place: int
    ) -> Iterator[Batch]:
        coming = reader.submit(self._pool, number, place, pools[0])
        for at in range(1, len(pools) + 1):
            pool = coming.result()
            if at < len(pools):
                coming = reader.submit(self._pool, number, place + at, pools[at])
            yield pool

    def _pool(self, number: int, place: int, groups: list[int]) -> Batch:
        """Read a pool: its rows in the order in which they are used."""
        parts = [self.make(self.groups.read(group)) for group in groups]
        inputs = [torch.cat(tensors) for tensors in zip(*(part[0] for part in parts), strict=True)]
        targets = torch.cat([part[1] for part in parts])
        del parts
        if self.seed is not None:
            order = torch.randperm(len(targets), generator=generator_of(self.seed, number, place + 1))
            inputs, targets = [tensor[order] for tensor in inputs], targets[order]
        return tuple(inputs), targets

    def _cut(self, pools: Iterator[Batch], start: int, skip: int) -> Iterator[Batch]:
        """Yield batches of the pools' rows, one behind the other."""
        left: Batch | None = None
        for inputs, targets in pools:
            pool = tuple(tensor[skip:] for tensor in inputs), targets[skip:]
            skip = 0
            if left is not None:
                take = min(self._size(start) - len(left[1]), len(pool[1]))
                left = _joined(left, _rows(pool, 0, take))
                pool = _rows(pool, take, len(pool[1]))
                if len(left[1]) < self._size(start):
                    continue
                yield self._moved(left)
                start += 1
            done = 0
            while start < self.n_batches and done + self._size(start) <= len(pool[1]):
                size = self._size(start)
                yield self._moved(_rows(pool, done, done + size))
                done, start = done + size, start + 1
            left = _rows(pool, done, len(pool[1]))

    def _size(self, place: int) -> int:
        last = self.n_batches - 1
        return self.batch_size if place < last else self.n_rows - last * self.batch_size

    def _moved(self, batch: Batch) -> Batch:
        if self.device.type == "cpu":
            return batch
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in batch[0]), batch[1].to(self.device)


def _rows(batch: Batch, start: int, end: int) -> Batch:
    return tuple(tensor[start:end] for tensor in batch[0]), batch[1][start:end]


def _joined(one: Batch, other: Batch) -> Batch:
    inputs: Tensors = tuple(torch.cat(pair) for pair in zip(one[0], other[0], strict=True))
    return inputs, torch.cat([one[1], other[1]])
