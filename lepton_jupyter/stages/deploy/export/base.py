"""A local base image: an OCI layout, or a root file system as a folder or a tar. Nothing is fetched or unpacked."""

from __future__ import annotations

import os
import platform
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import msgspec

from lepton_jupyter.core.errors import LeptonError

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
KINDS = "an OCI layout (a folder with 'oci-layout' in it), a root file system (a folder), or a tar of one"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FOLDERS_LEFT_EMPTY = frozenset({"dev", "proc", "run", "sys", "tmp"})
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
MAX_LINKS = 40


def architecture() -> str:
    """Return this machine's processor by its name in images: ``amd64``, ``arm64`` …"""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


class Source(NamedTuple):
    """Where one layer of a base comes from.

    Attributes
    ----------
    path : Path
        A folder, a tar, or a blob of an OCI layout.
    media_type : str
        Of a blob; empty: the layer is to be made.
    digest, diff_id : str
        Of a blob.
    """

    path: Path
    media_type: str = ""
    digest: str = ""
    diff_id: str = ""


class Contents:
    """The paths in a base, layer over layer, with its symbolic links."""

    def __init__(self) -> None:
        self._links: dict[str, str] = {}
        self._paths: set[str] = set()
        self.has_whiteouts = False

    def add_tar(self, path: Path) -> None:
        """Lay a tar over what is there.

        Raises
        ------
        tarfile.TarError, OSError
            If it cannot be read.
        """
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                self._add(os.path.normpath(member.name).lstrip("/"), member.linkname if member.issym() else "")

    def add_folder(self, root: Path) -> None:
        """Lay a folder over what is there."""
        for path in paths_below(root):
            self._add(path.relative_to(root).as_posix(), str(path.readlink()) if path.is_symlink() else "")

    def _add(self, name: str, link: str) -> None:
        folder, _, last = name.rpartition("/")
        if last.startswith(WHITEOUT):
            self.has_whiteouts = True
            self._remove(f"{folder}/" if last == OPAQUE else f"{folder}/{last.removeprefix(WHITEOUT)}".lstrip("/"))
            return
        self._paths.add(name)
        self._links.pop(name, None)
        if link:
            self._links[name] = link

    def _remove(self, path: str) -> None:
        below = path if path.endswith("/") else f"{path}/"
        self._paths = {name for name in self._paths if name != path and not name.startswith(below)}

    @property
    def names(self) -> frozenset[str]:
        """The last parts of all paths."""
        return frozenset(path.rpartition("/")[2] for path in self._paths)

    def find(self, path: str) -> str | None:
        """Return where a path leads over all links; None where there is nothing."""
        waiting = [part for part in path.split("/") if part]
        done: list[str] = []
        n_links = 0
        while waiting:
            part = waiting.pop(0)
            if part in (".", ".."):
                done = done[:-1] if part == ".." else done
                continue
            link = self._links.get("/".join([*done, part]))
            if link is None:
                done.append(part)
                continue
            n_links += 1
            if n_links > MAX_LINKS:
                return None
            done = [] if link.startswith("/") else done
            waiting = [piece for piece in link.split("/") if piece] + waiting
        found = "/".join(done)
        return found if found in self._paths else None


