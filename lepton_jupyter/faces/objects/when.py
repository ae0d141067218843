"""Times as people read them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def clock(at: float | None) -> str:
    """Return a time as ``2026-03-01 12:30 UTC``; empty for None."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC") if at else ""


def local(at: float | None, tz: str) -> str:
    """Return a time as the clock of an IANA zone shows it: ``Mon 2026-03-02 07:00 CET``; empty for None."""
    if at is None:
        return ""
    try:
        return datetime.fromtimestamp(at, ZoneInfo(tz)).strftime("%a %Y-%m-%d %H:%M:%S %Z").replace(":00 ", " ", 1)
    except (ZoneInfoNotFoundError, ValueError):  # a zone that this machine does not have
        return clock(at)


def span(seconds: float | None) -> str:
    """Return a length of time: ``8 s``, ``2 min 5 s``, ``1 h 20 min``, ``6 d 3 h``."""
    if seconds is None or seconds < 0:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def since(at: float | None) -> float | None:
    """Return the seconds since a time."""
    return time.time() - at if at else None
