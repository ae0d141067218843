"""What the endpoint says: answers as JSON, and refusals with the reason and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.packing import PackingError, RowFault

Headers = list[tuple[bytes, bytes]]

JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
SAFE: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]  # of every answer

encode = msgspec.json.Encoder().encode  # NaN and infinity become null


class Answer(NamedTuple):
    """A status, headers beside length and request id, and the body."""

    status: int
    body: bytes
    headers: Headers


class HttpError(Exception):
    """A request that is not answered as asked.

    Parameters
    ----------
    status : int
    error : LeptonError
    faults : sequence of RowFault
        What is wrong with the rows.
    headers : list of (bytes, bytes)
    """

    def __init__(
        self, status: int, error: LeptonError, *, faults: Sequence[RowFault] = (), headers: Headers | None = None
    ) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.faults = faults
        self.headers = headers or []
        self.version = ""  # whose failure it is, where it is a version's

    def answer(self, request_id: str, *, is_v2: bool) -> Answer:
        """Return the body: an object under ``error``; the Open Inference Protocol wants one text there."""
        said: Any = self.error.to_dict()
        if is_v2:
            said = str(self.error)
        record = {"error": said, "request_id": request_id}
        if self.faults:
            record["faults"] = [msgspec.structs.asdict(fault) for fault in self.faults]
        return Answer(self.status, encode(record), [JSON, *self.headers])


def refused(status: int, message: str, hint: str = "", *, headers: Headers | None = None) -> HttpError:
    """Return the error for a request that is refused for what it is."""
    codes = {401: "refused", 403: "refused", 404: "not_found", 429: "unavailable", 503: "unavailable"}
    code = codes.get(status, "bad_input")
    return HttpError(status, LeptonError(message, hint, code=code), headers=headers)


def too_large(limit: int) -> HttpError:
    """Return 413 for a body beyond the limit."""
    return refused(413, f"The body is larger than {limit} bytes.", "Send the rows in several requests.")


def check_count(n_rows: int, max_rows: int, *, of: str = "rows") -> None:
    """Refuse a request of too many rows.

    Raises
    ------
    HttpError
        413.
    """
    if n_rows > max_rows:
        raise refused(
            413,
            f"The request has {n_rows} {of}; at most {max_rows} are taken at once.",
            "Send them in several requests.",
        )


def unfit(error: PackingError) -> HttpError:
    """Return 422 for rows that do not fit the schema."""
    return HttpError(422, error, faults=error.faults)


def json_answer(record: Any, status: int = 200) -> Answer:
    """Return an answer with this record as its body."""
    return Answer(status, encode(record), [JSON])


def decode_error(error: Exception, body: bytes) -> HttpError:
    """Return 400 for a body that is not JSON, or not the JSON that is wanted there."""
    hint = ""
    if b"NaN" in body or b"Infinity" in body:
        hint = "NaN and Infinity are not JSON: send null where a value is missing."
    said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return refused(400, f"The body is not valid JSON: {said}.", hint)
