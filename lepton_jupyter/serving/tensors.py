"""Tensors as bytes: the binary extension of the Open Inference Protocol.

Numbers are little-endian, row by row; each element of a BYTES tensor is its length (uint32) and then UTF-8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")
DTYPES = {
    "BOOL": "u1",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}  # fmt: skip


class TensorError(ValueError):
    """Bytes that are not the tensor they are said to be; the text says why."""


def read_tensor(raw: bytes | memoryview, datatype: str, shape: Sequence[int]) -> NDArray[Any] | list[str]:
    """Return the elements of a tensor, flat.

    Parameters
    ----------
    raw : bytes
    datatype : str
        Of the protocol; one of `DTYPES`, or BYTES.
    shape : sequence of int
        Not negative; of any size.

    Raises
    ------
    TensorError
        If the bytes are more or fewer than the shape wants, or are no text or truth values where they should be.
    """
    n_elements = math.prod(shape)
    if datatype == "BYTES":
        return _read_texts(raw, n_elements)
    dtype = np.dtype(DTYPES[datatype])
    if len(raw) != n_elements * dtype.itemsize:
        raise TensorError(
            f"{len(raw)} bytes are given; {n_elements * dtype.itemsize} are wanted for shape {list(shape)}"
        )
    values = np.frombuffer(raw, dtype)
    if datatype != "BOOL":
        return values
    if values.size and values.max() > 1:
        raise TensorError("a BOOL is neither 0 nor 1")
    return values.astype(bool)


def _read_texts(raw: bytes | memoryview, n_elements: int) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise TensorError("a length is cut off")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > len(raw):
            raise TensorError(f"element {len(texts)} says {length} bytes; {len(raw) - at} are left")
        try:
            texts.append(str(raw[at : at + length], "utf-8"))
        except UnicodeDecodeError as error:
            raise TensorError(f"element {len(texts)} is no UTF-8") from error
        at += length
    if len(texts) != n_elements:
        raise TensorError(f"{len(texts)} elements are given; {n_elements} are wanted")
    return texts


def write_tensor(values: NDArray[Any] | Sequence[str], datatype: str) -> bytes:
    """Return the bytes of a tensor."""
    if datatype == "BYTES":
        encoded = [value.encode() for value in values]
        return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))
    return np.asarray(values).astype(DTYPES[datatype]).tobytes()
