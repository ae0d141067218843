"""What backend and endpoint write for each other: ``endpoint.json`` and ``status.json``."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, json, structs

LOOPBACK = "127.0.0.1"

BesideKind = Literal["canary", "shadow"]
PersonalMode = Literal["drop", "hash", "keep"]
Scope = Literal["infer", "read", "admin"]
OWNER = "owner"  # name of the token that every endpoint has


class Token(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is let in, and for what; the token itself is in no record.

    Attributes
    ----------
    sha256 : str
        Of the token, hexadecimal.
    scopes : tuple of str
        ``infer`` asks for predictions, ``read`` for figures, ``admin`` for all.
    ends_at : float or None
        Seconds since 1970, UTC: it is let in until then. None: for as long as it is named.
    """

    name: str
    sha256: str
    scopes: tuple[Scope, ...] = ("admin",)
    ends_at: float | None = None


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
    replicas : int or None
        How many processes answer on its port; one where nothing was ever said.
    tls_cert, tls_key : str or None
        Absolute paths of a certificate and its key (PEM); empty: plain HTTP.
    log_days, log_gb : float or None
        How long, and how much of, its request log is kept: 90 days and 1 GB where nothing was ever said.
    log_share : float or None
        Share of the requests whose rows are logged, 0–1; all where nothing was ever said.
    personal : str or None
        What becomes of personal columns in the log: ``drop`` where nothing was ever said, ``hash`` or ``keep``.
    """

    host: str | None = None
    replicas: int | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    log_days: Annotated[float, Meta(gt=0)] | None = None
    log_gb: Annotated[float, Meta(gt=0)] | None = None
    log_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    personal: PersonalMode | None = None

    def over(self, before: Options) -> Options:
        """Return what holds after this was said.

        Examples
        --------
        >>> Options(replicas=2).over(Options(host="::1")).host
        '::1'
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
    tokens : tuple of Token
    token_hashes : tuple of str
        sha256 of further tokens, for all: so endpoints of before there were scopes say it.
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
    token_hashes: tuple[str, ...] = ()
    tokens: tuple[Token, ...] = ()
    max_body_bytes: int = 64 * 2**20
    max_rows: int = 100_000
    beside: Beside | None = None
    options: Options = Options()

    @property
    def host(self) -> str:
        """Address that it listens on."""
        return self.options.host or LOOPBACK

    @property
    def replicas(self) -> int:
        """How many processes answer on its port."""
        return self.options.replicas or 1

    @property
    def url(self) -> str:
        """Address at which this machine reaches it."""
        return url_of(self.options, self.port)

    def let_in(self) -> tuple[Token, ...]:
        """Return every token that is let in."""
        older = tuple(Token(name=OWNER, sha256=known) for known in self.token_hashes)
        return (*self.tokens, *older)


class Tls(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The certificate that new connections are shown.

    Attributes
    ----------
    ends_at : float
        Seconds since 1970, UTC.
    names : tuple of str
        Hosts and addresses that it is for.
    error : str
        Why the files that lie there now were not taken; those from before are shown.
    """

    ends_at: float
    names: tuple[str, ...] = ()
    error: str = ""


class EndpointStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``status.json``: what is served. Written by the endpoint; each of several processes writes one of its own.

    Attributes
    ----------
    state : str
        ``starting``, ``ready``, ``leaving`` or ``error``. True only while the process holds its lock.
    error_release : int or None
        A release that could not be taken, for the reason in `error`; the one before it is served on.
    tokens : str
        `fingerprint` of the tokens that are let in.
    tls : Tls or None
        None: plain HTTP.
    is_drained : bool
        Whether readiness says 503 because somebody asked for it.
    """

    state: str
    release: int
    version: str
    port: int
    pid: int
    at: float
    error: str = ""
    error_release: int | None = None
    tokens: str = ""
    tls: Tls | None = None
    is_drained: bool = False


def url_of(options: Options, port: int) -> str:
    """Return the address at which this machine reaches an endpoint.

    Examples
    --------
    >>> url_of(Options(host="0.0.0.0", tls_cert="/etc/cert.pem", tls_key="/etc/key.pem"), 8443)
    'https://127.0.0.1:8443'
    """
    host = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}.get(options.host or "", options.host)  # noqa: S104
    scheme = "https" if options.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in str(host) else host}:{port}"


def hash_of(word: bytes) -> str:
    """Return what is known of a token: its sha256, hexadecimal."""
    return hashlib.sha256(word).hexdigest()


def fingerprint(tokens: tuple[Token, ...]) -> str:
    """Return what tells one set of tokens from another; it tells nothing of them."""
    return hashlib.sha256(json.encode(tokens)).hexdigest()[:16]
