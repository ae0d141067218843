"""Take along what a class, a factory or a cell of the notebook needs, or say what cannot go and why.

Everything stays in memory: nothing is written here, so a capture that fails leaves nothing behind.
"""

from __future__ import annotations

import builtins
import importlib
import io
import socket
import sqlite3
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec

from lepton_jupyter.core.errors import LeptonError, did_you_mean
from lepton_jupyter.runner import payload, sources
from lepton_jupyter.runner.reach import Missing, Reached, is_by_value, walk
from lepton_jupyter.runner.snapshot import imported_names, is_local_module, local_path, snapshot

LIMIT_BYTES = 256 * 2**20
OF_THE_KERNEL = frozenset({"get_ipython", "display", "exit", "quit", "lepton", "__name__", "__builtins__"})
HISTORY = ("In", "Out", "_ih", "_oh", "_dh", "_", "__", "___")
_LOCKS = frozenset({"lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier", "Thread"})


@dataclass(frozen=True)
class Captured:
    """What goes into a run's ``payload/``.

    Attributes
    ----------
    files : dict of bytes
        Content by path below the folder.
    source : str
        The model's source as a person reads it, with that of what it uses.
    names : tuple of str
        Variables of the notebook that go along.
    size_bytes : int
    """

    files: dict[str, bytes]
    source: str
    names: tuple[str, ...]
    size_bytes: int


@dataclass
class _Found:
    names: dict[str, None] = field(default_factory=dict)
    things: list[Reached] = field(default_factory=list)
    modules: dict[str, None] = field(default_factory=dict)


