"""Rows that somebody gave as an example, where there is no dataset: `lepton.save(model, example=x)`."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import ColumnKind, Schema
from lepton_jupyter.stages.data.columns import describe, example_row, kind_of
from lepton_jupyter.stages.data.packing import pack_frame
from lepton_jupyter.stages.data.reading import array_of, frame_of
from lepton_jupyter.stages.train.job import Given


class Example:
    """A few rows, seen as a dataset that knows no target.

    Attributes
    ----------
    schema : Schema
        Without a task until `as_schema` gave it one.
    rows : Given
        Packed columns, or tensors [N, *shape] as float32.
    """

    ref = "the example"

    def __init__(self, schema: Schema, rows: Given) -> None:
        self.schema = schema
        self.rows = rows

    def with_schema(self, **changes: Any) -> Example:
        """Return the same rows with more of the schema known, such as task and classes."""
        return Example(msgspec.structs.replace(self.schema, **changes), self.rows)

    def rows_of(self, schema: Schema) -> Given:
        """Return the rows as a model's own schema packs them: it may take fewer columns, in another order."""
        if not isinstance(self.rows, Packed):
            return self.rows
        num, txt = ([column.name for column in columns] for columns in (self.schema.num, self.schema.txt))
        return Packed(
            self.rows.num[:, [num.index(column.name) for column in schema.num]],
            self.rows.txt[:, [txt.index(column.name) for column in schema.txt]],
        )

    @property
    def is_exact(self) -> bool:
        """Whether the order of its rows is ours to draw."""
        return True

    def splits(self) -> tuple[str, ...]:
        """Return the one split that there is."""
        return ("train",)

    is_large = False

    def spread(self, split: str, n: int) -> None:
        """Return None: an example is small."""

    def packed(self, split: str | None = None, some: Any = None) -> Packed:
        """Return the rows, where they are a table."""
        if not isinstance(self.rows, Packed):
            raise LeptonError("The example is an array of tensors, not a table.", "Give rows of columns.")
        return self.rows

    def tensors(self, split: str | None = None, some: Any = None) -> npt.NDArray[np.float32]:
        """Return the rows, where they are tensors."""
        if isinstance(self.rows, Packed):
            raise LeptonError("The example is a table, not tensors.", "Give an array [n, …].")
        return self.rows

    def targets(self, split: str | None = None, some: Any = None) -> npt.NDArray[Any]:
        """Raise: an example has no target."""
        raise LeptonError("The example has no target.", "Give data= in place of example=.")


def read_example(value: Any) -> Example:
    """Return what was given as an example.

    Parameters
    ----------
    value : array, tensor, DataFrame
        [n, d] becomes columns x0 …, an array of more dimensions tensors; a DataFrame keeps its columns.

    Raises
    ------
    LeptonError
        If it is empty or nothing of these.
    """
    array = array_of(value)
    if array is not None and array.ndim > 2:
        if len(array) == 0:
            raise LeptonError("The example has no rows.", "Give one row at least.")
        shape = tuple(int(size) for size in array.shape[1:])
        return Example(Schema(columns=(), tensor_shape=shape), np.ascontiguousarray(array, dtype=np.float32))
    # an example's integers are numbers like any other: 1.5 may be asked later
    frame = frame_of(value if array is None else np.atleast_2d(array).astype(np.float64))
    if frame.height == 0 or frame.width == 0:
        raise LeptonError("The example has no rows.", "Give one row at least.")
    kinds: dict[str, ColumnKind] = {}
    for name in frame.columns:
        kind = kind_of(frame[name].dtype)
        if kind is None:
            raise LeptonError(
                f"Column '{name}' of the example is of type {frame[name].dtype}.", "Give numbers, text or dates."
            )
        kinds[name] = kind
    columns = describe(frame, kinds, pl.Series([True] * frame.height))
    schema = Schema(columns=columns, example=example_row(frame, kinds))
    return Example(schema, pack_frame(schema, frame))
