"""The least a server can do: parse the JSON, answer a word. ``uvicorn bare:app``."""

from __future__ import annotations

from typing import Any

import orjson

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"11")]
HEAD = {"type": "http.response.start", "status": 200, "headers": HEADERS}
BODY = {"type": "http.response.body", "body": b'{"ok":true}'}


async def app(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    orjson.loads(message["body"])
    await send(HEAD)
    await send(BODY)
