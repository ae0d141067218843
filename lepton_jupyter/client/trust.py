"""What a client of this machine trusts: the one certificate that an endpoint says it shows."""

from __future__ import annotations

import ssl
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.serving.tls import trusting


def certificate_of(url: str, path: Path) -> str:
    """Return the certificate that is trusted at an endpoint's address (PEM); empty where that is plain HTTP.

    Parameters
    ----------
    url : str
        ``http://…``, or https.
    path : Path
        Where the endpoint writes the certificate that it shows; read anew each time, as it may be renewed.

    Raises
    ------
    LeptonError
        If it is not there.
    """
    if not url.startswith("https:"):
        return ""
    try:
        return path.read_text()
    except OSError as error:
        raise LeptonError(
            f"The certificate of the endpoint at {url} cannot be read from '{path}': {error.strerror}.",
            "It is written when the endpoint starts: try again, or look at its log.",
            code="unavailable",
        ) from error


def verify(certificate: str) -> ssl.SSLContext | bool:
    """Return what httpx's ``verify`` takes to trust this certificate alone; empty: plain HTTP."""
    return trusting(certificate) if certificate else True