def capture_names(
    names: Mapping[str, str],
    namespace: Mapping[str, Any],
    *,
    cells: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> Captured:
    """Capture some names of the notebook, and all that they need.

    Parameters
    ----------
    names : mapping
        A key by which the run asks (``model``, ``optimizer`` …) → the name in the notebook, or ``module:name``.
    namespace : mapping
        The notebook's namespace, the very dict that its functions have as globals.
    cells : mapping, optional
        Text of the cells by the file name in their code objects; what is left out is taken from ``linecache``.
    cwd : Path, optional
        The notebook's folder; None for the process's.
    limit_bytes : int
        How large one variable may be.

    Raises
    ------
    LeptonError
        For a name that is not defined, that cannot travel (named, with how it is reached) or that is too large.
    """
    folder = cwd or Path.cwd()
    objects = {key: _look_up(name, namespace, folder) for key, name in names.items()}
    found = _Found()
    for key, name in names.items():
        _inspect(name.rpartition(":")[2], objects[key], namespace, found=found, limit_bytes=limit_bytes)
        found.names.setdefault(name)
    source = sources.text_of([objects[key] for key in objects], found.things, cells or {}, namespace)
    return _packed(objects, namespace, found, cells=cells or {}, cwd=folder, source=source, limit_bytes=limit_bytes)


def capture_cell(
    source: str,
    namespace: Mapping[str, Any],
    *,
    cells: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> Captured:
    """Capture the notebook's names that a cell uses, and all that they need; see `capture_names`."""
    folder = cwd or Path.cwd()
    plain = sources.plain_python(source)
    used = sources.free_names(plain)
    found = _Found()
    objects: dict[str, Any] = {}
    for name in used.loads:
        if name in OF_THE_KERNEL and name != "__name__":
            continue
        if name in HISTORY and name in namespace:
            raise _history(name, "the cell")
        if name in namespace:
            objects[name] = namespace[name]
            _inspect(name, namespace[name], namespace, found=found, limit_bytes=limit_bytes)
            found.names.setdefault(name)
        elif name not in used.bound and not hasattr(builtins, name) and not used.is_careful and name != "__file__":
            raise _undefined(name, namespace, f"The cell uses '{name}', which is not defined")
    found.modules.update(dict.fromkeys(imported_names(plain)))
    return _packed(objects, namespace, found, cells=cells or {}, cwd=folder, source=source, limit_bytes=limit_bytes)


def _look_up(name: str, namespace: Mapping[str, Any], cwd: Path) -> Any:
    module, colon, attribute = name.rpartition(":")
    if not colon:
        if name in namespace:
            return namespace[name]
        raise _undefined(name, namespace, f"'{name}' is not defined in this notebook")
    if str(cwd) not in sys.path:
        sys.path.insert(0, str(cwd))
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise LeptonError(
            f"No module '{error.name}' for '{name}', looked for in '{cwd}' and sys.path.",
            "Write module:name as Python would import it.",
            code="not_found",
        ) from error
    if not hasattr(found, attribute):
        known = [word for word in vars(found) if not word.startswith("_")]
        raise LeptonError(
            f"The module '{module}' has no '{attribute}'.{did_you_mean(attribute, known)}", code="not_found"
        )
    return getattr(found, attribute)


def _undefined(name: str, namespace: Mapping[str, Any], message: str) -> LeptonError:
    known = [word for word in namespace if not word.startswith("_") and word not in (*OF_THE_KERNEL, *HISTORY)]
    return LeptonError(f"{message}.{did_you_mean(name, known)}", "Run the cell that defines it.", code="not_found")


def _history(name: str, user: str) -> LeptonError:
    return LeptonError(
        f"'{name}' cannot go to a run: it is the notebook's history, and {user} uses it.",
        "Assign what is needed to a name of its own.",
    )


def _inspect(name: str, value: Any, namespace: Mapping[str, Any], *, found: _Found, limit_bytes: int) -> None:
    """Refuse what is known not to travel, before anything is pickled."""
    history = {id(namespace[word]): word for word in reversed(HISTORY[:5]) if word in namespace}
    for reached in walk(name, value):
        if isinstance(reached, Missing):
            if reached.name not in OF_THE_KERNEL:
                raise _undefined(reached.name, namespace, f"{reached.user} uses '{reached.name}', which is not defined")
            continue
        if id(reached.value) in history and isinstance(reached.value, list | dict):
            raise _history(history[id(reached.value)], reached.how.partition(" uses ")[0] or "what was named")
        reason = _why_not(reached.value)
        if reason:
            raise _cannot(reached, reason)
        size = payload.size_of(reached.value)
        if size > limit_bytes:
            raise _too_large(reached, size, limit_bytes)
        found.things.append(reached)
        _note_module(reached, found)
        if reached.by and namespace.get(reached.name) is reached.value:
            found.names.setdefault(reached.name)


def _note_module(reached: Reached, found: _Found) -> None:
    value = reached.value
    if isinstance(value, types.ModuleType):
        found.modules.setdefault(value.__name__)
    elif isinstance(value, type | types.FunctionType):
        found.modules.setdefault(value.__module__ or "")
    if isinstance(value, types.FunctionType) and is_by_value(value):
        found.modules.update(dict.fromkeys(sources.lazy_imports(value.__code__)))


def _why_not(value: Any) -> str:
    """Return what the value is where it is known not to travel, else an empty string."""
    kind = type(value)
    if isinstance(value, types.GeneratorType | types.CoroutineType | types.AsyncGeneratorType):
        return f"a running {kind.__name__}"
    if kind.__module__ in ("_thread", "threading") and kind.__name__ in _LOCKS:
        return "a thread" if kind.__name__ == "Thread" else "a lock"
    if isinstance(value, socket.socket):
        return "a socket"
    if isinstance(value, sqlite3.Connection | sqlite3.Cursor):
        return "a database connection"
    if isinstance(value, io.IOBase) and value not in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return "memory that is open as a file" if isinstance(value, io.BytesIO | io.StringIO) else "an open file"
    owner = getattr(value, "__self__", value) if isinstance(value, types.MethodType) else value
    if any(base.__module__ == "IPython.core.interactiveshell" for base in type(owner).__mro__):
        return "the notebook's shell"
    return ""


def _cannot(reached: Reached, reason: str) -> LeptonError:
    how = f": {reached.how}" if reached.how else ""
    return LeptonError(
        f"'{reached.name}' is {reason} and cannot go to a run{how}.",
        "Make it inside the function or the cell that uses it.",
    )


def _too_large(reached: Reached, size: int, limit_bytes: int) -> LeptonError:
    how = f": {reached.how}" if reached.how else ""
    shape = getattr(reached.value, "shape", None)
    what = f"{type(reached.value).__name__}{f' of shape {tuple(shape)}' if shape is not None else ''}"
    return LeptonError(
        f"'{reached.name}' ({what}, {_megabytes(size)}) is too large to go to a run, "
        f"at most {_megabytes(limit_bytes)} a variable{how}.",
        "Read it from a file where it is used, or make a dataset of it: %lepton data NAME VARIABLE.",
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"


def _packed(
    objects: Mapping[str, Any],
    namespace: Mapping[str, Any],
    found: _Found,
    *,
    cells: Mapping[str, str],
    cwd: Path,
    source: str,
    limit_bytes: int,
) -> Captured:
    files = _pack(objects, namespace, found, limit_bytes=limit_bytes)
    search = [str(cwd), *sys.path]
    for relative, content in snapshot(found.modules, search).items():
        files[f"{payload.MODULES}/{relative}"] = content
    texts, labels = sources.cells_of(found.things, cells, namespace)
    index = payload.Index(
        names=tuple(found.names),
        cells=texts,
        labels=labels,
        sys_path=tuple(path for path in sys.path if path and Path(path).is_absolute()),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        source=source,
    )
    files[payload.INDEX] = msgspec.json.encode(index)
    return Captured(files, source, tuple(found.names), sum(len(content) for content in files.values()))


def _pack(
    objects: Mapping[str, Any], namespace: Mapping[str, Any], found: _Found, *, limit_bytes: int
) -> dict[str, bytes]:
    """Pickle local modules by value; where one of their globals will not go, by reference to the snapshot."""
    local = [sys.modules[name] for name in _with_parents(found.modules) if is_local_module(name)]
    failure: Exception | None = None
    for is_by_module_value in (True, False) if local else (True,):
        registered = [module for module in local if is_by_module_value]
        for module in registered:
            cloudpickle.register_pickle_by_value(module)
        try:
            return payload.pack(objects, namespace, limit_bytes=limit_bytes)
        except Exception as error:
            failure = error
            if isinstance(error, payload.TooLargeError):
                break
        finally:
            for module in registered:
                cloudpickle.unregister_pickle_by_value(module)
    assert failure is not None
    raise _culprit(objects, namespace, failure, limit_bytes=limit_bytes) from failure


def _with_parents(modules: Iterable[str]) -> Iterable[str]:
    """Return the modules and every loaded local module of the same package."""
    roots = {name.partition(".")[0] for name in modules if name}
    return [
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in roots and isinstance(module, types.ModuleType) and local_path(module) is not None
    ]


def _culprit(
    objects: Mapping[str, Any], namespace: Mapping[str, Any], failure: Exception, *, limit_bytes: int
) -> LeptonError:
    """Find the innermost thing that will not go, by trying each of them alone."""
    is_size = isinstance(failure, payload.TooLargeError)
    worst: Reached | None = None
    for key, value in objects.items():
        for reached in walk(getattr(value, "__name__", key), value, is_deep=True):
            if isinstance(reached, Missing) or (worst is not None and len(reached.by) < len(worst.by)):
                continue
            try:
                payload.pack({"value": reached.value}, namespace, limit_bytes=limit_bytes)
            except payload.TooLargeError:
                worst = reached if is_size else worst
            except Exception:
                worst = worst if is_size else reached
    if worst is None:
        worst = Reached(objects, ", ".join(objects))
    if is_size:
        return _too_large(worst, max(limit_bytes + 1, payload.size_of(worst.value)), limit_bytes)
    return _cannot(worst, f"of type {type(worst.value).__name__} ({failure})")
