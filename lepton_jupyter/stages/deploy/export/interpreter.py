"""The interpreter of this process for an image: program, standard library, shared libraries, down to the loader."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.deploy.export.bytecode import add_bytecode
from lepton_jupyter.stages.deploy.export.elf import LIBC, closure, loader_of, needs_of
from lepton_jupyter.stages.deploy.export.packages import USER_ID
from lepton_jupyter.stages.deploy.export.tree import Tree

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PREFIX = "usr/local"

# What no server needs: tests, windows, installers, terminals, other people's packages.
FOLDERS_LEFT_OUT = frozenset({
    "__pycache__", "curses", "dbm", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "sqlite3", "test", "tests", "tkinter", "turtledemo", "venv",
})  # fmt: skip
FILES_LEFT_OUT = frozenset({"EXTERNALLY-MANAGED", "sitecustomize.py", "turtle.py", "usercustomize.py"})
EXTENSIONS_LEFT_OUT = ("_crypt", "_ctypes_test", "_curses", "_dbm", "_gdbm", "_sqlite3", "_test", "_tkinter", "_xx",
                       "nis", "ossaudiodev", "readline", "xx")  # fmt: skip

PASSWD = f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER_ID}:{USER_ID}:nonroot:/tmp:/sbin/nologin\n"
GROUP = f"root:x:0:\nnonroot:x:{USER_ID}:\n"


def interpreter_tree(others: Tree) -> tuple[Tree, str]:
    """Return the interpreter for an image, and the absolute path of its program there.

    Parameters
    ----------
    others : Tree
        What is served by it: its extension modules' libraries are taken along.

    Raises
    ------
    LeptonError
        If this interpreter cannot be taken along: it is not for Linux with glibc, or a library is not found.
    """
    program = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    loader = loader_of(program)
    tree = Tree()
    tree.add(f"{PREFIX}/bin/{PYTHON}", program, is_executable=True)
    for name in ("python3", "python"):
        tree.add_link(f"{PREFIX}/bin/{name}", PYTHON)
    _add_standard_library(tree)
    add_bytecode(tree)
    _add_libraries(tree, [*_binaries(tree), *_binaries(others)], loader)
    tree.add_folder("tmp", mode=0o1777)
    tree.add("etc/passwd", PASSWD.encode())
    tree.add("etc/group", GROUP.encode())
    return tree, f"/{PREFIX}/bin/{PYTHON}"


def _add_standard_library(tree: Tree) -> None:
    root = Path(os.__file__).parent
    place = f"{PREFIX}/{sys.platlibdir}/{PYTHON}"
    for path in _standard_files(root):
        name = path.relative_to(root).as_posix()
        if path.name.startswith("_sysconfigdata"):
            tree.add(f"{place}/{name}", _build_variables())
        else:
            tree.add(f"{place}/{name}", path.resolve(), is_executable=path.suffix == ".so")


def _standard_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in FOLDERS_LEFT_OUT and not name.startswith("config-"))
        for name in sorted(names):
            path = Path(folder) / name
            if name in FILES_LEFT_OUT or path.suffix in (".pyc", ".a") or not path.is_file():
                continue
            if path.suffix == ".so" and (name.startswith(EXTENSIONS_LEFT_OUT) or not _can_be_loaded(path)):
                continue
            yield path


def _can_be_loaded(extension: Path) -> bool:
    """Whether its libraries are here: one that does not load here is missed by nobody there."""
    return not closure([extension], own=()).missing


def _build_variables() -> bytes:
    """Return the module that `sysconfig` reads, without a path of the machine that built the interpreter."""
    kept = {
        name: value
        for name, value in sorted(sysconfig.get_config_vars().items())
        if isinstance(value, int) or (isinstance(value, str) and "/" not in value)
    }
    lines = [f"    {name!r}: {value!r},\n" for name, value in kept.items()]
    return f"build_time_vars = {{\n{''.join(lines)}}}\n".encode()


def _binaries(tree: Tree) -> list[Path]:
    return [
        entry.content for path, entry in tree.entries()
        if isinstance(entry.content, Path) and (entry.mode & 0o100 or ".so" in path) and needs_of(entry.content)
    ]  # fmt: skip


def _add_libraries(tree: Tree, binaries: Iterable[Path], loader: str) -> None:
    """Add what the binaries need beside the C library, where the loader looks without being told."""
    binaries = list(binaries)
    found = closure(binaries, own=frozenset(path.resolve() for path in binaries))
    if found.missing:
        name, needed_by = next(iter(sorted(found.missing.items())))
        raise LeptonError(
            f"The library {name} is not on this machine, and {needed_by.name} needs it.",
            "Install it, or give a base that has Python and it: --base PATH",
            code="refused",
        )
    if LIBC not in found.libraries:
        raise LeptonError(
            f"This Python does not use glibc ({LIBC}): it cannot be taken along.",
            "Give a base that has Python: --base PATH",
            code="refused",
        )
    place = str(found.libraries[LIBC].parent).lstrip("/")
    for name, path in sorted(found.libraries.items()):
        if name != Path(loader).name:
            tree.add(f"{place}/{name}", path.resolve(), is_executable=True)
    tree.add(loader.lstrip("/"), Path(loader).resolve(), is_executable=True)
