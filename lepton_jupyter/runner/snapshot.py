"""Modules of the user's own folder: which they are, and a copy of their sources that travels with a run."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

MAX_SOURCE_BYTES = 5 * 2**20  # of one file; larger ones are generated and stay where they are


@cache
def _installed_roots() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple({Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_ours(name: str | None) -> bool:
    """Whether a module is of this package: it is where the run is, too."""
    return bool(name) and str(name).partition(".")[0] == "lepton_jupyter"


def is_local_file(path: Path) -> bool:
    """Whether a source file is neither of the standard library nor installed."""
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return False
    return not any(root in path.parents for root in _installed_roots())


@cache
def _is_local_folder(folder: str) -> bool:
    return is_local_file(Path(folder).resolve() / "module.py")


def local_path(module: ModuleType) -> Path | None:
    """Return the file of a local module; None for one that is installed, built in or made up.

    Only an absolute, existing path counts: ``torch.ops`` has a relative ``__file__``.
    """
    if is_ours(getattr(module, "__name__", "")):
        return None
    named = getattr(module, "__file__", None)
    if not isinstance(named, str) or not named.endswith(".py"):
        return None
    folder = os.path.dirname(named)  # noqa: PTH120  a thousand modules are looked at in each capture
    if not folder.startswith(os.sep) or not _is_local_folder(folder):
        return None
    path = Path(named)
    if not path.is_file():
        return None
    return path if is_local_file(path.resolve()) else None


def is_local_module(name: str | None) -> bool:
    """Whether the module of this name is loaded and local. ``__main__`` is the notebook, and no module."""
    module = sys.modules.get(name or "")
    return module is not None and name != "__main__" and local_path(module) is not None


def snapshot(names: Iterable[str], search: Iterable[str]) -> dict[str, bytes]:
    """Return the sources of local modules and of the local modules that they import.

    Parameters
    ----------
    names : iterable of str
        Names of modules as they are imported; those that are not local are passed over.
    search : iterable of str
        The notebook's folder and ``sys.path``: where a module that is not loaded yet is looked for.

    Returns
    -------
    dict
        Content by path relative to one folder on ``sys.path``.
    """
    folders = [folder for folder in dict.fromkeys(search) if Path(folder).is_absolute() and Path(folder).is_dir()]
    queue, seen = list(names), set[str]()
    files: dict[str, bytes] = {}
    while queue:
        name = queue.pop()
        if name in seen or is_ours(name):
            continue
        seen.add(name)
        for relative, path in _sources(name, folders):
            if relative in files or path.stat().st_size > MAX_SOURCE_BYTES:
                continue
            files[relative] = path.read_bytes()
            queue += imported_names(files[relative], package=_package_of(relative))
    return files


def _sources(name: str, folders: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield ``(path below the folder, file)`` of the module and of the packages around it."""
    parts = name.split(".")
    search: list[str] | None = None
    for depth, part in enumerate(parts):
        dotted = ".".join(parts[: depth + 1])
        path, search = _locate(dotted, part, folders if depth == 0 else search)
        if path is None:
            return
        below = Path(*parts[: depth + 1])
        yield str(below / "__init__.py" if path.name == "__init__.py" else below.with_suffix(".py")), path


def _locate(dotted: str, part: str, search: list[str] | None) -> tuple[Path | None, list[str] | None]:
    loaded = sys.modules.get(dotted)
    if loaded is not None:
        return local_path(loaded), list(getattr(loaded, "__path__", []))
    if part in sys.stdlib_module_names:
        return None, None
    spec = importlib.machinery.PathFinder.find_spec(part, search)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None, None
    path = Path(spec.origin)
    return (path if is_local_file(path.resolve()) else None), list(spec.submodule_search_locations or [])


def imported_names(source: bytes | str, package: str = "") -> list[str]:
    """Return the names of the modules that a source imports, relative ones made absolute; none where it is broken."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*around, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in found if name]


def _package_of(relative: str) -> str:
    return ".".join(Path(relative).parent.parts)
