"""What lies where in an image: files, folders and links, written as a layer or as folders, the same bytes each time."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

FOLDER_MODE = 0o755


class Entry(NamedTuple):
    """One thing in a tree.

    Attributes
    ----------
    mode : int
        Permission bits.
    content : bytes, Path or None
        Of a file: what it holds, or the file here that holds it. None: a folder or a link.
    link : str
        Where a link leads; empty where it is none.
    owner : int
        User and group.
    """

    mode: int
    content: bytes | Path | None = None
    link: str = ""
    owner: int = 0

    def read(self) -> bytes:
        """Return a file's bytes."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content or b""

    @property
    def is_written_to(self) -> bool:
        """Whether it is a folder for others than root."""
        return self.content is None and not self.link and bool(self.owner or self.mode & 0o002)

    @property
    def size_bytes(self) -> int:
        """Of a file."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content or b"")


class Tree:
    """Entries by their path: no slash in front, ``/`` between. Folders above an entry are made with it."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def __getitem__(self, path: str) -> Entry:
        return self._entries[path]

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield paths and entries, sorted: a folder comes before what is in it."""
        yield from sorted(self._entries.items())

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(entry.size_bytes for entry in self._entries.values())

    def add(self, path: str, content: bytes | Path, *, is_executable: bool = False) -> None:
        """Add a file. Its permissions are 0755 or 0644, whatever they are here."""
        self._put(path, Entry(0o755 if is_executable else 0o644, content))

    def add_folder(self, path: str, *, mode: int = FOLDER_MODE, owner: int = 0) -> None:
        """Add a folder."""
        self._put(path, Entry(mode, owner=owner))

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._put(path, Entry(0o777, link=target))

    def _put(self, path: str, entry: Entry) -> None:
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                self._entries.setdefault(str(parent), Entry(FOLDER_MODE))
        self._entries[path] = entry


def write_tar(tree: Tree, out: IO[bytes], *, mtime: int = 0) -> None:
    """Write a tree as a tar: sorted, one time for all, no names of users.

    Raises
    ------
    OSError
        If a file cannot be read, or `out` not be written.
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in tree.entries():
            info = tarfile.TarInfo(path)
            info.mode, info.mtime, info.uid, info.gid = entry.mode, mtime, entry.owner, entry.owner
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
                archive.addfile(info)
            elif entry.content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                _add_file(archive, info, entry.content)


def _add_file(archive: tarfile.TarFile, info: tarfile.TarInfo, content: bytes | Path) -> None:
    file: Any = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
    with file:
        info.size = os.fstat(file.fileno()).st_size if isinstance(content, Path) else len(content)
        archive.addfile(info, file)


def write_folder(tree: Tree, root: Path, *, without: Container[str] = (), mtime: int = 0) -> None:
    """Write a tree below a folder that is there, without some paths. Owners are left to whoever copies it.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    """
    folders = []
    for path, entry in tree.entries():
        place = root / path
        if path in without:
            continue
        if entry.link:
            place.symlink_to(entry.link)
        elif entry.content is None:
            place.mkdir(exist_ok=True)
            folders.append((place, entry.mode))
        else:
            place.write_bytes(entry.read())
            place.chmod(entry.mode)
            os.utime(place, (mtime, mtime))
    for place, mode in reversed(folders):  # last: writing into a folder changes its time
        place.chmod(mode)
        os.utime(place, (mtime, mtime))
