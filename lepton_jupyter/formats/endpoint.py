"""What backend and endpoint write for each other: ``endpoint.json`` and ``status.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, structs

LOOPBACK = "127.0.0.1"

BesideKind = Literal["canary", "shadow"]
PersonalMode = Literal["drop", "hash", "keep"]


class Beside(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A second version that an endpoint holds beside the live one.

    Attributes
    ----------
    kind : str
        A canary answers a share of the requests; a shadow is asked the same as the live version, and answers nobody.
    bundle, manifest_hash : str
        As in `EndpointConfig`.
    since : int
        The release at which it began: the same as long as it lasts.
    share : float
        Of the requests, 0–1; 0 for a shadow.
    """

    kind: BesideKind
    model: str
    version: str
    bundle: str
    manifest_hash: str
    since: int
    share: float = 0.0


class Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an endpoint serves, whatever version it serves. What is None was not said: it stays as it is.

    Attributes
    ----------
    host : str or None
        Address that it listens on; 127.0.0.1 where nothing was ever said.
    log_days, log_gb : float or None
        How long, and how much of, its request log is kept: 90 days and 1 GB where nothing was ever said.
    log_share : float or None
        Share of the requests whose rows are logged, 0–1; all where nothing was ever said.
    personal : str or None
        What becomes of personal columns in the log: ``drop`` where nothing was ever said, ``hash`` or ``keep``.
    """

    host: str | None = None
    log_days: Annotated[float, Meta(gt=0)] | None = None
    log_gb: Annotated[float, Meta(gt=0)] | None = None
    log_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    personal: PersonalMode | None = None

    def over(self, before: Options) -> Options:
        """Return what holds after this was said.

        Examples
        --------
        >>> Options().over(Options(host="::1"))
        Options(host='::1')
        """
        said: dict[str, Any] = {name: value for name, value in structs.asdict(self).items() if value is not None}
        return structs.replace(before, **said)


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
    beside : Beside or None
        What is served, or tried, beside it.
    options : Options
    """

    name: str
    release: int
    model: str
    version: str
    bundle: str
    manifest_hash: str
    port: int
    token_hashes: tuple[str, ...]
    max_body_bytes: int = 64 * 2**20
    max_rows: int = 100_000
    beside: Beside | None = None
    options: Options = Options()

    @property
    def host(self) -> str:
        """Address that it listens on."""
        return self.options.host or LOOPBACK


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