@dataclass(frozen=True)
class Base:
    """A base image.

    Attributes
    ----------
    name : str
        As it was typed.
    sources : tuple of Source
        Its layers, the lowest first.
    contents : Contents
    config : dict
        ``config`` of an OCI image: ``Env``, ``Labels`` …
    history : list
        Of an OCI image.
    digest : str
        Of an OCI image's manifest.
    """

    name: str
    sources: tuple[Source, ...]
    contents: Contents
    config: dict[str, Any]
    history: list[dict[str, Any]]
    digest: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What the base sets."""
        return dict(line.split("=", 1) for line in self.config.get("Env") or () if "=" in line)

    def python(self, name: str) -> str:
        """Return the absolute path of the interpreter of this name, such as ``python3.11``.

        Raises
        ------
        LeptonError
            If there is none, or it lacks a part of its standard library.
        """
        folders = self.environment.get("PATH", DEFAULT_PATH).split(":")
        for folder in folders:
            if self.contents.find(f"{folder}/{name}"):
                self._check_standard_library(f"{PurePosixPath(folder).parent}", name)
                return f"{folder}/{name}"
        others = sorted(found for found in self.contents.names if found.startswith("python3") and "-" not in found)
        raise LeptonError(
            f"The base '{self.name}' has no {name}, which the packages here are built for. "
            f"Known there: {', '.join(others) or 'none'}.",
            f"Install {name} in the base, or take this interpreter along: --base none",
            code="refused",
        )

    def _check_standard_library(self, prefix: str, name: str) -> None:
        if not any(self.contents.find(f"{prefix}/{lib}/{name}/asyncio/events.py") for lib in ("lib", "lib64")):
            raise LeptonError(
                f"{name} in the base '{self.name}' lacks a part of its standard library (asyncio).",
                "Install all of it (Debian: python3, not python3-minimal), or --base none",
                code="refused",
            )

    def check_libraries(self, wanted: Iterable[str]) -> None:
        """Refuse a base that lacks shared libraries.

        Raises
        ------
        LeptonError
            Naming them.
        """
        missing = sorted(set(wanted) - self.contents.names)
        if missing:
            raise LeptonError(
                f"The base '{self.name}' lacks {', '.join(missing)}, which numpy or onnxruntime needs.",
                "Install it there (Debian: libstdc++6), or take this machine's along: --base none",
                code="refused",
            )


def check_there(path: Path) -> None:
    """Refuse a path where nothing is.

    Raises
    ------
    LeptonError
        Saying what is taken.
    """
    if not path.exists():
        raise LeptonError(f"There is no base image at '{path}'.", f"--base takes {KINDS}; or none.", code="not_found")


def open_base(path: Path) -> Base:
    """Read what a base holds.

    Raises
    ------
    LeptonError
        If there is none, or it cannot be read, or it is for another processor.
    """
    check_there(path)
    try:
        if (path / "oci-layout").is_file():
            return _open_layout(path)
        contents = Contents()
        if path.is_dir():
            contents.add_folder(path)
        else:
            contents.add_tar(path)
    except (OSError, tarfile.TarError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise LeptonError(
            f"The base '{path}' cannot be read: {error}", f"--base takes {KINDS}; or none.", code="failed"
        ) from error
    return Base(path.name, (Source(path),), contents, {}, [])


def _open_layout(root: Path) -> Base:
    """Return the one image of an OCI layout that is for this machine."""

    def read(digest: str) -> Any:
        return msgspec.json.decode(_blob(root, digest).read_bytes())

    found = msgspec.json.decode((root / "index.json").read_bytes())["manifests"]
    while True:
        kinds = [(one.get("platform") or {}).get("architecture", "") for one in found]
        fitting = [one for one, kind in zip(found, kinds, strict=True) if kind in ("", architecture())]
        if len(fitting) != 1:
            known = ", ".join(kind or "?" for kind in kinds) or "none"
            raise LeptonError(
                f"The base '{root}' holds {len(fitting)} images for {architecture()}; one is wanted. Known: {known}.",
                "Copy the one that is meant to a layout of its own (skopeo copy).",
            )
        digest = fitting[0]["digest"]
        manifest = read(digest)
        if "layers" in manifest:
            break
        found = manifest["manifests"]
    about = read(manifest["config"]["digest"])
    _check_architecture(root, about.get("architecture", ""))
    contents, sources = Contents(), []
    for layer, diff_id in zip(manifest["layers"], about["rootfs"]["diff_ids"], strict=True):
        blob = _blob(root, layer["digest"])
        sources.append(Source(blob, _media_type(root, layer["mediaType"]), layer["digest"], diff_id))
        contents.add_tar(blob)
    return Base(root.name, tuple(sources), contents, about.get("config") or {}, about.get("history") or [], digest)


def _blob(root: Path, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    if not (algorithm.isalnum() and value.isalnum()):
        raise TypeError(f"'{digest}' is no digest")
    return root / "blobs" / algorithm / value


def _media_type(root: Path, media_type: str) -> str:
    if media_type == DOCKER_GZIP:
        return LAYER_GZIP
    if media_type.endswith((".tar+gzip", ".tar")):
        return media_type
    raise LeptonError(
        f"A layer of the base '{root}' is {media_type}; known are gzip and plain tar.",
        "Make it one: skopeo copy --dest-compress-format gzip oci:BASE oci:OTHER",
    )


def _check_architecture(root: Path, found: str) -> None:
    if found and found != architecture():
        raise LeptonError(
            f"The base '{root}' is for {found}; the packages here are for {architecture()}.",
            "Name a base for this processor, or export on a machine of the other kind.",
            code="refused",
        )


def paths_below(root: Path) -> Iterable[Path]:
    """Yield what is in a root file system, sorted, without devices, sockets, and what is in ``/proc`` and its like."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=fail):
        place = Path(folder)
        if place.parent == root and place.name in FOLDERS_LEFT_EMPTY:
            folders.clear()
            continue
        folders.sort()
        for name in sorted([*folders, *names]):
            path = place / name
            if path.is_symlink() or path.is_dir() or path.is_file():
                yield path


def pack_folder(root: Path, out: IO[bytes]) -> None:
    """Write a root file system as a tar: the same bytes as long as it is the same.

    Files keep their times, which compiled modules are compared with, and their owners, except that what belongs to
    whoever packs it belongs to root there.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    seen: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in paths_below(root):
            name, status = path.relative_to(root).as_posix(), path.lstat()
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = status.st_mode & 0o7777, int(status.st_mtime)
            info.uid = 0 if status.st_uid == os.getuid() else status.st_uid
            info.gid = 0 if status.st_gid == os.getgid() else status.st_gid
            if path.is_symlink():
                info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
                archive.addfile(info)
            elif path.is_dir():
                info.type, info.mtime = tarfile.DIRTYPE, 0
                archive.addfile(info)
            elif (first := seen.setdefault((status.st_dev, status.st_ino), name)) != name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                archive.addfile(info)
            else:
                info.size = status.st_size
                with path.open("rb") as file:
                    archive.addfile(info, file)
