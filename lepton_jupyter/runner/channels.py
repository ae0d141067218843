"""Channels by name, ``env:VAR`` or ``keyring:SERVICE/USER``: what they mean is looked up, never typed or recorded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from lepton_jupyter.core.errors import LeptonError, did_you_mean
from lepton_jupyter.runner.request import SCRUBBED

_VARIABLE = re.compile(r"env:([A-Za-z_]\w*)")
_ENTRY = re.compile(r"keyring:([^/]+)/(.+)")
_WEBHOOKS = {"http": "json", "https": "jsons"}
_FORMS = "A channel is env:VARIABLE or keyring:SERVICE/USER"


def check_channel(text: str, environ: Mapping[str, str]) -> str:
    """Return a channel's name as it was given, if messages can go there; nothing is sent.

    Parameters
    ----------
    text : str
        ``env:VAR`` or ``keyring:SERVICE/USER``.
    environ : mapping
        The environment of whoever asks: the schedule keeps it.

    Raises
    ------
    LeptonError
        If it is no name, nothing goes by it, or what does is no address that apprise knows. No message shows the
        address: it is a secret.
    """
    variable = _VARIABLE.fullmatch(text)
    if variable is not None and SCRUBBED.fullmatch(variable[1]):
        raise LeptonError(f"'{text}' is a variable of Jupyter's own; no run sees it.", "Give it another name.")
    address = resolve(text, environ)
    from apprise import Apprise  # half a second: only where a channel is used

    if Apprise.instantiate(address, suppress_exceptions=True) is None:
        raise LeptonError(
            f"What '{text}' stands for is no address that a message can go to; it begins with '{_scheme(address)}'.",
            "Wanted: https://… (a webhook), mailto://USER:PASSWORD@HOST?to=…, slack://… or another URL of apprise.",
        )
    return text


def resolve(text: str, environ: Mapping[str, str]) -> str:
    """Return the address that a channel's name stands for: a URL of apprise's. It is a secret.

    A plain ``https://…`` is a webhook that gets JSON, unless it is one of a service that apprise knows.

    Raises
    ------
    LeptonError
        If it is no name, or nothing goes by it.
    """
    if variable := _VARIABLE.fullmatch(text):
        address = _from_environment(variable[1], environ)
    elif entry := _ENTRY.fullmatch(text):
        address = _from_keyring(entry[1], entry[2])
    elif "://" in text:
        raise LeptonError(
            f"'{_scheme(text)}…' is an address: a channel is named, not typed, because addresses hold secrets.",
            "Put it into an environment variable and write env:NAME, or into the keyring (keyring set SERVICE USER) "
            "and write keyring:SERVICE/USER.",
        )
    else:
        hint = f"Did you mean env:{text}?" if text in environ else "For instance: --notify env:OPS_WEBHOOK."
        raise LeptonError(f"'{text}' is no channel. {_FORMS}.", hint)
    return _as_apprise(address.strip())


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    address = environ.get(name, "")
    if not address.strip():
        said = "is empty" if name in environ else "is not set"
        raise LeptonError(
            f"The environment variable '{name}' {said} here.{did_you_mean(name, environ)}",
            f'Set it without showing it: import os, getpass; os.environ["{name}"] = getpass.getpass()',
            code="not_found",
        )
    return address


def _from_keyring(service: str, user: str) -> str:
    import keyring  # lazily: it looks for a desktop's key store
    from keyring.errors import KeyringError

    try:
        address = keyring.get_password(service, user)
    except KeyringError as error:
        raise LeptonError(
            f"The keyring cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "Use an environment variable instead: env:NAME.",
            code="unavailable",
        ) from error
    if not address:
        raise LeptonError(
            f"The keyring has no entry '{service}/{user}'.", f"Add it: keyring set {service} {user}", code="not_found"
        )
    return address


def _as_apprise(address: str) -> str:
    """Return a plain web address as apprise's JSON webhook; what apprise knows (Slack's, Discord's …) stays."""
    parts = urlsplit(address)
    if parts.scheme not in _WEBHOOKS:
        return address
    from apprise.plugins import url_to_dict

    if url_to_dict(address) is not None:
        return address
    asked = "&".join(f"-{quote(key)}={quote(value)}" for key, value in parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit((_WEBHOOKS[parts.scheme], parts.netloc, parts.path, asked, ""))


def _scheme(address: str) -> str:
    scheme, mark, _ = address.partition("://")
    return f"{scheme}://" if mark and re.fullmatch(r"[A-Za-z][\w+.-]*", scheme) else "something that is no scheme"
