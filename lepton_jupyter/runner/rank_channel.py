"""The line between a run's kernel and its ranks: one Unix socket, JSON lines, no pickle.

A rank writes no file of the run but checkpoints and the bundle: its events go to the kernel, which has the pen.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
CHUNK_BYTES = 2**16

here: Channel | None = None  # of this process, where it is a rank


class Channel:
    """One end of the line. What cannot be sent any more is dropped: the other side is gone, and we go soon."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""
        self._lock = threading.Lock()  # a user's threads print, too

    @classmethod
    def connect(cls, path: str) -> Channel:
        """Connect to the kernel."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        return cls(connection)

    def send(self, **message: Any) -> None:
        """Send one message."""
        line = _encode(message) + b"\n"
        with self._lock:
            try:
                self.connection.sendall(line)
            except OSError:
                return

    def receive(self) -> dict[str, Any] | None:
        """Wait for one message; None where the other side is gone."""
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                message: dict[str, Any] = _decode(line)
                return message
            if not self._more():
                return None

    def arrived(self) -> Iterator[dict[str, Any]]:
        """Read once, then yield what has come whole.

        Raises
        ------
        EOFError
            After the last message, where the other side is gone.
        """
        is_open = self._more()
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            yield _decode(line)
        if not is_open:
            raise EOFError

    def _more(self) -> bool:
        try:
            content = self.connection.recv(CHUNK_BYTES)
        except OSError:
            content = b""
        self._rest += content
        return bool(content)

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


class RankEvents:
    """What a rank has in place of an `EventWriter`: rank 0's events go to the kernel, of others only their errors."""

    last_error = ""

    def __init__(self, channel: Channel, rank: int, path: Path) -> None:
        self.path = path
        self._channel = channel
        self._rank = rank

    def write(self, kind: str, **data: Any) -> bool:
        """Send one event with the time of now."""
        if self._rank == 0 or "error" in data:
            self._channel.send(event={"at": time.time(), "kind": kind, **data})
        return True


def rank_here() -> int | None:
    """Return this process's rank, or None where it is no rank of ours (a user's own torchrun sets ``RANK`` too)."""
    return int(os.environ["RANK"]) if here is not None else None
