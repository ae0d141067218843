"""Personal values as the request log has them: not at all, or as pseudonyms that are the same for the same value."""

from __future__ import annotations

import contextlib
import hmac
import math
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.formats.endpoint import Options, PersonalMode
from lepton_jupyter.formats.schema import Schema

KEY_VARIABLE = "LEPTON_PERSONAL_KEY"
KEY_BYTES = 32
DIGITS = 32  # of a pseudonym, hexadecimal: 128 bits
TENSOR = "tensor"  # stands for the rows of a model of tensors


def mode_of(schema: Schema, options: Options) -> PersonalMode:
    """Return what becomes of personal values; ``keep`` where there are none."""
    return (options.personal or "drop") if schema.personal else "keep"


def key_at(path: Path) -> bytes:
    """Return the key of an endpoint: that of LEPTON_PERSONAL_KEY, else that of the file, which is made where it is not.

    Raises
    ------
    LeptonError
        If it cannot be read, or there is none and none can be written.
    """
    said = os.environ.get(KEY_VARIABLE, "")
    if said:
        return said.encode()
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes().strip()
        write_atomic(fresh, secrets.token_hex(KEY_BYTES).encode())
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            os.link(fresh, path)
        fresh.unlink()
        return path.read_bytes().strip()
    except OSError as error:
        raise LeptonError(f"The key '{path}' cannot be had: {error.strerror}.", code="failed") from error


def pseudonyms(key: bytes, values: Iterable[Any]) -> list[str | None]:
    """Return each value's HMAC-SHA256 (RFC 2104), its first 128 bits as hexadecimal text; None where it is missing.

    A value is taken as `text_of` writes it.

    Examples
    --------
    >>> pseudonyms(b"key", ["anna@example.org", None, 7.0]) == pseudonyms(b"key", ["anna@example.org", None, "7"])
    True
    """
    return [
        None if text is None else hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:DIGITS]
        for text in map(text_of, values)
    ]


def text_of(value: Any) -> str | None:
    """Return a value as text: numbers that are whole without a point, booleans as 0 and 1; None where it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
