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


def read_tensor(
    raw: bytes | memoryview, datatype: str, shape: Sequence[int], *, is_text: bool = True
) -> NDArray[Any] | list[str] | list[bytes]:
    """Return the elements of a tensor, flat.

    Parameters
    ----------
    raw : bytes
    datatype : str
        Of the protocol; one of `DTYPES`, or BYTES.
    shape : sequence of int
        Not negative; of any size.
    is_text : bool
        Whether the elements of BYTES are UTF-8, as text; else they are returned as they are.

    Raises
    ------
    TensorError
        If the bytes are more or fewer than the shape wants, or are no text or truth values where they should be.
    """
    n_elements = math.prod(shape)
    if datatype == "BYTES":
        elements = _read_elements(raw, n_elements)
        return _texts(elements) if is_text else elements
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


def _read_elements(raw: bytes | memoryview, n_elements: int) -> list[bytes]:
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise TensorError("a length is cut off")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > len(raw):
            raise TensorError(f"element {len(elements)} says {length} bytes; {len(raw) - at} are left")
        elements.append(bytes(raw[at : at + length]))
        at += length
    if len(elements) != n_elements:
        raise TensorError(f"{len(elements)} elements are given; {n_elements} are wanted")
    return elements


def _texts(elements: Sequence[bytes]) -> list[str]:
    texts: list[str] = []
    for element in elements:
        try:
            texts.append(element.decode())
        except UnicodeDecodeError as error:
            raise TensorError(f"element {len(texts)} is no UTF-8") from error
    return texts


def write_tensor(values: NDArray[Any] | Sequence[str], datatype: str) -> bytes:
    """Return the bytes of a tensor."""
    if datatype == "BYTES":
        encoded = [value.encode() for value in values]
        return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))
    return np.asarray(values).astype(DTYPES[datatype]).tobytes()
