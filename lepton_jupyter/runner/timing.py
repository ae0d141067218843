"""When something is due: intervals, nicknames and cron expressions, read in a zone. Light: faces use it too."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from lepton_jupyter.core.errors import LeptonError, did_you_mean

NICKNAMES = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0", "monthly": "0 0 1 * *"}
UTC_NAMES = ("UTC", "Etc/UTC", "Etc/UCT", "UCT", "Universal", "Etc/Universal", "Zulu", "Etc/Zulu")
UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MIN_S, MAX_S = 1.0, 10 * 366 * 86_400.0
KNOWN = (
    "Known: an interval (30s, 5m, 1h, 1d, 1w), hourly, daily, weekly, monthly, or a cron expression in quotes "
    '("0 7 * * mon").'
)

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])\Z")


@dataclass(frozen=True)
class Timing:
    """When a schedule is due.

    Attributes
    ----------
    every : str
        As typed.
    tz : str
        IANA zone in which `cron` is read.
    period_s : float or None
        Of an interval, which is counted from the moment of its definition, in UTC.
    cron : str or None
        Five fields: minute, hour, day of month, month, day of week. A time that the change to daylight saving time
        leaves out is due at the first minute after the gap, one that comes twice is due at the first.
    """

    every: str
    tz: str
    period_s: float | None = None
    cron: str | None = None

    def next_after(self, at: float, anchor_at: float) -> float:
        """Return the first due time behind `at`. Both are seconds since 1970, UTC; an interval began at `anchor_at`."""
        if self.period_s is not None:
            return anchor_at + max(self._n_periods(at - anchor_at) + 1, 1) * self.period_s
        return next(self._cron_after(at))

    def passed(self, due_at: float, *, now: float, anchor_at: float, limit: int) -> tuple[list[float], int]:
        """Return the newest due times from `due_at` to `now`, oldest first, and how many there are in all.

        Parameters
        ----------
        due_at : float
            A due time that has come.
        now, anchor_at : float
        limit : int
            How many are returned at most.
        """
        if self.period_s is not None:
            first, last = self._n_periods(due_at - anchor_at), self._n_periods(now - anchor_at)
            kept = range(max(first, last - limit + 1), last + 1)
            return [anchor_at + index * self.period_s for index in kept], last - first + 1
        newest, n_passed = deque([due_at], maxlen=limit), 1
        for later in self._cron_after(due_at):
            if later > now:
                break
            newest.append(later)
            n_passed += 1
        return list(newest), n_passed

    def _n_periods(self, span_s: float) -> int:
        """Count whole periods; one that is short by the last bits of a float is whole."""
        assert self.period_s is not None
        return int(span_s / self.period_s + 1e-5)

    def _cron_after(self, at: float) -> Iterator[float]:
        assert self.cron is not None
        zone: tzinfo = UTC if self.tz == "UTC" else ZoneInfo(self.tz)
        for moment in CronSim(self.cron, datetime.fromtimestamp(at, zone)):
            due_at = moment.timestamp()
            if due_at > at:  # in an hour that comes twice, cronsim begins with the first one again
                at = due_at
                yield due_at
        raise LeptonError(f"'{self.every}' never fires.", KNOWN)


def parse_every(text: str, tz: str | None, now: float) -> Timing:
    """Read an interval, a nickname or a cron expression.

    Parameters
    ----------
    text : str
        ``30s``, ``5m``, ``1h``, ``1d``, ``1w``; ``hourly``, ``daily``, ``weekly``, ``monthly``; five cron fields.
    tz : str or None
        IANA zone; None or empty: this machine's.
    now : float
        Seconds since 1970, UTC: it must be due some time after that.

    Raises
    ------
    LeptonError
        If it is none of these, is shorter than a second, never fires, or there is no such zone.

    Examples
    --------
    >>> parse_every("90s", "UTC", 0.0).next_after(100.0, 10.0)
    190.0
    """
    zone, every = check_zone(tz) if tz else local_zone(), " ".join(text.split())
    if _SPAN.match(every.lower()):
        return Timing(every=every, tz=zone, period_s=parse_span(every))
    cron = NICKNAMES.get(every.lower().removeprefix("@"), every)
    n_fields = len(cron.split())
    if n_fields == 6:
        raise LeptonError(
            f"'{text}' has six fields; a cron expression has five: minute hour day month weekday.",
            "For seconds give an interval, such as 10s.",
        )
    if n_fields != 5:
        near = did_you_mean(every.lower(), NICKNAMES)
        raise LeptonError(f"'{text}' is no interval, no nickname and no cron expression.{near}", KNOWN)
    timing = Timing(every=every, tz=zone, cron=cron)
    try:
        timing.next_after(now, now)
    except CronSimError as error:
        raise LeptonError(f"'{text}' is no cron expression, or never fires: {error}.", KNOWN) from error
    return timing


def parse_span(text: str) -> float:
    """Return a span such as ``90s``, ``5m``, ``1.5h`` in seconds.

    Raises
    ------
    LeptonError
        If it has no unit, is shorter than a second or longer than ten years.

    Examples
    --------
    >>> parse_span("5m")
    300.0
    """
    found = _SPAN.match(text.strip().lower())
    if found is None:
        raise LeptonError(f"'{text}' is no span of time. Known units: s, m, h, d, w.", "Type it as 30s, 5m or 1h.")
    span_s = float(found[1]) * UNIT_S[found[2]]
    if not MIN_S <= span_s <= MAX_S:
        raise LeptonError(f"'{text}' is {'too short' if span_s < MIN_S else 'too long'}: from 1s to ten years.")
    return span_s


def check_zone(name: str) -> str:
    """Return the name of a zone if there is one.

    Raises
    ------
    LeptonError
        If there is none; it names the nearest.
    """
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        known = available_timezones()
        same_city = [zone for zone in sorted(known) if zone.lower().endswith(f"/{name.lower()}")]
        near = did_you_mean(same_city[0] if same_city else name, known)
        raise LeptonError(
            f"No time zone '{name}'.{near}", "Zones are IANA names such as Europe/Berlin, America/New_York or UTC."
        ) from error
    return name


def local_zone() -> str:
    """Return the IANA name of this machine's zone; ``UTC`` where it does not say."""
    said = os.environ.get("TZ", "").lstrip(":")
    linked = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    try:
        written = Path("/etc/timezone").read_text().strip()
    except OSError:
        written = ""
    for name in filter(None, (said, linked, written)):
        try:
            return "UTC" if check_zone(name) in UTC_NAMES else name
        except LeptonError:
            continue
    return "UTC"
