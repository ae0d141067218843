"""The page with a form that tries the model. It holds nothing of the model: it asks for the token, then the rest."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from lepton_jupyter.serving.answers import Answer


def is_wanted(accepted: bytes) -> bool:
    """Whether a browser asks."""
    return b"text/html" in accepted


@cache
def answer() -> Answer:
    """Return the page; its own script and style are all that may run there, and it may ask this endpoint only."""
    content = (Path(__file__).parent / "page.html").read_bytes()
    script, style = (_hash(content, tag) for tag in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src blob:; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
    ]
    return Answer(200, content, headers)


def _hash(content: bytes, tag: bytes) -> str:
    found = re.search(rb"<%b>(.*?)</%b>" % (tag, tag), content, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1]).digest()).decode()}'"
