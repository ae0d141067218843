"""``python -m lepton_jupyter.backend.send``: take one message from standard input to one channel, and end.

A process of its own, so that a channel that hangs blocks nobody, apprise's memory goes with it, and the secret that a
channel's name stands for is never in the backend, in argv or in a log. Its environment is that of whoever defined the
schedule: names are looked up there.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.runner.channels import resolve

LIMIT_S = 90  # longer than its backend waits for it: it ends even where that one is gone
CONNECT_S, READ_S = 10.0, 30.0  # after apprise's own four seconds a slow channel would get it twice
SHORTEST_SECRET = 4
MAX_REASON = 500
KINDS = {"[FIRING]": "failure", "[RESOLVED]": "success"}


class Message(msgspec.Struct, kw_only=True):
    """What is sent where: `channel` is a name, `picture` a path."""

    channel: str
    title: str
    body: str
    picture: str | None = None


class _Heard(logging.Handler):
    """What apprise says went wrong."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING or text.startswith("Socket Exception"):
            self.lines.append(text)


def send(message: Message) -> str:
    """Deliver a message; return why that failed, or nothing. No secret is in the answer."""
    try:
        address = resolve(message.channel, os.environ)
    except LeptonError as error:
        return f"{error.message} {error.hint}".strip()
    heard = _Heard()
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(heard)
    try:
        is_sent = _notify(address, message)
    except Exception as error:  # a plugin's own: it must not end as a traceback with the address in it
        heard.lines.append(f"{type(error).__name__}: {error}")
        is_sent = False
    reasons = "; ".join(dict.fromkeys(" ".join(line.split()) for line in heard.lines[-3:]))
    return "" if is_sent else _masked(reasons or "it was not taken", address)[:MAX_REASON]


def _notify(address: str, message: Message) -> bool:
    from apprise import Apprise, AppriseAsset, AppriseAttachment
    from apprise.attachment.file import AttachFile

    asset = AppriseAsset(app_id="lepton_jupyter", app_desc="lepton_jupyter", app_url="", async_mode=False)
    target = Apprise.instantiate(_as_text(address), asset=asset)
    if target is None:
        raise ValueError("it is no address that a message can go to")
    if "cto=" not in address:
        target.socket_connect_timeout = CONNECT_S
    if "rto=" not in address:
        target.socket_read_timeout = READ_S
    attached = None
    if message.picture and Path(message.picture).is_file():
        attached = AppriseAttachment(asset=asset)
        attached.add(AttachFile(message.picture, mimetype="image/png"))
    app = Apprise(asset=asset)
    app.add(target)
    kind = KINDS.get(message.title.partition(" ")[0], "info")
    return bool(app.notify(message.body, title=message.title, notify_type=kind, body_format="text", attach=attached))


def _as_text(address: str) -> str:
    """Return a mail's address such that the mail is plain text."""
    parts = urlsplit(address)
    if not parts.scheme.startswith("mailto") or "format=" in parts.query:
        return address
    return f"{address}{'&' if parts.query else '?'}format=text"


def _masked(text: str, address: str) -> str:
    """Return a text without any part of an address but its host."""
    parts = urlsplit(address)
    said = [address, parts.username, parts.password, *parts.path.split("/")]
    said += [value for key, value in parse_qsl(parts.query) if key not in ("from", "to")]
    if parts.scheme not in ("json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"):
        said.append(parts.hostname)  # of other services it is a token
    secrets = {found for each in said if each for found in (each, unquote(each)) if len(found) >= SHORTEST_SECRET}
    for secret in sorted(secrets, key=len, reverse=True):
        text = re.sub(re.escape(secret), "…", text, flags=re.IGNORECASE)
    return text


def main() -> int:
    """Read a message, deliver it, answer ``{"error": …}``."""
    if hasattr(signal, "alarm"):
        signal.alarm(LIMIT_S)
    why: Any = send(msgspec.json.decode(sys.stdin.buffer.read(), type=Message))
    sys.stdout.buffer.write(msgspec.json.encode({"error": why}))
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
