"""Rows and tables by their content: what stays the same from one version to the next.

The hash is our own (splitmix64, Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators, over
canonical bits), because polars promises no equal hashes from one of its versions to the next and these lie on disk.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_NULL = np.uint64(0x9E3779B97F4A7C15)


def mix(values: Keys) -> Keys:
    """Return splitmix64's finalizer of every value: well-spread bits, one to one."""
    x = values + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash_text(text: str) -> np.uint64:
    """Return 64 bits of a text's BLAKE2b."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def row_keys(frame: pl.DataFrame, id_column: str | None = None) -> Keys:
    """Return a key of every row, uint64 [N]: by its id, else by its content.

    The n-th of several equal rows has a key of its own. The columns' order and whether a whole number is stored as
    integer or float do not matter.
    """
    return add_occurrence(content_keys(frame.select(id_column) if id_column is not None else frame))


def content_keys(frame: pl.DataFrame) -> Keys:
    """Return a hash of every row's content, uint64 [N]: equal rows have equal ones."""
    total = np.zeros(frame.height, dtype=np.uint64)
    for name in frame.columns:
        total += mix(_bits(frame[name]) ^ hash_text(name))  # a sum: the columns' order does not matter
    return mix(total)


def add_occurrence(keys: Keys) -> Keys:
    """Return keys that differ for the first, second … row of the same key, in the rows' order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    occurrence = np.empty(len(keys), dtype=np.uint64)
    occurrence[order] = (np.arange(len(keys)) - starts).astype(np.uint64)
    return np.where(occurrence == 0, keys, mix(keys + occurrence))


def _bits(series: pl.Series) -> Keys:
    """Return 64 canonical bits of every value: equal values have equal bits in any numeric type."""
    if series.dtype == pl.String:
        return _bits_of_text(series)
    missing = series.is_null().to_numpy()
    if series.dtype.is_integer():
        whole = series.fill_null(0).to_numpy()
        floats = whole.astype(np.float64)
        is_exact = np.abs(floats) <= 2.0**53
        bits = np.where(is_exact, floats.view(np.uint64), whole.astype(np.int64, copy=False).view(np.uint64))
    elif series.dtype.is_float() or series.dtype == pl.Boolean:
        floats = series.cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0  # makes -0.0 the same as 0.0
        bits = floats.view(np.uint64)
    elif series.dtype.is_temporal():
        bits = series.to_physical().cast(pl.Int64).fill_null(0).to_numpy().view(np.uint64)
    else:  # lists, structs, bytes: no feature, but part of the row
        return _bits_of_text(
            pl.Series([None if value is None else repr(value) for value in series.to_list()], dtype=pl.String)
        )
    return np.where(missing, _NULL, bits)


def _bits_of_text(series: pl.Series) -> Keys:
    unique = series.unique().to_list()
    hashes = pl.Series([int(_NULL) if text is None else int(hash_text(text)) for text in unique], dtype=pl.UInt64)
    table = pl.DataFrame({"text": pl.Series(unique, dtype=pl.String), "bits": hashes})
    joined = series.to_frame("text").join(table, on="text", how="left", nulls_equal=True, maintain_order="left")
    return joined["bits"].to_numpy().astype(np.uint64)


def content_hash(frame: pl.DataFrame, *extra: NDArray[np.generic]) -> str:
    """Return sha256 over column names, types and all values in order, hexadecimal; `extra` arrays count too."""
    digest = hashlib.sha256()
    for name in frame.columns:
        series = frame[name]
        digest.update(f"{name}\x00{series.dtype}\x00{len(series)}\x00".encode())
        _update(digest, series)
    for array in extra:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, series: pl.Series) -> None:
    digest.update(np.packbits(series.is_null().to_numpy()).tobytes())
    if series.dtype == pl.String:
        text = series.fill_null("")
        digest.update(text.str.len_bytes().to_numpy().tobytes())
        digest.update(str(text.str.join("")[0]).encode())
    elif series.dtype.is_numeric() or series.dtype == pl.Boolean:
        digest.update(
            series.cast(pl.UInt8 if series.dtype == pl.Boolean else series.dtype).fill_null(0).to_numpy().tobytes()
        )
    elif series.dtype.is_temporal():
        digest.update(series.to_physical().fill_null(0).to_numpy().tobytes())
    else:
        digest.update(repr(series.to_list()).encode())
