"""How a body is to be read: by its route, its type and its coding."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from lepton_jupyter.serving import arrow, compression, inference, invocations, predict
from lepton_jupyter.serving.answers import refused
from lepton_jupyter.serving.predict import Asked
from lepton_jupyter.serving.release import Release

Headers = Mapping[bytes, bytes]  # names in lower case
Read = Callable[[Release, bytes], Asked]

JSON, CSV, BYTES = b"application/json", b"text/csv", b"application/octet-stream"
IMAGES: dict[bytes, Read] = dict.fromkeys((b"image/jpeg", b"image/png"), predict.read_image)
READERS: dict[str, dict[bytes, Read]] = {
    "/predict": {JSON: predict.read, CSV: invocations.read_csv, **IMAGES},
    "/invocations": {JSON: invocations.read, CSV: invocations.read_csv, **IMAGES},
}

if arrow.is_there():
    for _readers in READERS.values():
        _readers[arrow.STREAM] = arrow.read
SLOW = frozenset((arrow.read,))  # what is read in a thread, however small the body is

_HEADER_BYTES = re.compile(rb"[0-9]{1,12}\Z")


def coding_of(headers: Headers) -> bytes:
    """Return how the body is compressed; empty where it is not."""
    coding = (headers.get(b"content-encoding") or b"").strip().lower()
    if coding in (b"", b"identity"):
        return b""
    if not compression.is_known(coding):
        shown = coding.decode("latin-1")[:40]
        raise refused(415, f"A body in '{shown}' is not taken.", f"Known: {', '.join(compression.CODINGS)}.")
    return coding


def uncompressing(read: Read, coding: bytes) -> Read:
    """Return what reads a body that is compressed so; empty: it is not."""
    if not coding:
        return read
    return lambda release, body: read(release, compression.decompressed(body, coding, release.config.max_body_bytes))


def reader(headers: Headers, readers: Mapping[bytes, Read]) -> Read:
    """Return what reads a body of the type that the request names; JSON where it names none."""
    said = (headers.get(b"content-type") or JSON).partition(b";")[0].strip().lower()
    read = readers.get(JSON if said.endswith(b"+json") else said)
    if read is None:
        shown = said.decode("latin-1")[:80]
        known = ", ".join(name.decode() for name in readers)
        raise refused(415, f"A body of '{shown}' is not taken.", f"Known: {known}.")
    if inference.HEADER_LENGTH in headers and BYTES not in readers:
        raise refused(415, "Binary tensors are not taken here.", "Send them to /v2/models/NAME/infer.")
    return read


def infer_reader(headers: Headers, name: str) -> Read:
    said = headers.get(inference.HEADER_LENGTH)
    if said is None:
        plain = partial(inference.read, name=name)
        return reader(headers, {JSON: plain, BYTES: plain})  # Triton's client for asyncio says the second of JSON
    if not _HEADER_BYTES.match(said):
        raise refused(400, f"Inference-Header-Content-Length is '{said.decode('latin-1')[:40]}'; a number is wanted.")
    read = partial(inference.read, name=name, header_bytes=int(said))
    return reader(headers, {BYTES: read, JSON: read})
