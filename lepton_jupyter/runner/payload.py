"""The payload of a run: objects by value, large arrays and tables as files beside them.

Functions and classes travel with their code (cloudpickle). All functions of the notebook share one namespace again in
the run, as they did in the notebook. Arrays and tables from `LARGE_BYTES` on leave the pickle for a file of their own.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.by_value import Pickler

OBJECTS = "objects.pkl"
INDEX = "index.json"
MODULES = "modules"
TABLES = "tables"
LARGE_BYTES = 2**20


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``payload/index.json``: what else the run must know of the notebook that asked.

    Attributes
    ----------
    names : tuple of str
        Variables that travelled.
    cells : dict
        Source of the cells that the code came from, by the file name in its code objects.
    labels : dict
        What tracebacks call such a cell: the number in ``In[5]``.
    sys_path : tuple of str
        The notebook's ``sys.path``.
    python : str
        Its version, ``3.12``: code by value does not travel between versions.
    source : str
        The model's source, for a person.
    """

    names: tuple[str, ...] = ()
    cells: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    sys_path: tuple[str, ...] = ()
    python: str = ""
    source: str = ""


class TooLargeError(Exception):
    """The pickle, or one array or table, passed the limit."""


class _Limited(io.RawIOBase):
    """Bytes in memory, up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.parts: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        self.size += len(content)
        if self.size > self.limit_bytes:
            raise TooLargeError
        self.parts.append(content)
        return len(content)


class _Writer(Pickler):
    def __init__(self, file: _Limited, namespace: Mapping[str, Any], files: dict[str, bytes]) -> None:
        super().__init__(file, protocol=5)
        self._limit_bytes = file.limit_bytes
        self._files = files
        self._kept: dict[int, tuple[Any, str]] = {}  # the object too: an id may be given away again
        self._space = {"__name__": "__main__"}
        # A caller may have made a copy of the notebook's namespace; its functions still have the real one.
        for space in (namespace, vars(sys.modules["__main__"])):
            self.globals_ref[id(space)] = self._space

    def persistent_id(self, obj: Any) -> tuple[str, ...] | None:
        if obj is self._space:
            return ("namespace",)
        if isinstance(obj, ModuleType) and type(obj) is not ModuleType:
            return _named_module(obj)
        known = self._kept.get(id(obj))
        if known is not None:
            return ("file", known[1])
        how = _filed(obj)
        if how is None:
            return None
        if size_of(obj) > self._limit_bytes:
            raise TooLargeError
        suffix, write = how
        name = f"{TABLES}/{len(self._kept)}.{suffix}"
        content = write()
        self._kept[id(obj)] = (obj, name)
        self._files[name] = content
        return ("file", name)


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, folder: Path, namespace: dict[str, Any]) -> None:
        super().__init__(file)
        self._folder = folder
        self._namespace = namespace
        self._read: dict[str, Any] = {}

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "namespace":
            return self._namespace
        if pid[0] == "module":
            return importlib.import_module(pid[1])
        if pid[1] not in self._read:
            self._read[pid[1]] = _unfiled(self._folder / pid[1])
        return self._read[pid[1]]


def pack(objects: Mapping[str, Any], namespace: Mapping[str, Any], *, limit_bytes: int) -> dict[str, bytes]:
    """Return the payload's files for some objects.

    Raises
    ------
    TooLargeError
        If what remains in the pickle passes the limit.
    Exception
        Whatever an object that cannot be pickled raises.
    """
    files: dict[str, bytes] = {}
    sink = _Limited(limit_bytes)
    _Writer(sink, namespace, files).dump(dict(objects))
    files[OBJECTS] = b"".join(sink.parts)
    return files


def unpack(folder: Path, namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the objects again; functions of the notebook get `namespace` as their globals.

    Raises
    ------
    LeptonError
        If the payload was written by another version of Python.
    """
    index = read_index(folder)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if index.python and index.python != here:
        raise LeptonError(
            f"The cell's names come from Python {index.python}; this kernel runs {here}, which cannot read them.",
            "Choose a kernel of the same version, or import what the cell needs from a module.",
        )
    path = folder / OBJECTS
    if not path.exists():
        return {}
    with path.open("rb") as file:
        found = _Reader(file, folder, namespace).load()
    if not isinstance(found, dict):
        raise LeptonError(f"'{path}' is not a payload.", code="failed")
    return found


def read_index(folder: Path) -> Index:
    """Return ``index.json`` of a payload; an empty one where there is none."""
    try:
        return msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
    except FileNotFoundError:
        return Index()


def size_of(value: Any) -> int:
    """Return the bytes of an array or a table, without copying it; 0 for anything else."""
    room = _room(type(value))
    try:
        if room == "polars" and hasattr(value, "estimated_size"):
            return int(value.estimated_size())
        if room == "pandas" and hasattr(value, "memory_usage"):
            used = value.memory_usage(index=True)
            return int(used.sum() if hasattr(used, "sum") else used)
        if isinstance(value, bytes | bytearray | str):
            return len(value)
        return int(getattr(value, "nbytes", 0)) if room in ("numpy", "torch", "pyarrow", "scipy") else 0
    except (TypeError, ValueError, RuntimeError):
        return 0


def _named_module(module: ModuleType) -> tuple[str, ...] | None:
    """Return how to import a module of a class of its own, such as ``torch.ops``: cloudpickle knows plain ones only."""
    for name, loaded in list(sys.modules.items()):
        if loaded is module:
            return ("module", name)
    return None


def _room(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _module(name: str) -> ModuleType | None:
    return sys.modules.get(name)  # a value of such a type cannot be there without it


def _filed(value: Any) -> tuple[str, Callable[[], bytes]] | None:
    kind = type(value)
    room = _room(kind)
    if room not in ("numpy", "torch", "polars", "pandas") or size_of(value) < LARGE_BYTES:
        return None
    numpy, torch, polars, pandas = (_module(name) for name in ("numpy", "torch", "polars", "pandas"))
    if numpy is not None and kind is numpy.ndarray and not value.dtype.hasobject:
        return "npy", lambda: _through(lambda file: numpy.save(file, value, allow_pickle=False))
    if torch is not None and kind is torch.Tensor and not value.requires_grad and value.layout is torch.strided:
        return "safetensors", lambda: _tensor_bytes(value)
    if polars is not None and kind is polars.DataFrame and polars.Object not in value.dtypes:
        return "polars.parquet", lambda: _through(value.write_parquet)
    if pandas is not None and kind is pandas.DataFrame and _is_plain_frame(value, pandas):
        return "pandas.parquet", lambda: _through(value.to_parquet)
    return None


def _is_plain_frame(frame: Any, pandas: Any) -> bool:
    """Whether Parquet gives the very same frame back."""
    return (
        type(frame.index) is pandas.RangeIndex
        and not frame.attrs
        and frame.columns.is_unique
        and all(isinstance(name, str) for name in frame.columns)
        and all(getattr(dtype, "kind", "O") in "biufM" for dtype in frame.dtypes)
    )


def _through(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _tensor_bytes(value: Any) -> bytes:
    from safetensors.torch import save

    return bytes(save({"value": value.detach().cpu().contiguous()}))


def _unfiled(path: Path) -> Any:
    if path.suffix == ".npy":
        import numpy

        return numpy.load(path, allow_pickle=False)
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        return load(path.read_bytes())["value"]
    if path.name.endswith(".polars.parquet"):
        import polars

        return polars.read_parquet(path.read_bytes())
    import pandas

    return pandas.read_parquet(path)
