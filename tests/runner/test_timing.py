"""When something is due: intervals, cron, and the two days a year on which clocks move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.runner.timing import Timing, check_zone, local_zone, parse_every, parse_span

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
CHANGES = [  # zone, the day on which clocks go forward, back, and the hour at which they do
    (BERLIN, datetime(2026, 3, 29), datetime(2026, 10, 25), 2),
    (NEW_YORK, datetime(2026, 3, 8), datetime(2026, 11, 1), 1),
]
FORWARD = [(zone, forward) for zone, forward, _, _ in CHANGES]
BACK = [(zone, back, hour) for zone, _, back, hour in CHANGES]


def at(text: str, zone: str = "UTC") -> float:
    """Return the seconds since 1970 of a wall clock's time, the first where it comes twice."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def due_on(every: str, zone: str, day: datetime) -> list[datetime]:
    """Return the due times on a local day, as local times."""
    start, end = (moment.replace(tzinfo=ZoneInfo(zone)).timestamp() for moment in (day, day + timedelta(days=1)))
    timing, found, now = parse_every(every, zone, start), [], start - 1
    while (now := timing.next_after(now, start)) < end:
        found.append(datetime.fromtimestamp(now, ZoneInfo(zone)))
    return found


def shown(times: list[datetime]) -> list[str]:
    """Return times as a clock shows them."""
    return [f"{time:%H:%M}" for time in times]


