"""Which shared libraries programs and extension modules need: what the loader would find, read from the files."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lepton_jupyter.core.errors import LeptonError

LIBC = "libc.so.6"
CONFIGURATION = Path("/etc/ld.so.conf")
DEFAULTS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")

_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3  # kinds of segments
_NEEDED, _STRINGS, _STRINGS_SIZE, _RPATH, _RUNPATH = 1, 5, 10, 15, 29  # tags of the dynamic section


class Needs(NamedTuple):
    """What one file asks the loader for.

    Attributes
    ----------
    machine : int
        ELF's number of the processor.
    loader : str
        Absolute path of the loader that a program names; empty for a library.
    libraries : tuple of str
        Names such as ``libm.so.6``.
    folders : tuple of Path
        Where the file itself says that they lie.
    """

    machine: int
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


class _Segment(NamedTuple):
    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    size: int
    memory: int
    align: int


def needs_of(path: Path) -> Needs | None:
    """Return what a file asks the loader for; None where it is no ELF file of 64 bits.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:4] != b"\x7fELF" or head[4] != 2:
            return None
        order = "<" if head[5] == 1 else ">"
        (machine,) = struct.unpack_from(f"{order}H", head, 18)
        segments = _segments(file, head, order)
        loader = next((s for s in segments if s.kind == _INTERPRETER), None)
        said = _part(file, loader).rstrip(b"\0").decode() if loader else ""
        dynamic = next((s for s in segments if s.kind == _DYNAMIC), None)
        if dynamic is None:
            return Needs(machine, said, (), ())
        content = _part(file, dynamic)
        tags = list(struct.iter_unpack(f"{order}qQ", content[: len(content) // 16 * 16]))
        strings = _strings(file, segments, dict(tags))
    named = [_string(strings, value) for tag, value in tags if tag == _NEEDED]
    paths = [_string(strings, value) for tag, value in tags if tag in (_RPATH, _RUNPATH)]
    return Needs(machine, said, tuple(named), tuple(_folders(paths, path)))


def _segments(file: BinaryIO, head: bytes, order: str) -> list[_Segment]:
    (offset,) = struct.unpack_from(f"{order}Q", head, 32)
    size, count = struct.unpack_from(f"{order}HH", head, 54)
    file.seek(offset)
    table = file.read(size * count)
    return [_Segment(*struct.unpack_from(f"{order}IIQQQQQQ", table, size * place)) for place in range(count)]


def _part(file: BinaryIO, segment: _Segment) -> bytes:
    file.seek(segment.offset)
    return file.read(segment.size)


def _strings(file: BinaryIO, segments: Iterable[_Segment], tags: dict[int, int]) -> bytes:
    address = tags.get(_STRINGS, 0)
    for segment in segments:
        if segment.kind == _LOAD and segment.address <= address < segment.address + segment.size:
            file.seek(address - segment.address + segment.offset)
            return file.read(tags.get(_STRINGS_SIZE, 0))
    return b""


def _string(strings: bytes, start: int) -> str:
    return os.fsdecode(strings[start : strings.find(b"\0", start)])


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
