"""One port for several processes of a user (Linux's SO_REUSEPORT), and how one of them leaves it without a lost client.

The kernel deals new connections out to all sockets that listen. Those that wait at a socket when it is closed are
reset. So who leaves lets the kernel drop the first packet of new connections to its own socket, takes those whose
handshake has begun, and closes it then: a client whose packet was dropped sends it again a second later, as after any
loss, and comes to another process.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

SETTLE_S = 0.1  # a handshake that has begun is over by then, with who is near
SETTLE_HERE_S = 0.03  # and on this machine
BIND_S = 5.0  # who has the port alone lets others share it within one look at its configuration
PAUSE_S = 0.05

_TCP_INFO_BYTES, _UNACKED = 28, 24  # of a socket that listens, that field holds how many wait to be taken
_SO_ATTACH_FILTER = 26  # of Linux; the module has no name for it
_FLAGS, _SYN_AND_ACK, _SYN = 13, 0x12, 0x02  # the flags' place in TCP's header; the first packet has SYN, and not ACK
_NO_SYN = (
    (0x30, 0, 0, _FLAGS),  # load a byte
    (0x54, 0, 0, _SYN_AND_ACK),  # and
    (0x15, 0, 1, _SYN),  # is it SYN alone?
    (0x06, 0, 0, 0),  # then drop the packet
    (0x06, 0, 0, 0x40000),  # else keep all of it
)  # of classic BPF: code, jumps where true and where not, value


def can_share() -> bool:
    """Whether this system deals connections out to several sockets of one port."""
    return sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")


def share(bound: socket.socket, is_shared: bool) -> None:
    """Let other processes of this user listen on a socket's port too, or no others from now on."""
    if can_share():
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))


def settle_s(listening: socket.socket) -> float:
    """Return how long a handshake with a socket's clients may take."""
    is_here = str(listening.getsockname()[0]).startswith(("127.", "::1"))
    return SETTLE_HERE_S if is_here else SETTLE_S


def n_waiting(listening: socket.socket) -> int:
    """Return how many connections wait at a socket to be taken; 0 where the system does not tell."""
    if not can_share():
        return 0
    told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int.from_bytes(told[_UNACKED:_TCP_INFO_BYTES], sys.byteorder)


def refuse_new(listening: socket.socket) -> None:
    """Let no new connection begin at a socket; those that have begun still come.

    Raises
    ------
    OSError
        If the system takes no filter.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _NO_SYN))
    told = struct.pack("HL", len(_NO_SYN), ctypes.addressof(program))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)
