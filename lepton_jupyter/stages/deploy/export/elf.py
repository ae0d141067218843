"""Which shared libraries programs and extension modules need: what the loader would find, read from the files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from lepton_jupyter.core.errors import LeptonError

LIBC = "libc.so.6"
CONFIGURATION = Path("/etc/ld.so.conf")
DEFAULTS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")


class Needs(NamedTuple):
    """What one file asks the loader for.

    Attributes
    ----------
    machine : str
        ELF's name of the processor, such as ``EM_X86_64``.
    loader : str
        Absolute path of the loader that a program names; empty for a library.
    libraries : tuple of str
        Names such as ``libm.so.6``.
    folders : tuple of Path
        Where the file itself says that they lie.
    """

    machine: str
    loader: str
    libraries: tuple[str, ...]
    folders: tuple[Path, ...]


class Closure(NamedTuple):
    """The libraries outside that files need, and that those need in turn.

    Attributes
    ----------
    libraries : dict of str to Path
        By the name under which they are asked for: the file here.
    missing : dict of str to Path
        Not found here, with one file that needs it.
    """

    libraries: dict[str, Path]
    missing: dict[str, Path]


def needs_of(path: Path) -> Needs | None:
    """Return what a file asks the loader for; None where it is no ELF file of 64 bits.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        try:
            return _read(ELFFile(file), path)
        except ELFError:  # the file is none, or is damaged
            return None


def _read(found: ELFFile, path: Path) -> Needs | None:
    if found.elfclass != 64:
        return None
    segments = list(found.iter_segments())
    loader = next((each.get_interp_name() for each in segments if isinstance(each, InterpSegment)), "")
    dynamic = (each for each in segments if isinstance(each, DynamicSegment))
    tags: list[Any] = [tag for each in dynamic for tag in each.iter_tags()]
    named = [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
    paths = [tag.rpath for tag in tags if tag.entry.d_tag == "DT_RPATH"]
    paths += [tag.runpath for tag in tags if tag.entry.d_tag == "DT_RUNPATH"]
    return Needs(str(found.header.e_machine), loader, tuple(named), tuple(_folders(paths, path)))


def _folders(paths: Iterable[str], file: Path) -> Iterator[Path]:
    origin = str(file.parent)
    for path in ":".join(paths).split(":"):
        if path:
            yield Path(os.path.normpath(path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)))


@cache
def system_folders() -> tuple[Path, ...]:
    """Return the folders in which the loader of this machine looks, as ``/etc/ld.so.conf`` has them."""
    found = [Path(part) for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part]
    found += [*_configured(CONFIGURATION), *map(Path, DEFAULTS)]
    return tuple(dict.fromkeys(folder for folder in found if folder.is_dir()))


def _configured(path: Path) -> Iterator[Path]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        word, _, rest = line.partition("#")[0].strip().partition(" ")
        if word == "include":
            pattern = Path(rest.strip())
            for included in sorted(pattern.parent.glob(pattern.name)):
                yield from _configured(included)
        elif word:
            yield Path(word)


def closure(files: Iterable[Path], *, own: Collection[Path]) -> Closure:
    """Return the libraries outside of `own` that files need, over any number of steps.

    Parameters
    ----------
    files : iterable of Path
        Programs and libraries; what is neither is passed over.
    own : collection of Path
        Resolved paths of what is taken along anyway: found there, a library is not listed.
    """
    libraries: dict[str, Path] = {}
    missing: dict[str, Path] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        needs = needs_of(path)
        if needs is None:
            continue
        for name in needs.libraries:
            if name in libraries:
                continue
            place = _find(name, needs)
            if place is None:
                missing.setdefault(name, path)
            elif place.resolve() not in own:
                libraries[name] = place
                waiting.append(place)
    return Closure(libraries, {name: path for name, path in missing.items() if name not in libraries})


def _find(name: str, needs: Needs) -> Path | None:
    for folder in (*needs.folders, *system_folders()):
        place = folder / name
        try:
            there = needs_of(place)
        except OSError:
            continue
        if there is not None and there.machine == needs.machine:
            return place
    return None


def loader_of(program: Path) -> str:
    """Return the absolute path of the loader that a program names.

    Raises
    ------
    LeptonError
        If it names none, as a program without shared libraries does.
    """
    needs = needs_of(program)
    if needs is None or not needs.loader:
        raise LeptonError(
            f"'{program}' is no program that names its loader: its libraries are not known.",
            "Give a base that has Python: --base PATH",
            code="refused",
        )
    return needs.loader
