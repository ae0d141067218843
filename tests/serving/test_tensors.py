"""Tensors as bytes."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_jupyter.serving.tensors import DTYPES, TensorError, read_tensor, write_tensor


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_what_is_written_is_read(datatype: str) -> None:
    if datatype == "BYTES":
        texts = ["", "Dream", "ß\u2400missing"]
        assert read_tensor(write_tensor(texts, datatype), datatype, [3]) == texts
        return
    values = np.array([[0, 1], [1, 0]]).astype(DTYPES[datatype])
    found = read_tensor(memoryview(write_tensor(values, datatype)), datatype, [2, 2])
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, values.ravel().astype(found.dtype))


@pytest.mark.parametrize(
    ("raw", "datatype", "shape", "said"),
    [
        (b"1234", "FP64", [1], "4 bytes are given; 8 are wanted"),
        (b"", "FP32", [10**30, 10**30], "are wanted"),
        (b"\x02", "BOOL", [1], "neither 0 nor 1"),
        (b"\x01\x00", "BYTES", [1], "a length is cut off"),
        (b"\xff\xff\xff\xffab", "BYTES", [1], "element 0 says 4294967295 bytes; 2 are left"),
        (b"\x01\x00\x00\x00\xff", "BYTES", [1], "no UTF-8"),
        (b"\x01\x00\x00\x00a", "BYTES", [2], "1 elements are given; 2 are wanted"),
    ],
)
def test_bytes_that_are_not_the_tensor_are_refused(raw: bytes, datatype: str, shape: list[int], said: str) -> None:
    with pytest.raises(TensorError, match=said):
        read_tensor(raw, datatype, shape)
