"""How an endpoint serves, whatever version: what was said of it, the port that it gets, what should be known."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time

import msgspec

from lepton_jupyter.backend.store import EndpointRow
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import LOOPBACK, EndpointStatus, Options
from lepton_jupyter.stages.deploy.replicas import check_replicas

SOON_S = 14 * 86_400.0  # a certificate that ends within this is told of


def options_of(row: EndpointRow | None, said: Options | None = None) -> Options:
    """Return how an endpoint serves, after this was said.

    Raises
    ------
    LeptonError
        If it wants more replicas than there are cores, or several on a system that cannot share a port.
    """
    check_replicas(said.replicas if said is not None else None)
    before = msgspec.json.decode(row.options, type=Options) if row is not None else Options()
    return said.over(before) if said is not None else before


def dump(options: Options) -> str:
    """Return options as an endpoint's row has them."""
    return msgspec.json.encode(options).decode()


def free_port(options: Options, port: int | None) -> int:
    """Return a port that can be had: this one, or any.

    Raises
    ------
    LeptonError
        If it cannot.
    """
    host = options.host or LOOPBACK
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port or 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                message, hint = f"'{host}' is no address of this machine.", "All of them: --host 0.0.0.0"
            else:
                message = f"Port {port} on {host} cannot be used: {error.strerror}."
                hint = "Choose another one with --port, or leave --port out for a free one."
            raise LeptonError(message, hint, code="conflict") from error
        return int(probe.getsockname()[1])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which the verb takes none of; others may
        return host == "localhost"


def remarks_of(options: Options, status: EndpointStatus | None) -> tuple[str, ...]:
    """Return what should be known of an endpoint's doors, as sentences."""
    found = []
    host = options.host or LOOPBACK
    if not _is_loopback(host) and not options.tls_cert:
        found.append(f"Listens on {host} without TLS: tokens and rows can be read on the way (--tls-cert, --tls-key).")
    tls = status.tls if status is not None else None
    if tls is not None and tls.ends_at < time.time() + SOON_S:
        ends = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(tls.ends_at))
        found.append(f"Its certificate {'has ended' if tls.ends_at < time.time() else 'ends'}: {ends}.")
    if tls is not None and tls.error:
        found.append(f"The certificate was not renewed: {tls.error}")
    if status is not None and status.is_drained:
        found.append("Drained: /readyz says 503 until POST /admin/resume; what is asked is answered.")
    return tuple(found)
