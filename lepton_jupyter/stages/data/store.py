"""Datasets on disk: immutable versions of a name, whole or not there."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.memory import memory_limit
from lepton_jupyter.core.names import SPLITS, Reference, parse
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Lock
from lepton_jupyter.core.states import Task
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.profile import Profile
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.data.images import Pictures
from lepton_jupyter.stages.data.keys import Keys
from lepton_jupyter.stages.data.packing import pack_frame
from lepton_jupyter.stages.data.row_groups import RowGroups, bytes_of, group_rows
from lepton_jupyter.stages.data.target import read_target, values_of

RECORD = "dataset.json"
TABLE = "table.parquet"
SPLIT_TABLE = "splits.parquet"
PROFILE = "profile.json"
TENSOR = "tensor.npy"
N_HEAD = 5
QUICK_BYTES = 2**30  # of a table above it, which is read again each epoch, unpacking takes little time rather than room
COPIES = 4  # the table, its columns packed as float64, and the features made of these
LAST = ".last"  # the highest version that there ever was: a number is never given twice

Positions = NDArray[np.intp]

_read_record = msgspec.json.Decoder(DatasetRecord).decode


class Dataset:
    """One version of a dataset, read when it is asked for.

    Where a method takes `split`, None means every row in the table's order, also those without a target.

    Attributes
    ----------
    record : DatasetRecord
    schema : Schema
    folder : Path
    split : str or None
        What the reference named, such as ``test`` of ``NAME@3:test``.
    """

    def __init__(
        self, folder: Path, record: DatasetRecord, *, split: str | None = None, schema: Schema | None = None
    ) -> None:
        self.folder = folder
        self.record = record
        self.schema = schema or record.schema
        self.split = split

    @property
    def ref(self) -> str:
        """``NAME@3``."""
        return f"{self.record.name}@{self.record.version}"

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits that have rows."""
        return tuple(name for name in SPLITS if self.record.split_rows.get(name))

    @cached_property
    def is_large(self) -> bool:
        """Whether the rows, with what is made of them, would take more than half of the memory: then read some."""
        if self.schema.image is not None:
            return False  # `Pictures` refuses what there is no room for
        room = memory_limit() / 2 / COPIES
        of_tensor = (self.folder / TENSOR).stat().st_size if self.schema.tensor_shape is not None else 0
        return of_tensor + bytes_of(self.folder / TABLE, at_least=room) > room

    def spread(self, split: str, n: int, *, places: int = 0) -> Positions | None:
        """Return the positions of at most n rows, evenly over a split; None where that is all of them.

        Parameters
        ----------
        places : int
            Of what is larger than memory, take rows at so many places of the split only, each behind the other there:
            a place costs the reading of a row group or two. 0: every row at a place of its own.
        """
        n_rows = self.record.split_rows.get(split, 0)
        if n_rows <= n:
            return None
        if not places or not self.is_large:
            return np.unique(np.linspace(0, n_rows - 1, n).astype(np.intp))
        size = max(1, n // places)
        starts = np.linspace(0, n_rows - size, min(places, n)).astype(np.intp)
        return np.unique(starts[:, None] + np.arange(size))

    def table(self, split: str | None = None, some: Positions | None = None) -> pl.DataFrame:
        """Return the rows of a split as they came, target and ids included; `some`: those at these positions of it."""
        if split is not None and self.is_large:
            return RowGroups(self, split).take(some).frame
        rows = self._rows(split)
        table = self._table if rows is None else self._table[rows]
        return table if some is None else table[some]

    def about(self) -> str:
        """Return its reference, and the rows of each split."""
        return f"{self.ref} {', '.join(f'{split} {n}' for split, n in self.record.split_rows.items())}"

    def head(self, split: str) -> pl.DataFrame:
        """Return the first rows of a split."""
        return self.table(split, np.arange(min(N_HEAD, self.record.split_rows[split])))

    def packed(self, split: str | None = None, some: Positions | None = None) -> Packed:
        """Return the features of a split as the graph takes them."""
        return pack_frame(self.schema, self.table(split, some))

    def targets(
        self, split: str | None = None, some: Positions | None = None
    ) -> NDArray[np.int64] | NDArray[np.float64]:
        """Return the target: int64 codes [N] into ``schema.classes`` (missing: -1), or float64 [N, T] (missing: NaN).

        Raises
        ------
        LeptonError
            If the dataset has no target.
        """
        return values_of(self.table(split, some), self.schema)

    def tensors(self, split: str | None = None, some: Positions | None = None) -> NDArray[Any]:
        """Return array data as float32 [N, \\*schema.tensor_shape]; images as uint8.

        Raises
        ------
        LeptonError
            If the dataset is a table, or an image's file is gone or was changed.
        """
        if self.schema.tensor_shape is None:
            raise LeptonError(f"{self.ref} is a table and holds no tensors.", "Use its columns.")
        if self.schema.image is not None:
            return self.pictures.take(self.rows(split, some))
        if split is not None and self.is_large:
            found = RowGroups(self, split).take(some).tensor
            assert found is not None
            return found
        array: NDArray[np.float32] = np.load(self.folder / TENSOR, allow_pickle=False)
        rows = self._rows(split)
        array = array if rows is None else array[rows]
        return array if some is None else array[some]

    def ids(self, split: str | None = None) -> list[Any] | None:
        """Return what the id column holds, None where there is none."""
        name = self.schema.id_column
        return None if name is None else self.table(split)[name].to_list()

    def row_keys(self, split: str | None = None) -> Keys:
        """Return a key of every row, uint64 [N], equal for the same row in other versions."""
        keys = self._splits["key"].to_numpy()
        rows = self._rows(split)
        return keys if rows is None else keys[rows]

    def places(self) -> NDArray[np.int8]:
        """Return every row's split as its place in `SPLITS`, int8 [N]; -1 for rows without a target."""
        return self._splits["split"].to_numpy()

    def profile(self) -> Profile:
        """Return the profile of the training rows."""
        return msgspec.json.decode((self.folder / PROFILE).read_bytes(), type=Profile)

    def as_task(self, task: Task) -> Dataset:
        """Return the same rows with another task, such as integers to be predicted as numbers.

        Raises
        ------
        LeptonError
            If the target does not allow it.
        """
        if task == self.schema.task:
            return self
        positive = self.schema.positive if task == "binary" else None
        found = read_target(self._table, self.schema.targets, task=task, positive=positive)
        if found.task is None:
            raise LeptonError(f"{self.ref} has no target.", "Make it again with --target COLUMN.")
        said = {name: getattr(found, name) for name in ("task", "classes", "class_kind", "positive")}
        return self.with_schema(msgspec.structs.replace(self.schema, **said))

    def with_schema(self, schema: Schema) -> Dataset:
        """Return the same rows under another schema of the same columns."""
        return Dataset(self.folder, self.record, split=self.split, schema=schema)

    @cached_property
    def pictures(self) -> Pictures:
        """The files of a dataset of images."""
        return Pictures(self.record, self._table)

    def rows(self, split: str | None = None, some: Positions | None = None) -> Positions:
        """Return the numbers of a split's rows in the table; `some`: of those at these positions of it."""
        rows = np.arange(self.record.n_rows) if split is None else np.flatnonzero(self.is_of(split))
        return rows if some is None else rows[some]

    @cached_property
    def _table(self) -> pl.DataFrame:
        return pl.read_parquet(self.folder / TABLE, memory_map=False)

    @cached_property
    def _splits(self) -> pl.DataFrame:
        return pl.read_parquet(self.folder / SPLIT_TABLE, memory_map=False)

    def is_of(self, split: str) -> NDArray[np.bool_]:
        """Return whether each row is of a split, bool [N].

        Raises
        ------
        LeptonError
            If there is no such split.
        """
        if split not in self.splits():
            raise unknown(f"split of {self.ref}", split, self.splits())
        is_of: NDArray[np.bool_] = self.places() == SPLITS.index(split)
        return is_of

    def _rows(self, split: str | None) -> NDArray[np.intp] | None:
        return None if split is None else np.flatnonzero(self.is_of(split))


class Store:
    """All datasets of a home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def names(self) -> list[str]:
        """Return the names that have a version, in order."""
        try:
            folders = sorted(self.home.datasets.iterdir())
        except FileNotFoundError:
            return []
        return [folder.name for folder in folders if not folder.name.startswith(".") and self.numbers(folder.name)]

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of a name's versions, the oldest first; none where there is no such name."""
        try:
            folders = list((self.home.datasets / name).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(folder.name) for folder in folders if folder.name.isdigit())

    def versions(self, name: str) -> list[DatasetRecord]:
        """Return the records of a name's versions, newest first.

        Raises
        ------
        LeptonError
            If there is no such name.
        """
        numbers = self.numbers(name)
        if not numbers:
            raise unknown("dataset", name, self.names(), "Make one by: data NAME SOURCE --target COLUMN")
        return [self._read(name, number) for number in reversed(numbers)]

    def latest(self, name: str) -> DatasetRecord:
        """Return the record of a name's newest version."""
        return self.record(Reference(name))

    def record(self, ref: str | Reference) -> DatasetRecord:
        """Return the record that a reference means: ``NAME``, ``NAME@3``, with or without ``:split``.

        Raises
        ------
        LeptonError
            If there is no such name, version or split.
        """
        found = parse(ref, "dataset") if isinstance(ref, str) else ref
        numbers = self.numbers(found.name)
        if not numbers:
            raise unknown("dataset", found.name, self.names(), "Make one by: data NAME SOURCE --target COLUMN")
        if found.alias is not None or (found.version is not None and found.version not in numbers):
            known = [f"{found.name}@{number}" for number in numbers]
            raise unknown("dataset", f"{found.name}@{found.alias or found.version}", known)
        record = self._read(found.name, found.version or numbers[-1])
        if found.split is not None and not record.split_rows.get(found.split):
            raise unknown(
                f"split of {record.name}@{record.version}",
                found.split,
                [name for name in SPLITS if record.split_rows.get(name)],
            )
        return record

    def open(self, ref: str | Reference) -> Dataset:
        """Return the dataset that a reference means.

        Raises
        ------
        LeptonError
            As `record`.
        """
        found = parse(ref, "dataset") if isinstance(ref, str) else ref
        record = self.record(found)
        return Dataset(self.folder(record.name, record.version), record, split=found.split)

    def all(self) -> list[DatasetRecord]:
        """Return every version of every dataset, newest first."""
        records = [self._read(name, number) for name in self.names() for number in self.numbers(name)]
        return sorted(records, key=lambda record: (record.created_at, record.version), reverse=True)

    def delete(self, name: str, version: int) -> None:
        """Remove a version. Its number is not given again.

        Raises
        ------
        LeptonError
            If there is no such version.
        """
        with self.locked():
            self.record(Reference(name, version=version))
            folder = self.folder(name, version)
            hidden = folder.with_name(f".{version}.{secrets.token_hex(4)}.gone")
            folder.rename(hidden)  # at once, so that nobody sees half of it
            shutil.rmtree(hidden)

    def folder(self, name: str, version: int) -> Path:
        """Return the folder of a version, which need not exist."""
        return self.home.datasets / name / str(version)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the datasets of this home, so that two writers do not take the same number."""
        self.home.datasets.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = Lock.take(self.home.datasets / ".lock", is_waiting=True)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def next_version(self, name: str) -> int:
        """Return the number that the next version of a name gets. Call it while `locked`."""
        try:
            last = int((self.home.datasets / name / LAST).read_text())
        except (OSError, ValueError):
            last = 0
        return max([last, *self.numbers(name)]) + 1

    def write(
        self,
        record: DatasetRecord,
        table: pl.DataFrame,
        splits: pl.DataFrame,
        profile: Profile,
        tensor: NDArray[np.float32] | None = None,
    ) -> DatasetRecord:
        """Write a version: a temporary folder, then a rename. Call it while `locked`.

        Raises
        ------
        OSError
            As the file system says; nothing is left then.
        """
        parent = self.home.datasets / record.name
        is_first = not parent.exists()
        parent.mkdir(mode=0o700, exist_ok=True)
        for left in (*parent.glob(".*.tmp"), *parent.glob(".*.gone")):  # of a process that was killed in here
            shutil.rmtree(left, ignore_errors=True)
        temporary = parent / f".{record.version}.{secrets.token_hex(4)}.tmp"
        try:
            temporary.mkdir(mode=0o700)
            n_bytes = table.estimated_size()
            size = group_rows(n_bytes / max(table.height, 1))
            packed: Any = "zstd" if n_bytes < QUICK_BYTES else "lz4"
            table.write_parquet(temporary / TABLE, compression=packed, statistics=False, row_group_size=size)
            splits.write_parquet(temporary / SPLIT_TABLE, compression="zstd", statistics=False)
            if tensor is not None:
                np.save(temporary / TENSOR, tensor, allow_pickle=False)
            write_atomic(temporary / PROFILE, encode(profile))
            write_atomic(temporary / RECORD, encode(record))
            write_atomic(parent / LAST, str(record.version).encode())
            temporary.rename(self.folder(record.name, record.version))
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if is_first:
                shutil.rmtree(parent, ignore_errors=True)
            raise
        return record

    def _read(self, name: str, number: int) -> DatasetRecord:
        try:
            return _read_record((self.folder(name, number) / RECORD).read_bytes())
        except FileNotFoundError as error:  # deleted between the listing and now
            raise unknown("dataset", f"{name}@{number}", [f"{name}@{n}" for n in self.numbers(name)]) from error
