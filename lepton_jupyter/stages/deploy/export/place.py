"""Where an export goes: a folder that appears whole, and takes the place of nothing but a former export."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import encode

RECORD = "lepton-export.json"


class Exported(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``lepton-export.json``: what an export holds. It marks the folder as ours.

    Attributes
    ----------
    format : str
        ``oci``, ``docker``, ``kserve`` or ``onnx``.
    version : str
        ``NAME@3``.
    names : tuple of str
        What lies in the folder, beside this record.
    parts : dict of str to int
        Bytes of each layer above the base, unpacked; of a graph, of each file.
    digest : str
        Of an OCI image's manifest.
    base : str
        Name of the base; ``none`` where the interpreter was taken along.
    packages : dict of str to str
        Versions of Python and of what was taken along.
    """

    format: str
    version: str
    model: str
    manifest_hash: str
    names: tuple[str, ...] = ()
    parts: dict[str, int] = msgspec.field(default_factory=dict)
    digest: str = ""
    base: str = ""
    packages: dict[str, str] = msgspec.field(default_factory=dict)


def check_place(to: Path) -> None:
    """Refuse a place that holds something else, before any work is done.

    Raises
    ------
    LeptonError
        If it is no folder, or holds what no export wrote.
    """
    if not to.parent.is_dir():
        raise LeptonError(f"There is no folder '{to.parent}' to write '{to.name}' to.", "Make it first.")
    if not to.exists():
        return
    if not to.is_dir():
        raise LeptonError(f"'{to}' is a file; --to takes a folder.", "Name one that is not there yet.")
    foreign = sorted({path.name for path in to.iterdir()} - _own_names(to))
    if foreign:
        raise LeptonError(
            f"'{to}' is not empty and holds what no export wrote: {', '.join(foreign[:4])}.",
            "Name a folder that is not there yet, or remove it.",
            code="conflict",
        )


def _own_names(to: Path) -> set[str]:
    try:
        record = msgspec.json.decode((to / RECORD).read_bytes(), type=Exported)
    except (OSError, msgspec.DecodeError):
        return set()
    return {*record.names, RECORD}


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """Give a folder to write in, which then takes the place of `to`; on an error `to` is as it was.

    Raises
    ------
    LeptonError
        As `check_place`, and where the file system refuses.
    """
    check_place(to)
    temporary = to.with_name(f".{to.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        check_place(to)  # a former export may have been worked in meanwhile
        _take_place(temporary, to)
    except OSError as error:
        raise LeptonError(
            f"'{to}' cannot be written: {error.strerror or error}.", "Name another folder.", code="failed"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(new: Path, to: Path) -> None:
    if not to.exists():
        new.rename(to)
        return
    old = to.with_name(f".{to.name}.{secrets.token_hex(4)}.old")
    to.rename(old)
    try:
        new.rename(to)
    except OSError:
        old.rename(to)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_record(folder: Path, record: Exported) -> Exported:
    """Mark a folder that is complete as an export, and return its record."""
    names = tuple(sorted(path.name for path in folder.iterdir()))
    whole = msgspec.structs.replace(record, names=names)
    (folder / RECORD).write_bytes(encode(whole))
    return whole
