"""Closed segments of the request log become tables; what is too old or too much goes.

``python -m lepton_jupyter.stages.deploy.requests.closing HOME`` does so once for all endpoints of a home: the backend
starts it now and then. It may be killed at any moment: a segment goes only once all its tables are in place.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import msgspec
import polars as pl
import pyarrow.parquet as pq

from lepton_jupyter.core.paths import EndpointFolder, Home
from lepton_jupyter.core.processes import Lock
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.requestlog import TABLES, is_closed, read_segment, segments, tables
from lepton_jupyter.formats.retention import RECORD, Keep, count_segment, keep_of, remove, surplus
from lepton_jupyter.stages.deploy.requests.reading import NO_ROWS, SchemaOf, Schemas, framed

LOCK = ".making"
NICE = 10
COUNTS = ("n_requests", "n_rows")  # of a table, beside it in the file's own metadata

log = logging.getLogger("lepton.requests")


def main(home: Home) -> int:
    """Do what is to do for every endpoint of a home; return how many could not be done."""
    n_failed = 0
    for config_path in sorted(home.endpoints.glob("*/endpoint.json")):
        folder = EndpointFolder(config_path.parent)
        try:
            config = msgspec.json.decode(config_path.read_bytes(), type=EndpointConfig)
            keep_up(folder.requests, Schemas(home.bundles), keep_of(config.options))
            if not config_path.exists():  # deleted meanwhile: what was written just now must not stay
                shutil.rmtree(folder.requests, ignore_errors=True)
        except (OSError, msgspec.DecodeError, pl.exceptions.PolarsError) as error:
            n_failed += 1
            log.warning("the request log of '%s' could not be kept up: %s", folder.name, error)
    return n_failed


def keep_up(folder: Path, schema_of: SchemaOf, keep: Keep) -> int:
    """Turn closed segments into tables, remove what is too old or too much, and return how many segments were turned.

    Parameters
    ----------
    folder : Path
        A request log's.
    schema_of : callable
        Returns the schema of a bundle; a segment that holds rows of an unknown one stays as it is.
    keep : Keep

    Raises
    ------
    OSError
        As the file system says: what was not done yet is done the next time.
    """
    if not folder.is_dir():
        return 0
    (folder / TABLES).mkdir(mode=0o700, exist_ok=True)
    lock = Lock.take(folder / TABLES / LOCK)
    if lock is None:
        return 0
    try:
        for left in (folder / TABLES).glob("*.tmp"):
            left.unlink()
        turned = [turn(segment, schema_of) for segment in segments(folder) if is_closed(segment)]
        made, whole = tables(folder), segments(folder)
        gone = surplus(sorted([*whole, *made], key=lambda path: path.name), keep, room=keep.segment_bytes)
        remove([path for path in gone if path in made], folder / TABLES / RECORD, _count_table)
        remove([path for path in gone if path in whole], folder / TABLES / RECORD, count_segment)
    finally:
        lock.release()
    return sum(turned)


def turn(segment: Path, schema_of: SchemaOf) -> bool:
    """Turn a closed segment into tables, one a bundle; False where it has to stay: nobody knows a bundle's columns.

    Raises
    ------
    OSError
        As the file system says; the segment is there still.
    """
    frames: dict[str, list[pl.DataFrame]] = {}
    about = segment.stat()
    for bundle, frame, schema in framed((record for _, record in read_segment(segment)), schema_of):
        if schema is None and bundle != NO_ROWS:
            return False
        frames.setdefault(bundle, []).append(frame)
    place = segment.parent / TABLES
    made = {bundle: place / f"{segment.stem}-{bundle}.parquet.tmp" for bundle in frames}
    for bundle, path in made.items():
        _write(pl.concat(frames.pop(bundle), how="diagonal_relaxed"), path)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # readers and retention go by when it was written
    for path in made.values():
        path.replace(path.with_suffix(""))
    _sync(place)
    segment.unlink(missing_ok=True)
    return True


def _write(frame: pl.DataFrame, path: Path) -> None:
    answered = frame.filter(~pl.col("is_shadow"))
    n_requests = (answered["index"].fill_null(0) == 0).sum()
    counts = {"n_requests": str(n_requests), "n_rows": str(answered["index"].count())}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        frame.write_parquet(file, compression="zstd", metadata=counts)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk: a segment must not go before its tables are found there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _count_table(path: Path) -> tuple[int, int]:
    found = pq.read_metadata(path).metadata or {}
    n_requests, n_rows = (int(found.get(name.encode(), b"0")) for name in COUNTS)
    return n_requests, n_rows


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    os.nice(NICE)
    sys.exit(main(Home(Path(sys.argv[1]))))
