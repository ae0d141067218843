"""What every route does: read a JSON body, answer in JSON, tell an error as it travels."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lepton_jupyter.core.errors import LeptonError

STATUS = {"bad_input": 400, "not_found": 404, "unavailable": 503}  # else 409: it does not fit what is there

encode = msgspec.json.Encoder().encode
T = TypeVar("T")


def answer(content: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(encode(content), status, media_type="application/json")


async def body_of(request: Request, kind: type[T]) -> T:
    """Return what was sent, as a struct.

    Raises
    ------
    LeptonError
        If it does not fit.
    """
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise LeptonError(f"The backend does not understand the request: {error}.") from error


async def tell_error(_: Request, error: Exception) -> Response:
    """Return a `LeptonError` as it travels."""
    assert isinstance(error, LeptonError)
    return answer({"error": error.to_dict()}, STATUS.get(error.code, 409))
