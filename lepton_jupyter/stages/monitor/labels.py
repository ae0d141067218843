"""What turned out to be true of rows: kept as it was said, joined anew each time with what was logged.

A file holds what one feedback said: ``kind`` (``row_id`` or ``id``), ``key`` (as text), a column ``label:TARGET`` a
target (classes as text, numbers as float64), ``given_at`` (seconds since 1970, UTC) and ``place``. Nothing is changed
or removed: of two labels of a row the one that came last counts.
"""

from __future__ import annotations

import io
import secrets
import time
from pathlib import Path
from typing import Any, Literal

import polars as pl

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.formats.personal import text_of
from lepton_jupyter.formats.schema import Schema

Kind = Literal["row_id", "id"]
BY = ("kind", "key")


def column_of(target: str) -> str:
    """Return what a target's labels are called in a file."""
    return f"label:{target}"


def label_names(schema: Schema) -> dict[str, str]:
    """Return by target what a window calls its labels."""
    return {name: "label" if len(schema.targets) == 1 else f"label_{name}" for name in schema.targets}


def keep(folder: Path, labels: pl.DataFrame) -> None:
    """Keep what was said, in a file of its own.

    Parameters
    ----------
    folder : Path
        Of the endpoint's labels; made where it is not.
    labels : polars.DataFrame
        ``kind``, ``key`` and the labels, in the order in which they were said.

    Raises
    ------
    OSError
        As the file system says; nothing is kept then.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    content = io.BytesIO()
    said = labels.with_columns(given_at=pl.lit(time.time())).with_row_index("place")
    said.write_parquet(content, compression="zstd")
    write_atomic(folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet", content.getvalue())


def known_labels(folder: Path, schema: Schema) -> pl.DataFrame:
    """Return the label of each row that one was given for: ``kind``, ``key``, ``label:TARGET`` …, ``given_at``."""
    dtype = pl.String if schema.classes else pl.Float64
    if not schema.targets:  # saved without data: no feedback is taken
        return pl.DataFrame()
    columns = {"kind": pl.String, "key": pl.String} | {column_of(name): dtype for name in schema.targets}
    wanted = [*columns, "given_at", "place"]
    parts = [pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
    fitting = [part.select(wanted) for part in parts if set(wanted) <= set(part.columns)]  # else of an earlier target
    fitting = [part for part in fitting if part.schema[column_of(schema.targets[0])] == dtype]
    if not fitting:
        return pl.DataFrame(schema=columns | {"given_at": pl.Float64})
    said = pl.concat(fitting, how="vertical_relaxed").sort("given_at", "place", maintain_order=True)
    return said.unique(BY, keep="last", maintain_order=True).drop("place")


def keys_of(ids: list[Any]) -> pl.Series:
    """Return ids as the text by which labels are found; a missing one is null."""
    return pl.Series([text_of(value) for value in ids], dtype=pl.String)


def joined(rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return rows with ``row_id`` and ``id`` and, where one is known, their label: the later one where both are found.

    Parameters
    ----------
    rows : polars.DataFrame
        ``row_id`` and ``id``, as text.
    labels : polars.DataFrame
        As `known_labels` returns them.
    """
    found = rows.select("row_id", "id")
    for kind in ("row_id", "id"):
        ours = labels.filter(pl.col("kind") == kind).drop("kind")
        found = found.join(ours, left_on=kind, right_on="key", how="left", suffix="_by_id", maintain_order="left")
    later = (pl.col("given_at_by_id") > pl.col("given_at").fill_null(-1.0)).fill_null(False)
    names = [name for name in labels.columns if name not in BY]
    return found.select(
        "row_id", "id", *(pl.when(later).then(f"{name}_by_id").otherwise(name).alias(name) for name in names)
    )


def labels_of(folder: Path, schema: Schema, row_id: pl.Series, ids: list[Any]) -> pl.DataFrame:
    """Return the labels of rows [N] by a window's names; without columns where none was ever given."""
    labels = known_labels(folder, schema)
    if not labels.height:
        return pl.DataFrame()
    found = joined(pl.DataFrame({"row_id": row_id, "id": keys_of(ids)}), labels)
    return found.select(pl.col(column_of(target)).alias(name) for target, name in label_names(schema).items())
