"""A request log, each request once: from the tables that closed segments have become, and from the other segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.formats.requestlog import LoggedRequest, number_of, read_segment, segments, tables
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.deploy.requests.frames import fits, frame_of, records_of

CHUNK_ROWS = 16_384
NO_ROWS = "no-rows"  # in a table's name, in place of a bundle: of requests that were refused, or asked for nothing

NOTHING = Schema(columns=())

SchemaOf = Callable[[str], Schema | None]


class Chunk(NamedTuple):
    """Some requests as a table, and by which schema; None where nobody knows."""

    frame: pl.DataFrame
    schema: Schema | None


class Schemas:
    """What the bundles that a log names call their columns.

    Parameters
    ----------
    bundles : Path
        The folder in which they lie.
    plain : Schema, optional
        Of requests whose bundle is not named.
    """

    def __init__(self, bundles: Path, plain: Schema | None = None) -> None:
        self._bundles = bundles
        self._known: dict[str, Schema | None] = {"": plain}

    def __call__(self, bundle: str) -> Schema | None:
        """Return the schema of a bundle, by its folder's name."""
        if bundle not in self._known:
            try:
                self._known[bundle] = open_bundle(self._bundles / bundle).schema
            except LeptonError:  # deleted since, or of another machine
                self._known[bundle] = None
        return self._known[bundle]


def read_log(
    folder: Path, start: float, end: float, *, schema_of: SchemaOf | None = None, has_shadow: bool = False
) -> Iterator[LoggedRequest]:
    """Yield the requests with ``start <= at < end``, about in their order.

    Parameters
    ----------
    folder : Path
        The log's: segments, and the tables below.
    start, end : float
        Seconds since 1970, UTC.
    schema_of : callable, optional
        Returns the schema of a bundle; where none is known, its tables are passed over.
    has_shadow : bool
        Whether what shadows said is yielded too.
    """
    for source in _sources(folder, start):
        if isinstance(source, Path):
            schema, frame = _schema_of_table(source, schema_of), _read(source)
            found: Iterator[LoggedRequest] = iter(())
            if schema is not None and frame is not None:
                found = records_of(frame, schema, bundle_of(source))
        else:
            found = source
        yield from (r for r in found if start <= r.at < end and (has_shadow or not r.is_shadow))


def read_chunks(
    folder: Path, start: float, end: float, *, schema_of: SchemaOf, has_shadow: bool = False
) -> Iterator[Chunk]:
    """Yield the same as tables: never more at once than one segment's."""
    for source in _sources(folder, start):
        if isinstance(source, Path):
            schema = _schema_of_table(source, schema_of)
            is_wanted = (pl.col("at") >= start) & (pl.col("at") < end) & (~pl.col("is_shadow") | has_shadow)
            frame = _read(source)
            if frame is not None:
                yield from (Chunk(part, schema) for part in frame.filter(is_wanted).iter_slices(CHUNK_ROWS))
            continue
        wanted = (r for r in source if start <= r.at < end and (has_shadow or not r.is_shadow))
        yield from (Chunk(frame, schema) for _, frame, schema in framed(wanted, schema_of))


def framed(records: Iterator[LoggedRequest], schema_of: SchemaOf) -> Iterator[tuple[str, pl.DataFrame, Schema | None]]:
    """Yield requests as tables of one bundle each, with the bundle's name and schema."""
    waiting: dict[tuple[str, bool], list[LoggedRequest]] = {}
    sizes: dict[tuple[str, bool], int] = {}

    def taken(key: tuple[str, bool]) -> tuple[str, pl.DataFrame, Schema | None]:
        bundle, is_known = key
        schema = schema_of(bundle) if is_known else None
        sizes[key] = 0
        return bundle, frame_of(waiting.pop(key), schema), schema

    for record in records:
        schema = None if record.n_rows == 0 else schema_of(record.bundle)
        is_known = schema is not None and fits(record, schema)
        key = (record.bundle if record.n_rows else NO_ROWS, is_known)
        waiting.setdefault(key, []).append(record)
        sizes[key] = sizes.get(key, 0) + max(1, record.n_rows)
        if sizes[key] >= CHUNK_ROWS:
            yield taken(key)
    for key in list(waiting):
        yield taken(key)


def _sources(folder: Path, start: float) -> Iterator[Path | Iterator[LoggedRequest]]:
    """Yield what there is to read, oldest first: tables by their path, segments as what they hold.

    A segment goes only once all its tables are in place, and counts for as long as it is there.
    """
    whole = segments(folder)  # before the tables: what has gone by then is among these
    made = tables(folder)
    numbers = {number_of(path.name) for path in whole}
    found = [*whole, *(path for path in made if number_of(path.name) not in numbers)]
    for path in sorted(found, key=lambda path: path.name):
        try:
            if path.stat().st_mtime < start:
                continue
            if path in whole:
                records = (record for _, record in read_segment(path))
                yield chain([first] if (first := next(records, None)) is not None else [], records)
            else:
                yield path
        except FileNotFoundError:  # it became tables just now, or is too old
            number = number_of(path.name)
            yield from (each for each in tables(folder) if number_of(each.name) == number and path in whole)


def _read(table: Path) -> pl.DataFrame | None:
    try:
        return pl.read_parquet(table)
    except FileNotFoundError:  # too old or too much: it has gone just now
        return None


def bundle_of(table: Path) -> str:
    """Return the name of the bundle that answered what a table holds; empty for requests without rows."""
    return table.stem[11:].removeprefix(NO_ROWS)


def _schema_of_table(table: Path, schema_of: SchemaOf | None) -> Schema | None:
    if not bundle_of(table):
        return NOTHING
    return schema_of(bundle_of(table)) if schema_of is not None else None
