"""Compressed bodies: taken as long as they do not unfold beyond the limit, and sent to whoever asks for them."""

from __future__ import annotations

import zlib

from lepton_jupyter.serving.answers import Answer, refused, too_large

SMALL = 64 * 2**10  # bytes of an answer that are sent as they are: on one machine bytes are cheaper than squeezing them
LEVEL = 1

_WBITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
CODINGS = ("gzip", "deflate")


def is_known(coding: bytes) -> bool:
    """Whether a Content-Encoding is taken."""
    return coding in _WBITS


def decompressed(body: bytes, coding: bytes, limit: int) -> bytes:
    """Return what a body holds.

    Raises
    ------
    HttpError
        400 where it is not whole or not of this coding, 413 where it holds more than `limit` bytes.
    """
    engine = zlib.decompressobj(_WBITS[coding])
    try:
        content = engine.decompress(body, limit + 1)
    except zlib.error as error:
        raise refused(400, f"The body is not {coding.decode()}: {error}.") from error
    if len(content) > limit:
        raise too_large(limit)
    if not engine.eof or engine.unused_data:
        said = "more follows its end" if engine.eof else "it is cut off"
        raise refused(400, f"The body is not {coding.decode()}: {said}.")
    return content


def compressed(answer: Answer, accepted: bytes) -> Answer:
    """Return an answer in a coding that the client takes; a small one as it is."""
    named = [part.partition(b";") for part in accepted.lower().split(b",")]
    wanted = [name.strip() for name, _, rest in named if rest.replace(b" ", b"") not in (b"q=0", b"q=0.0")]
    coding = next((one for one in (b"gzip", b"deflate") if one in wanted), None)
    if coding is None or len(answer.body) < SMALL:
        return answer
    engine = zlib.compressobj(LEVEL, zlib.DEFLATED, _WBITS[coding])
    body = engine.compress(answer.body) + engine.flush()
    return Answer(answer.status, body, [*answer.headers, (b"content-encoding", coding), (b"vary", b"accept-encoding")])
