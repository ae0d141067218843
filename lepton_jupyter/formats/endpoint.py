"""What backend and endpoint write for each other: ``endpoint.json`` and ``status.json``."""

from __future__ import annotations

from msgspec import Struct


class EndpointConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``endpoint.json``: what shall be served. Written by the backend; the endpoint looks for it 10 times a second.

    Attributes
    ----------
    release : int
        Raised by one with each change; `EndpointStatus.release` follows it.
    bundle : str
        Absolute path.
    manifest_hash : str
        The bundle must be this one.
    port : int
        0: any free one, which the backend then writes down.
    token_hashes : tuple of str
        sha256 of each token that is let in, hexadecimal.
    """

    name: str
    release: int
    model: str
    version: str
    bundle: str
    manifest_hash: str
    port: int
    token_hashes: tuple[str, ...]
    host: str = "127.0.0.1"
    max_body_bytes: int = 64 * 2**20
    max_rows: int = 100_000


class EndpointStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``status.json``: what is served. Written by the endpoint.

    Attributes
    ----------
    state : str
        ``starting``, ``ready`` or ``error``. True only while the endpoint holds its lock.
    error_release : int or None
        A release that could not be taken, for the reason in `error`; the one before it is served on.
    """

    state: str
    release: int
    version: str
    port: int
    pid: int
    at: float
    error: str = ""
    error_release: int | None = None
