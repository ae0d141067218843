"""One value of a row: what each kind of column takes, and what is said of what it does not take."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from lepton_jupyter.formats.schema import SENTINEL, ColumnKind

MAX_TEXT = 100_000  # characters of one value of a column of prose

_WANTED: dict[ColumnKind, str] = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true, false, 0 or 1",
    "datetime": "ISO 8601 text or seconds since 1970",
    "string": "text",
    "text": "text",
}


class RefusedError(ValueError):
    """A value that a column of this kind does not take; the text says what is wanted."""


def describe(value: Any) -> str:
    """Return a value for a message, in the words of JSON.

    Examples
    --------
    >>> describe("seven"), describe(True), describe([1])
    ("'seven' (text)", 'true (boolean)', 'a list')
    """
    if isinstance(value, str):
        return f"{value if len(value) <= 40 else value[:39] + '…'!r} (text)"
    if isinstance(value, bool):
        return f"{str(value).lower()} (boolean)"
    if isinstance(value, (int, float)):
        text = str(value) if isinstance(value, float) or abs(value) < 10**40 else "an integer of over 40 digits"
        return f"{text} (number)"
    if value is None:
        return "null"
    return (
        "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"a {type(value).__name__}"
    )


def read_text(value: Any) -> str:
    """Return text as it travels: `SENTINEL` for a missing value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return SENTINEL
    if not isinstance(value, str):
        raise RefusedError(f"{describe(value)} is given; {_WANTED['string']} is wanted")
    if value == SENTINEL:
        raise RefusedError(f"{describe(value)} is reserved for missing values; send null")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # a lone surrogate, which the runtime cannot take
        raise RefusedError(f"{describe(value)} is not valid Unicode") from error
    return value


def read_prose(value: Any) -> str:
    """Return the text of a column of prose as it travels: `SENTINEL` for a missing value."""
    text = read_text(value)
    if len(text) > MAX_TEXT:
        raise RefusedError(f"a text of {len(text):,} characters is given; {MAX_TEXT:,} are the most")
    return text


def read_number(value: Any, kind: ColumnKind = "number") -> float:
    """Return a finite number, NaN for a missing value."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RefusedError(f"{describe(value)} is given; {_WANTED[kind]} is wanted")
    try:
        number = float(value)
    except OverflowError as error:
        raise RefusedError(f"{describe(value)} is too large") from error
    if math.isinf(number):
        raise RefusedError(f"{describe(value)} is infinite; {_WANTED[kind]} is wanted")
    return number


def read_integer(value: Any) -> float:
    """Return a whole number, NaN for a missing value."""
    number = read_number(value, "integer")
    if not math.isnan(number) and not number.is_integer():
        raise RefusedError(f"{describe(value)} has a fraction; {_WANTED['integer']} is wanted")
    return number


def read_boolean(value: Any) -> float:
    """Return 0.0 or 1.0, NaN for a missing value."""
    number = float(value) if isinstance(value, bool) else read_number(value, "boolean")
    if number not in (0.0, 1.0) and not math.isnan(number):
        raise RefusedError(f"{describe(value)} is given; {_WANTED['boolean']} is wanted")
    return number


def read_datetime(value: Any) -> float:
    """Return seconds since 1970, UTC, which is also the zone of text without one; NaN for a missing value."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise RefusedError(f"{describe(value)} is no date; {_WANTED['datetime']} is wanted") from error
    elif isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
    else:
        return read_number(value, "datetime")
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


NUMBERS: dict[ColumnKind, Callable[[Any], float]] = {
    "number": read_number,
    "integer": read_integer,
    "boolean": read_boolean,
    "datetime": read_datetime,
}
