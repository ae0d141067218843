"""What a container's environment says of how its endpoint serves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.endpoint import Options
from lepton_jupyter.serving.tls import load

VARIABLES = {  # by field: the variable, and what is wanted
    "host": ("LEPTON_HOST", "an address"),
    "log_days": ("LEPTON_LOG_DAYS", "a number of days above 0"),
    "log_gb": ("LEPTON_LOG_GB", "a number above 0"),
    "log_share": ("LEPTON_LOG_SHARE", "a number from 0 to 1"),
    "personal": ("LEPTON_PERSONAL", "drop, hash or keep"),
}


def options_of(environment: Mapping[str, str]) -> Options:
    """Return the options that are said; what is not, or is empty, is None.

    Raises
    ------
    LeptonError
        If a value is none.
    """
    said = Options()
    for name, (variable, wanted) in VARIABLES.items():
        text = environment.get(variable)
        try:
            said = msgspec.convert({name: text}, Options, strict=False).over(said) if text else said
            if getattr(said, name) == math.inf:  # JSON has no word for it
                raise ValueError(text)
        except ValueError as error:
            raise LeptonError(
                f"{variable} is '{text}'; wanted: {wanted}.", "Leave it out for what is usual."
            ) from error
    return _tls_of(environment).over(said)


def _tls_of(environment: Mapping[str, str]) -> Options:
    cert, key = environment.get("LEPTON_TLS_CERT"), environment.get("LEPTON_TLS_KEY")
    if bool(cert) != bool(key):
        here, there = ("LEPTON_TLS_CERT", "LEPTON_TLS_KEY") if cert else ("LEPTON_TLS_KEY", "LEPTON_TLS_CERT")
        raise LeptonError(f"{here} is set without {there}.", "Set both to mounted PEM files, or neither.")
    if not cert or not key:
        return Options()
    paths = Path(cert).absolute(), Path(key).absolute()
    load(*paths)  # refused here rather than when it listens
    return Options(tls_cert=str(paths[0]), tls_key=str(paths[1]))
