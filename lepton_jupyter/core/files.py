"""Records that are whole or not there: temporary name, fsync, rename."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600, is_durable: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it.

    Parameters
    ----------
    path : Path
        Its folder exists.
    content : bytes
        All of it.
    mode : int
        Permissions of the new file.
    is_durable : bool
        Whether to fsync before the rename; False for what may be lost with the machine.

    Raises
    ------
    OSError
        As the file system says; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def signature(path: Path) -> tuple[int, int, int]:
    """Return what tells one content of a file from the next: when it was written, its inode and its size.

    Raises
    ------
    OSError
        If it is not there.
    """
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def tail(path: Path, n_lines: int = 20, max_bytes: int = 16_384) -> str:
    """Return the last lines of a text file, or an empty string where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-n_lines:])