def minutes_of(zone: str, day: datetime) -> list[datetime]:
    """Return every minute that a local day has, one after the other."""
    start, end = (moment.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for moment in (day, day + timedelta(days=1)))
    n_minutes = int((end - start).total_seconds() // 60)
    return [(start + timedelta(minutes=index)).astimezone(ZoneInfo(zone)) for index in range(n_minutes)]


def test_an_interval_is_counted_from_its_definition_and_never_drifts() -> None:
    timing = parse_every("5m", "UTC", 0.0)
    assert timing.next_after(1000.25, 1000.25) == 1300.25
    assert timing.next_after(1300.25, 1000.25) == 1600.25
    assert timing.next_after(1299.0, 1000.25) == 1300.25
    assert timing.next_after(500.0, 1000.25) == 1300.25, "a clock that was set back does not fire at once"


@pytest.mark.parametrize("anchor_at", [0.1, 1_763_945_000.123457, 1_763_945_000.9999999])
def test_an_interval_s_due_times_are_strictly_one_after_the_other(anchor_at: float) -> None:
    timing = parse_every("1.1s", "UTC", anchor_at)
    now = anchor_at
    for index in range(1, 2000):
        later = timing.next_after(now, anchor_at)
        assert later > now
        assert later == pytest.approx(anchor_at + index * 1.1, abs=1e-4)
        now = later


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("1d", 86_400), ("2 w", 1_209_600)]
)
def test_spans_have_units(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


def test_nicknames_are_read_in_the_zone() -> None:
    now = at("2026-06-10 12:30", BERLIN)
    expected = {
        "hourly": "2026-06-10 13:00",
        "@daily": "2026-06-11 00:00",
        "Weekly": "2026-06-14 00:00",
        "monthly": "2026-07-01 00:00",
    }
    for text, due in expected.items():
        assert parse_every(text, BERLIN, now).next_after(now, now) == at(due, BERLIN), text


def test_a_cron_expression_takes_names_and_lists() -> None:
    now = at("2026-06-10 12:30", BERLIN)
    assert parse_every("0 7 * * mon", BERLIN, now).next_after(now, now) == at("2026-06-15 07:00", BERLIN)
    assert parse_every("15,45 9-17 * * MON-FRI", BERLIN, now).next_after(now, now) == at("2026-06-10 12:45", BERLIN)


@pytest.mark.parametrize(
    ("text", "tz", "says"),
    [
        ("61 * * * *", "UTC", "no cron expression, or never fires"),
        ("0 0 30 2 *", "UTC", "never fires"),
        ("0 0 31 4,6 *", "UTC", "never fires"),
        ("0 7 * *", "UTC", "no interval, no nickname and no cron expression"),
        ("*/5 * * * * *", "UTC", "six fields"),
        ("dayly", "UTC", "Did you mean 'daily'"),
        ("", "UTC", "no interval"),
        ("5", "UTC", "no interval"),
        ("-5m", "UTC", "no interval"),
        ("0s", "UTC", "too short"),
        ("0.5s", "UTC", "too short"),
        ("99999w", "UTC", "too long"),
        ("5m", "Europe/Berln", "Did you mean 'Europe/Berlin'"),
        ("5m", "Berlin", "Did you mean 'Europe/Berlin'"),
        ("5m", "../etc/passwd", "No time zone"),
        ("5m", "Europe", "No time zone"),
    ],
)
def test_what_is_no_timing_is_refused_with_the_known_choices(text: str, tz: str, says: str) -> None:
    with pytest.raises(LeptonError, match=says):
        parse_every(text, tz, at("2026-06-10 12:30"))


def test_a_span_without_a_unit_is_refused() -> None:
    with pytest.raises(LeptonError, match="Known units: s, m, h, d, w"):
        parse_span("10")


def test_a_leap_day_is_waited_for() -> None:
    now = at("2026-06-10 12:30")
    assert parse_every("0 0 29 2 *", "UTC", now).next_after(now, now) == at("2028-02-29 00:00")


def test_this_machine_has_a_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_zone(local_zone())
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    assert local_zone() == "Asia/Shanghai"
    assert parse_every("daily", None, 0.0).tz == "Asia/Shanghai"
    monkeypatch.setenv("TZ", "CEST-nonsense/x")
    assert check_zone(local_zone())


# -- the days on which clocks move


@pytest.mark.parametrize(("zone", "day"), [*FORWARD, *[(zone, back) for zone, back, _ in BACK]])
@pytest.mark.parametrize("every", ["30 1 * * *", "30 2 * * *", "0 3 * * *", "0 0 * * *", "59 23 * * *"])
def test_a_daily_time_fires_once_on_the_days_on_which_clocks_move(every: str, zone: str, day: datetime) -> None:
    assert len(due_on(every, zone, day)) == 1


@pytest.mark.parametrize(("zone", "day"), FORWARD)
def test_a_time_that_the_change_leaves_out_fires_right_after_it(zone: str, day: datetime) -> None:
    assert shown(due_on("30 2 * * *", zone, day)) == ["03:00"]
    assert shown(due_on("30 2,3 * * *", zone, day)) == ["03:00", "03:30"]
    assert shown(due_on("30 2 * * *", zone, day + timedelta(days=1))) == ["02:30"]


@pytest.mark.parametrize(("zone", "day", "hour"), BACK)
def test_a_time_that_comes_twice_fires_the_first_time(zone: str, day: datetime, hour: int) -> None:
    found = due_on(f"30 {hour} * * *", zone, day)
    assert shown(found) == [f"0{hour}:30"]
    assert found[0].fold == 0
    second = found[0].timestamp() + 1800  # defined between the two: the next one is tomorrow's
    timing = parse_every(f"30 {hour} * * *", zone, second)
    assert timing.next_after(second, second) - found[0].timestamp() == 25 * 3600


@pytest.mark.parametrize(("zone", "day"), [*FORWARD, *[(zone, back) for zone, back, _ in BACK]])
@pytest.mark.parametrize(("every", "minutes"), [("* * * * *", 1), ("*/15 * * * *", 15), ("hourly", 60)])
def test_what_repeats_within_the_hour_goes_on_over_a_change(every: str, minutes: int, zone: str, day: datetime) -> None:
    expected = [time for time in minutes_of(zone, day) if time.minute % minutes == 0]
    assert [time.timestamp() for time in due_on(every, zone, day)] == [time.timestamp() for time in expected]


@pytest.mark.parametrize(("zone", "day"), [*FORWARD, *[(zone, back) for zone, back, _ in BACK]])
def test_an_interval_does_not_see_a_change(zone: str, day: datetime) -> None:
    times = [time.timestamp() for time in due_on("1h", zone, day)]
    assert {later - earlier for earlier, later in pairwise(times)} == {3600.0}
    assert len(times) in (22, 23, 24, 25)


@pytest.mark.parametrize(("zone", "day"), [*FORWARD, *[(zone, back) for zone, back, _ in BACK]])
@pytest.mark.parametrize("every", ["30 2 * * *", "*/10 * * * *", "daily", "17m"])
def test_what_was_missed_over_a_change_is_what_would_have_fired(every: str, zone: str, day: datetime) -> None:
    start = (day - timedelta(days=1)).replace(tzinfo=ZoneInfo(zone)).timestamp()
    timing, expected, now = parse_every(every, zone, start), [], start
    end = start + 3 * 86_400.0
    while (now := timing.next_after(now, start)) <= end:
        expected.append(now)
    times, n_times = timing.passed(expected[0], now=end, anchor_at=start, limit=50)
    assert n_times == len(expected)
    assert times == pytest.approx(expected[-50:])


def test_a_month_of_seconds_is_counted_at_once() -> None:
    timing = Timing("1s", "UTC", period_s=1.0)
    times, n_times = timing.passed(100.0, now=100.0 + 2_600_000.5, anchor_at=0.0, limit=1000)
    assert (len(times), n_times, times[-1]) == (1000, 2_600_001, 2_600_100.0)
