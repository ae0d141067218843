"""A training's state as one file: tensors in safetensors, the rest as JSON in its header. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic

TENSOR, TUPLE, KEYS, ARRAY = "__tensor__", "__tuple__", "__items__", "__array__"
MARKS = (TENSOR, TUPLE, KEYS, ARRAY)


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state whole, or not at all.

    Parameters
    ----------
    path : Path
    state : mapping
        Tensors, NumPy arrays, numbers, text, None, and dicts, lists and tuples of such. Tensors are copied to the CPU.

    Raises
    ------
    LeptonError
        If it holds something else; the message names where.
    OSError
        As the file system says; the old file stays.
    """
    write_atomic(path, encode_state(state), is_durable=False)


def encode_state(state: Mapping[str, Any]) -> bytes:
    """Return what `write_state` writes."""
    tensors: dict[str, torch.Tensor] = {}
    shape = _shape(state, "state", tensors)
    return to_bytes(tensors, {"state": json.dumps(shape)})


def read_state(path: Path) -> dict[str, Any]:
    """Return a state as it was written; tensors lie on the CPU.

    Raises
    ------
    OSError
        If there is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(2, "No such file", str(path))
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        found: dict[str, Any] = _built(json.loads((file.metadata() or {})["state"]), tensors)
    return found


def _shape(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a value as JSON, its tensors put beside."""
    if isinstance(value, torch.Tensor):
        # a copy of its own: safetensors refuses tensors that share memory
        tensors[place] = value.detach().cpu().contiguous().clone()
        return {TENSOR: place}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str | float):
        return value
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return {ARRAY: [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes().hex()]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key not in MARKS for key in value):
            return {key: _shape(item, f"{place}.{key}", tensors) for key, item in value.items()}
        return {KEYS: [[_key(key, place), _shape(item, f"{place}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_shape(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    raise LeptonError(
        f"A checkpoint cannot hold {place}: it is a {type(value).__name__}.",
        "Give tensors, arrays, numbers, text, and dicts and lists of such: model.state_dict() in place of a model.",
    )


def _key(key: Any, place: str) -> Any:
    if isinstance(key, str | int | float | bool) or key is None:
        return key
    raise LeptonError(f"A checkpoint cannot hold the key {key!r} of {place}.", "Use text or a number.")


def _built(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_built(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if TUPLE in value:
        return tuple(_built(item, tensors) for item in value[TUPLE])
    if KEYS in value:
        return {key: _built(item, tensors) for key, item in value[KEYS]}
    if ARRAY in value:
        kind, shape, content = value[ARRAY]
        return np.frombuffer(bytes.fromhex(content), dtype=kind).reshape(shape).copy()
    return {key: _built(item, tensors) for key, item in value.items()}
