"""The request log as one Parquet file for other tools: a line a row, typed as the data was.

A request that was refused is a line without row and values. Versions with other columns are in the same file, each
with the columns that it has; a column that is not of one type in all of them, or holds pseudonyms, is text.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl
import pyarrow.parquet as pq

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.personal import text_of
from lepton_jupyter.formats.retention import Removed, removed
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.deploy.requests.frames import IMAGE, hashed, outputs_of, raw, row_ids, typed
from lepton_jupyter.stages.deploy.requests.reading import Chunk, SchemaOf, read_chunks

ABOUT = ("at", "request_id", "row_id", "id", "version", "latency_ms", "status", "error", "share")
SHADOW = "is_shadow"


class Asked(NamedTuple):
    """Which requests are wanted: from `start` on, before `end` (seconds since 1970, UTC); with what shadows said?"""

    start: float = 0.0
    end: float = float("inf")
    has_shadow: bool = False


class Written(NamedTuple):
    """What a file of the log holds.

    Attributes
    ----------
    n_requests, n_rows, n_refused : int
        Requests that were answered, their rows, and requests that were not.
    n_unknown : int
        Rows whose columns nobody knows: their version is gone. Predictions are there, values are not.
    columns : tuple of str
    removed : Removed
        What the log has no more.
    """

    path: Path
    n_requests: int
    n_rows: int
    n_refused: int
    n_unknown: int
    columns: tuple[str, ...]
    removed: Removed


def export(folder: Path, to: Path, schema_of: SchemaOf, asked: Asked = Asked()) -> Written:  # noqa: B008  immutable
    """Write a request log as a Parquet file; no more of it is held in memory than one segment.

    Parameters
    ----------
    folder : Path
        The log's: segments, and tables below.
    to : Path
        The file; the old one stays until the new one is whole.
    schema_of : callable
        Returns the schema of a bundle.
    asked : Asked

    Raises
    ------
    LeptonError
        If the file cannot be written.
    """
    types = _types(_lines(folder, schema_of, asked))
    counts = {"requests": 0, "rows": 0, "refused": 0, "unknown": 0}
    temporary = to.with_name(f".{to.name}.{secrets.token_hex(4)}.tmp")
    empty = pl.DataFrame(schema=types).to_arrow(compat_level=pl.CompatLevel.oldest())
    try:
        with pq.ParquetWriter(temporary, empty.schema, compression="zstd") as writer:
            for chunk, lines in _lines(folder, schema_of, asked):
                _count(chunk, counts)
                whole = lines.select(_as(lines, name, dtype) for name, dtype in types.items())
                writer.write_table(whole.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(empty.schema))
        temporary.replace(to)
    except OSError as error:
        raise LeptonError(
            f"'{to}' cannot be written: {error.strerror}.", "Name another file.", code="failed"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return Written(
        to, counts["requests"], counts["rows"], counts["refused"], counts["unknown"], tuple(types), removed(folder)
    )


def _lines(folder: Path, schema_of: SchemaOf, asked: Asked) -> Iterator[tuple[Chunk, pl.DataFrame]]:
    """Yield the log's chunks as the file's lines, each with the columns that it has."""
    for chunk in read_chunks(folder, asked.start, asked.end, schema_of=schema_of, has_shadow=asked.has_shadow):
        lines = _line(chunk)
        yield chunk, lines if asked.has_shadow else lines.drop(SHADOW)


def _line(chunk: Chunk) -> pl.DataFrame:
    frame, schema = chunk
    ids = [None if text is None else text_of(msgspec.json.decode(text)) for text in frame["id"].to_list()]
    about: dict[str, pl.Series] = {
        "at": (frame["at"] * 1e6).cast(pl.Int64).cast(pl.Datetime("us", "UTC")),
        "row_id": row_ids(frame["request_id"], frame["index"]),
        "id": pl.Series(ids, dtype=pl.String),
    }
    ours = {name: about[name] if name in about else frame[name] for name in (*ABOUT, SHADOW)}
    columns = {column.name: _values(frame, schema, column.name) for column in schema.columns} if schema else {}
    if IMAGE in frame.columns:
        columns["image_sha256"] = frame[IMAGE]
    theirs = {name: frame[name] for name in (outputs_of(schema) if schema else ["prediction"]) if name in frame.columns}
    taken = {*ours, *theirs}
    named = {f"{name}_in" if name in taken else name: series for name, series in columns.items()}
    return pl.DataFrame({name: series.alias(name) for name, series in (ours | named | theirs).items()})


def _values(frame: pl.DataFrame, schema: Schema, name: str) -> pl.Series:
    """Return a column of the data as it is, or its pseudonyms where the log has these."""
    column = next(column for column in schema.columns if column.name == name)
    values = frame[raw(name)] if column.is_text else typed(column, frame[raw(name)])
    if hashed(name) not in frame.columns:
        return values
    return frame[hashed(name)].fill_null(values.cast(pl.String))


def _types(parts: Iterator[tuple[Chunk, pl.DataFrame]]) -> dict[str, Any]:
    """Return the type of each of the file's columns: those about requests first, what was predicted last."""
    found: dict[str, Any] = dict.fromkeys(ABOUT, pl.String) | {
        "at": pl.Datetime("us", "UTC"), "latency_ms": pl.Float64, "status": pl.Int16, "share": pl.Float64,
    }  # fmt: skip
    outputs: dict[str, Any] = {}
    for chunk, lines in parts:
        last = set(outputs_of(chunk.schema)) if chunk.schema is not None else {"prediction"}
        for name, dtype in lines.schema.items():
            if name == "prediction" and chunk.schema is None and not lines[name].count():
                continue  # nothing was predicted there
            into = outputs if name in last else found
            into[name] = dtype if into.get(name, dtype) == dtype else pl.String
    return found | outputs


def _as(lines: pl.DataFrame, name: str, dtype: Any) -> pl.Expr:
    if name not in lines.columns:
        return pl.lit(None, dtype=dtype).alias(name)
    return pl.col(name).cast(dtype)


def _count(chunk: Chunk, counts: dict[str, int]) -> None:
    frame = chunk.frame.filter(~pl.col("is_shadow"))
    n_rows = int(frame["index"].count())
    first = frame.filter(pl.col("index").fill_null(0) == 0)
    counts["refused"] += int((first["status"] >= 400).sum())
    counts["requests"] += int((first["status"] < 400).sum())
    counts["rows"] += n_rows
    counts["unknown"] += n_rows if chunk.schema is None else 0
