"""A dataset's rows some at a time, as they lie in its file: for what is larger than memory."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow.parquet as pq  # loaded only for what is large: it takes a tenth of a second

    from lepton_jupyter.stages.data.store import Dataset

GROUP_BYTES = 2**25  # of a row group, and of as many tensors as are read at once
LEAST_ROWS = 1024
MOST_ROWS = 2**18
MOST_COMPRESSED = 20  # a Parquet file of more than that is of constants


class Some(NamedTuple):
    """Rows that were read.

    Attributes
    ----------
    frame : polars.DataFrame
    tensor : NDArray or None
        float32 [N, \\*schema.tensor_shape], where the dataset holds tensors.
    """

    frame: pl.DataFrame
    tensor: NDArray[np.float32] | None


def group_rows(row_bytes: float) -> int:
    """Return how many rows of such a size make a group.

    Examples
    --------
    >>> group_rows(132), group_rows(8000.0), group_rows(1e6)
    (254200, 4194, 1024)
    """
    return int(min(MOST_ROWS, max(LEAST_ROWS, GROUP_BYTES // max(row_bytes, 1))))


class RowGroups:
    """The groups of one split, in the order of the file. Its methods may be called from any thread, one at a time.

    Attributes
    ----------
    counts : NDArray
        Rows of the split in each group, int64.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self._folder = dataset.folder
        self._shape = dataset.schema.tensor_shape
        self._is_wanted = dataset.is_of(split)
        self._bounds = self._groups()
        self.counts = np.array([int(self._is_wanted[start:end].sum()) for start, end in self._bounds], np.int64)

    def read(self, group: int) -> Some:
        """Return a group's rows of the split."""
        start, end = self._bounds[group]
        wanted = self._is_wanted[start:end]
        return Some(self._frame(group).filter(pl.Series(wanted)), self._tensor(start, end, wanted))

    def take(self, positions: NDArray[np.intp] | None) -> Some:
        """Return rows of the split by their positions in it, which must rise; None: all."""
        if positions is None:
            positions = np.arange(self.counts.sum())
        ends = np.cumsum(self.counts)
        frames, tensors = [], []
        for group in range(len(self.counts)):
            start = int(ends[group] - self.counts[group])
            inside = positions[(positions >= start) & (positions < ends[group])] - start
            if len(inside):
                found = self.read(group)
                frames.append(found.frame[inside])
                tensors.append(found.tensor[inside] if found.tensor is not None else np.empty(0, np.float32))
        return Some(pl.concat(frames), np.concatenate(tensors) if self._shape is not None else None)

    @cached_property
    def _file(self) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self._folder / "table.parquet")

    def _groups(self) -> list[tuple[int, int]]:
        if self._shape is not None:
            row_bytes, n_rows = 4 * int(np.prod(self._shape)), len(self._is_wanted)
            size = group_rows(row_bytes)
            return [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]
        about = self._file.metadata
        ends = np.cumsum([about.row_group(place).num_rows for place in range(about.num_row_groups)]).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _frame(self, group: int) -> pl.DataFrame:
        if self._shape is None:
            return pl.DataFrame(self._file.read_row_group(group, use_threads=False))
        start, end = self._bounds[group]
        return self._targets[start:end]

    @cached_property
    def _targets(self) -> pl.DataFrame:
        return pl.read_parquet(self._folder / "table.parquet", memory_map=False)  # beside tensors: a column or two

    def _tensor(self, start: int, end: int, wanted: NDArray[np.bool_]) -> NDArray[np.float32] | None:
        if self._shape is None:
            return None
        return read_rows(self._folder / "tensor.npy", start, end)[wanted]


def read_rows(path: Path, start: int, end: int) -> NDArray[np.float32]:
    """Return rows of an ``.npy`` file without mapping it: mapped pages would count as ours."""
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    row_bytes = mapped.itemsize * int(np.prod(mapped.shape[1:]))
    flat = np.fromfile(
        path, mapped.dtype, (end - start) * row_bytes // mapped.itemsize, offset=mapped.offset + start * row_bytes
    )
    return flat.reshape(end - start, *mapped.shape[1:])


def bytes_of(path: Path, *, at_least: float) -> int:
    """Return the bytes of a Parquet file's columns, uncompressed; 0 where they are surely fewer than `at_least`."""
    if path.stat().st_size * MOST_COMPRESSED < at_least:
        return 0
    import pyarrow.parquet as pq

    about = pq.read_metadata(path)
    return sum(int(about.row_group(place).total_byte_size) for place in range(about.num_row_groups))
