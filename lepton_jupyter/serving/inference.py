"""The Open Inference Protocol, version 2, with JSON tensors and with its binary extension.

Inputs are the graph's packed ones (``num`` [N, k], ``txt`` [N, m]), or one tensor a column, named as the column, of
shape [N] or [N, 1]. null is a missing value in any of them; in binary numbers it is NaN.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import (
    Packed,
    PackingError,
    check_packed,
    column_ids,
    describe_columns,
    pack_columns,
    pack_tensor,
)
from lepton_jupyter.formats.schema import SENTINEL, Schema
from lepton_jupyter.serving import pictures
from lepton_jupyter.serving.answers import Answer, HttpError, check_count, decode_error, json_answer, refused, unfit
from lepton_jupyter.serving.invocations import without_nan
from lepton_jupyter.serving.predict import Asked
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.scorer import Outputs, Scorer
from lepton_jupyter.serving.tensors import TensorError, read_tensor, write_tensor

HEADER_LENGTH = b"inference-header-content-length"
_SIGNED = {f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}
_UNSIGNED = {f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)}
INTEGERS = {**_SIGNED, **_UNSIGNED}
FLOATS = ("FP16", "FP32", "FP64")
DATATYPES = ("BOOL", *INTEGERS, *FLOATS, "BYTES")
_SIMPLE: dict[str, frozenset[type]] = {
    **{datatype: frozenset({float, int, type(None)}) for datatype in FLOATS},
    "BYTES": frozenset({str, type(None)}),
    "BOOL": frozenset({bool, type(None)}),
}
_LABEL_DTYPES = {"INT64": np.int64, "FP64": np.float64, "BOOL": np.bool_}
LABEL_TYPES = {"string": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}


class Tensor(msgspec.Struct):
    """One input; `data` is flat or nested, or comes as bytes behind the JSON (then it is what `read_tensor` gave)."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | UnsetType = UNSET
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct):
    """One requested output."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The body of ``infer``."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Wanted] = []
    parameters: dict[str, Any] = {}


_decode = msgspec.json.Decoder(InferRequest).decode


def read(release: Release, body: bytes, *, name: str, header_bytes: int | None = None) -> Asked:
    """Read the body of ``POST /v2/models/NAME/infer``.

    Parameters
    ----------
    release : Release
    body : bytes
    name : str
        What the model is called in the answer.
    header_bytes : int, optional
        How much of the body is JSON, where tensors follow as bytes.

    Raises
    ------
    HttpError
        400 for broken JSON or a tensor that is not what it says, 413 for too many rows, 422 for rows that do not fit.
    """
    if header_bytes is not None and header_bytes > len(body):
        raise refused(400, f"Inference-Header-Content-Length is {header_bytes}; the body has {len(body)} bytes.")
    head = body if header_bytes is None else body[:header_bytes]
    request = _request(head)
    _attach(request.inputs, memoryview(body)[len(head) :], is_text=release.schema.image is None)
    _check_outputs([output.name for output in request.outputs], release.schema)
    tensors, request.inputs = request.inputs, []  # what the answer needs is little; this is held until it is sent
    try:
        if release.schema.image is not None:
            sent = _read_images(release.schema, tensors, release.config.max_rows)
            return Asked(sent.pixels, None, partial(_write, release, request, name), sent.hashes)
        rows, ids = _read(release.schema, tensors, release.config.max_rows)
    except PackingError as error:
        raise unfit(error) from error
    return Asked(rows, ids, partial(_write, release, request, name))


def _request(head: bytes) -> InferRequest:
    try:
        return _decode(head)
    except (ValueError, RecursionError) as error:
        if b"NaN" not in head:
            raise decode_error(error, head) from error
    try:  # Triton's client writes it where a number is missing
        return _decode(without_nan(head))
    except (ValueError, OverflowError, RecursionError) as error:
        raise decode_error(error, head) from error


def _attach(tensors: list[Tensor], raw: memoryview, *, is_text: bool = True) -> None:
    """Give the tensors that come as bytes their data."""
    at = 0
    for tensor in tensors:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            if tensor.data is UNSET:
                raise _bad(tensor, "neither 'data' nor 'binary_data_size' is given")
            continue
        if tensor.data is not UNSET:
            raise _bad(tensor, "both 'data' and 'binary_data_size' are given")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(raw) - at:
            raise _bad(tensor, f"binary_data_size is {str(size)[:40]}; {len(raw) - at} bytes are left behind the JSON")
        _check_form(tensor)
        try:
            found: Any = read_tensor(raw[at : at + size], tensor.datatype, tensor.shape, is_text=is_text)
            tensor.data = found
        except TensorError as error:
            raise _bad(tensor, str(error)) from error
        at += size
    if at != len(raw):
        raise refused(400, f"{len(raw) - at} bytes follow the last tensor.")


def _write(release: Release, request: InferRequest, name: str, outputs: Outputs, request_id: str) -> Answer:
    wanted = {output.name: output.parameters for output in request.outputs}
    is_binary = bool(request.parameters.get("binary_data_output", False))
    told: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for output, datatype, values in _outputs(release.scorer, outputs):
        if wanted and output not in wanted:
            continue
        shape = list(values.shape) if isinstance(values, np.ndarray) else [len(values)]
        about: dict[str, Any] = {"name": output, "datatype": datatype, "shape": shape}
        if wanted.get(output, {}).get("binary_data", is_binary):
            parts.append(write_tensor(values, datatype))
            about["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            about["data"] = values.ravel().tolist() if isinstance(values, np.ndarray) else values
        told.append(about)
    answer = json_answer(
        {
            "model_name": name,
            "model_version": release.config.version,
            "id": request.id if request.id is not None else request_id,
            "outputs": told,
        }
    )
    if not parts:
        return answer
    length = (HEADER_LENGTH, str(len(answer.body)).encode())
    return Answer(200, b"".join((answer.body, *parts)), [(b"content-type", b"application/octet-stream"), length])


def metadata(release: Release, name: str) -> dict[str, Any]:
    """Return the answer of ``GET /v2/models/NAME``; ``columns`` is ours, and names what `num` and `txt` hold."""
    schema = release.schema
    if schema.image is not None:
        inputs = [{"name": pictures.COLUMN, "datatype": "BYTES", "shape": [-1]}]
    elif schema.tensor_shape is not None:
        inputs = [{"name": "tensor", "datatype": "FP32", "shape": [-1, *schema.tensor_shape]}]
    else:
        packed = (("num", "FP64", schema.num), ("txt", "BYTES", schema.txt))
        inputs = [{"name": n, "datatype": kind, "shape": [-1, len(c)]} for n, kind, c in packed if c]
    if schema.task == "regression":
        outputs = [{"name": "prediction", "datatype": "FP64", "shape": [-1, max(1, len(schema.targets))]}]
    else:
        outputs = [
            {"name": "prediction", "datatype": LABEL_TYPES.get(schema.class_kind, "BYTES"), "shape": [-1]},
            {"name": "probability", "datatype": "FP32", "shape": [-1, len(schema.classes)]},
        ]
    return {
        "name": name,
        "versions": [release.config.version],
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": outputs,
        "columns": [{"name": column.name, "kind": column.kind} for column in schema.columns],
        "classes": list(schema.classes),
        **({"image": msgspec.to_builtins(schema.image)} if schema.image is not None else {}),
    }


def _check_outputs(wanted: list[str], schema: Schema) -> None:
    known = ("prediction",) if schema.task == "regression" else ("prediction", "probability")
    for name in wanted:
        if name not in known:
            raise refused(400, f"No output named '{name}'. Known: {', '.join(known)}.")


def _read(schema: Schema, tensors: list[Tensor], max_rows: int) -> tuple[Packed | NDArray[Any], list[Any] | None]:
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(by_name) != len(tensors):
        raise refused(400, "An input is given twice.")
    for tensor in tensors:
        n_rows = tensor.shape[0] if tensor.shape else 0
        if n_rows > max_rows:
            _check_form(tensor)  # what is no shape has no rows
            check_count(n_rows, max_rows)
    if schema.tensor_shape is not None:
        return _read_tensor(schema, by_name), None
    names = {column.name for column in schema.columns}
    if by_name and by_name.keys() <= {"num", "txt"} and not by_name.keys() <= names:
        return _read_packed(schema, by_name), None
    columns: dict[str, Any] = {}
    for name, tensor in by_name.items():
        if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
            raise _bad(tensor, f"shape {tensor.shape} is given; a column is [N] or [N, 1]", schema)
        columns[name] = _values(tensor)
    return pack_columns(schema, columns), column_ids(schema, columns)


def _read_images(schema: Schema, tensors: list[Tensor], max_rows: int) -> pictures.Sent:
    """Return files (``image``, BYTES [N]: as bytes, in JSON as base64) or pixels (``tensor``, [N, C, H, W])."""
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(tensors) != 1 or not by_name.keys() <= {pictures.COLUMN, "tensor"}:
        given = ", ".join(tensor.name for tensor in tensors) or "none"
        raise refused(400, f"Inputs {given[:200]} are given; '{pictures.COLUMN}' alone (or 'tensor') is wanted.")
    (tensor,) = tensors
    check_count(tensor.shape[0] if tensor.shape else 0, max_rows)
    if tensor.name == "tensor":
        return pictures.from_pixels(schema, _read_tensor(schema, by_name))
    if tensor.datatype != "BYTES" or len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]):
        said = f"{tensor.datatype} of shape {tensor.shape} is given; BYTES [N] is wanted"
        raise _bad(tensor, said, schema)
    assert schema.image is not None
    return pictures.read_rows(schema.image, list(_values(tensor)))


def _read_tensor(schema: Schema, by_name: dict[str, Tensor]) -> NDArray[Any]:
    if by_name.keys() != {"tensor"}:
        raise refused(400, f"Inputs {', '.join(by_name) or 'none'} are given; 'tensor' alone is wanted.")
    tensor = by_name["tensor"]
    values = _values(tensor)
    if tuple(tensor.shape[1:]) != schema.tensor_shape or not tensor.shape:
        raise _bad(tensor, f"shape {tensor.shape} is given", schema)
    if not isinstance(values, np.ndarray) and not set(map(type, values)) <= {int, float}:
        raise _bad(tensor, f"{tensor.datatype} with null or text is given; numbers are wanted", schema)
    try:
        array = values if isinstance(values, np.ndarray) else np.array(values, np.float64)
    except OverflowError as error:
        raise _bad(tensor, "a number is too large", schema) from error
    return pack_tensor(schema, array.reshape(tensor.shape))


def _read_packed(schema: Schema, by_name: dict[str, Tensor]) -> Packed:
    n_rows = max(tensor.shape[0] if tensor.shape else 0 for tensor in by_name.values())
    parts: dict[str, Any] = {}
    for name, columns in (("num", schema.num), ("txt", schema.txt)):
        tensor = by_name.get(name)
        if tensor is None:
            if columns:
                raise refused(400, f"The input '{name}' is missing.", describe_columns(schema))
            parts[name] = []
            continue
        values = _values(tensor)
        if tensor.shape != [n_rows, len(columns)]:
            raise _bad(tensor, f"shape {tensor.shape} is given; [{n_rows}, {len(columns)}] is wanted", schema)
        if (tensor.datatype == "BYTES") != (name == "txt"):
            raise _bad(tensor, f"datatype {tensor.datatype} does not go there", schema)
        parts[name] = values
    numbers = parts["num"]
    if not isinstance(numbers, np.ndarray):
        try:
            numbers = [math.nan if value is None else float(value) for value in numbers]
        except OverflowError as error:
            raise _bad(by_name["num"], "a number is too large", schema) from error
    if SENTINEL in parts["txt"]:
        raise _bad(by_name["txt"], f"{SENTINEL!r} is reserved for missing values; send null", schema)
    texts = [SENTINEL if value is None else value for value in parts["txt"]]
    num = np.array(numbers, np.float64).reshape(n_rows, len(schema.num))
    packed = Packed(num, np.array(texts, object).reshape(n_rows, len(schema.txt)))
    check_packed(schema, packed)
    return packed


def _check_form(tensor: Tensor) -> None:
    """Refuse a datatype or a shape that is none."""
    if tensor.datatype not in DATATYPES:
        raise _bad(tensor, f"datatype '{tensor.datatype}' is unknown; known: {', '.join(DATATYPES)}")
    if any(size < 0 for size in tensor.shape):
        raise _bad(tensor, f"shape {tensor.shape} has a negative size")


def _values(tensor: Tensor) -> list[Any] | NDArray[Any]:
    """Return the data of a tensor, flat, held to its shape and datatype; null stays."""
    _check_form(tensor)
    data: Any = tensor.data
    if isinstance(data, np.ndarray) or (data and isinstance(data[0], bytes)):  # came as bytes
        return data
    values: list[Any] = data
    while any(isinstance(value, list) for value in values):
        if not all(isinstance(value, list) for value in values):
            raise _bad(tensor, "its data is nested unevenly")
        values = [value for part in values for value in part]
    if len(values) != math.prod(tensor.shape):
        raise _bad(tensor, f"{len(values)} values are given for shape {tensor.shape}")
    if set(map(type, values)) <= _SIMPLE.get(tensor.datatype, frozenset()):
        return values
    culprits = (value for value in values if value is not None and not _is_of(tensor.datatype, value))
    for culprit in culprits:
        raise _bad(tensor, f"{str(culprit)[:40]!r} is no {tensor.datatype}")
    return values


def _is_of(datatype: str, value: Any) -> bool:
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL" or isinstance(value, bool):
        return isinstance(value, bool) and datatype == "BOOL"
    if datatype in FLOATS:
        return isinstance(value, (int, float))
    low, high = INTEGERS[datatype]
    return isinstance(value, int) and low <= value <= high


def _outputs(scorer: Scorer, outputs: Outputs) -> list[tuple[str, str, NDArray[Any] | list[str]]]:
    """Return name, datatype and values of each output."""
    if outputs.probability is None:
        return [("prediction", "FP64", outputs.prediction)]
    labels = scorer.table(outputs)["prediction"]
    datatype = LABEL_TYPES.get(scorer.schema.class_kind, "BYTES")
    typed: Any = labels if datatype == "BYTES" else np.array(labels, _LABEL_DTYPES[datatype])
    return [("prediction", datatype, typed), ("probability", "FP32", outputs.probability)]


def _bad(tensor: Tensor, what: str, schema: Schema | None = None) -> HttpError:
    return refused(400, f"Input '{tensor.name}': {what}.", describe_columns(schema) if schema is not None else "")
