"""TLS by files: a certificate and its key, shown to new connections, and again when the files are replaced."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import signature, write_atomic
from lepton_jupyter.formats.endpoint import Options, Tls

HINT = "Give PEM files that belong together: --tls-cert FILE --tls-key FILE."
_NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name
_REASONS = {"KEY_VALUES_MISMATCH": "the key does not belong to the certificate"}

logger = logging.getLogger(__name__)

Seen = tuple[tuple[int, int, int], ...]


class Loaded(NamedTuple):
    """A certificate and its key in memory.

    Attributes
    ----------
    files : tuple of Path
        Of the certificate, then of the key.
    seen : tuple
        What told these files from others that would lie there.
    context : SSLContext
        Shows it.
    leaf : str
        The certificate itself, without those that vouch for it; PEM.
    """

    files: tuple[Path, Path]
    seen: Seen
    context: ssl.SSLContext
    about: Tls
    leaf: str


def load(cert: Path, key: Path) -> Loaded:
    """Read both files, and try them in a handshake.

    Raises
    ------
    LeptonError
        If one cannot be read or they do not belong together; the message says which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        for path, begin, what in ((cert, b"-----BEGIN CERT", "certificate"), (key, b"PRIVATE KEY-----", "key")):
            if begin not in path.read_bytes():
                raise LeptonError(f"'{path}' holds no {what} (PEM).", HINT)
        seen = _look(cert, key)
        context.load_cert_chain(cert, key, password=_refuse_password)
        leaf = ssl.DER_cert_to_PEM_cert(_handshake(context, _anybody()).getpeercert(True) or b"")
        about = _describe(_handshake(context, trusting(leaf, is_timeless=True)).getpeercert() or {})
    except ssl.SSLError as error:
        reason = _REASONS.get(error.reason or "", getattr(error, "verify_message", "") or error.reason or str(error))
        raise LeptonError(f"The certificate '{cert}' with the key '{key}' cannot be used: {reason}.", HINT) from error
    except OSError as error:
        raise LeptonError(f"'{error.filename or cert}' cannot be read: {error.strerror or error}.", HINT) from error
    return Loaded((cert, key), seen, context, about, leaf)


def trusting(leaf: str, *, is_timeless: bool = False) -> ssl.SSLContext:
    """Return a client's context that trusts this certificate, by whatever name it is reached, and no other.

    Parameters
    ----------
    leaf : str
        PEM of one certificate.
    is_timeless : bool
        Whether one that has ended is trusted too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # no other certificate gets through
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if is_timeless:
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
    context.load_verify_locations(cadata=leaf)
    return context


class Certificate:
    """What the connections of a listener are shown: new files for the next connection, no restart.

    Attributes
    ----------
    context : SSLContext
        The listener's, for as long as it lives; each handshake is led to the newest certificate.
    about : Tls
    leaf : str
        PEM of the certificate itself.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.show(loaded)
        self.context = loaded.context
        self.context.sni_callback = self._lead

    @classmethod
    def of(cls, options: Options) -> Certificate | None:
        """Return the certificate that options name; None where they name none.

        Raises
        ------
        LeptonError
            As `load`.
        """
        if not options.tls_cert:
            return None
        return cls(load(Path(options.tls_cert), Path(options.tls_key or "")))

    def _lead(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._loaded.context

    def show(self, loaded: Loaded) -> None:
        """Show this one from the next connection on."""
        self._loaded, self._seen = loaded, loaded.seen
        self.about, self.leaf = loaded.about, loaded.leaf
        if self.about.ends_at < time.time():
            logger.warning("the certificate '%s' has ended: clients will refuse it", loaded.files[0])

    def follow(self, options: Options) -> None:
        """Show what options name, where these are other files.

        Raises
        ------
        LeptonError
            As `load`; what was shown is shown on.
        """
        files = (Path(options.tls_cert or ""), Path(options.tls_key or ""))
        if files != self._loaded.files:
            self.show(load(*files))

    def has_changed(self) -> bool:
        """Whether other files lie there than when they were looked at last."""
        return _look(*self._loaded.files) != self._seen

    def renew(self) -> None:
        """Take what lies there now; where that cannot be, say so and show on what there is. Call it in a thread."""
        before, self._seen = self._loaded, _look(*self._loaded.files)
        try:
            loaded = load(*before.files)
            if self._loaded is before:  # else a release has named others meanwhile
                self.show(loaded)
                logger.info("the certificate was renewed")
        except LeptonError as error:
            logger.warning("%s The one from before is shown on.", error.message)
            self.about = msgspec.structs.replace(before.about, error=error.message)

    def publish(self, path: Path) -> None:
        """Write the certificate where the clients of this machine find what to trust."""
        try:
            write_atomic(path, self.leaf.encode(), is_durable=False)
        except OSError as error:
            logger.warning("%s cannot be written: %s", path, error)


def _look(*paths: Path) -> Seen:
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        return signature(path)
    except OSError:
        return 0, 0, 0


def _refuse_password() -> NoReturn:
    raise LeptonError("The key is encrypted: nobody is there to type its password.", HINT)


def _anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Return the client's end of a connection that never left memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there)
    answering = server.wrap_bio(there, back, server_side=True)
    for _ in range(8):
        pending = 0
        for end in (asking, answering):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pending += 1
        if not pending:
            break
    return asking


def _describe(certificate: Any) -> Tls:
    names = tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address"))
    return Tls(ends_at=float(ssl.cert_time_to_seconds(certificate["notAfter"])), names=names)
