"""What is said of an endpoint's doors when it is deployed: its address, and TLS by files."""

from __future__ import annotations

import ipaddress
import stat
import time
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.serving.tls import load
from lepton_jupyter.stages.deploy.spec import Deploy

NONE = "none"  # plain HTTP again


def options_of(spec: Deploy) -> Options:
    """Return what was said, with absolute paths; what was not said stays as it is.

    Raises
    ------
    LeptonError
        If the address is none, or the certificate and its key cannot be served: unreadable, no pair, ended, or a key
        that others can read.
    """
    if spec.host is not None:
        _check_address(spec.host)
    options = Options(**{one.name: getattr(spec, one.name) for one in msgspec.structs.fields(Options)})
    if (spec.tls_cert is None) != (spec.tls_key is None) and spec.tls_cert != NONE:
        said, other = ("--tls-cert", "--tls-key") if spec.tls_cert else ("--tls-key", "--tls-cert")
        raise LeptonError(f"{said} is there without {other}.", "Give both, or --tls-cert none for plain HTTP.")
    if spec.tls_cert is None or spec.tls_key is None or spec.tls_cert == NONE:
        off = "" if spec.tls_cert == NONE else None
        return msgspec.structs.replace(options, tls_cert=off, tls_key=off)
    cert, key = (Path(said).expanduser().absolute() for said in (spec.tls_cert, spec.tls_key))
    ends_at = load(cert, key).about.ends_at
    if ends_at < time.time():
        ended = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ends_at))
        raise LeptonError(f"The certificate '{cert}' has ended: {ended}.", "Renew it, then deploy again.")
    if key.stat().st_mode & stat.S_IROTH:
        raise LeptonError(f"The key '{key}' can be read by everybody.", f"Make it yours alone: chmod 600 {key}")
    return msgspec.structs.replace(options, tls_cert=str(cert), tls_key=str(key))


def _check_address(said: str) -> None:
    try:
        ipaddress.ip_address(said)
    except ValueError as error:
        raise LeptonError(
            f"'{said}' is no IP address.", "This machine alone: --host 127.0.0.1; all of its addresses: --host 0.0.0.0"
        ) from error
