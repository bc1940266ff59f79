"""Times of the week: what people write, and whether it is such a time."""

from __future__ import annotations

import datetime as dt

import pytest

from vmrun.core.errors import UsageError
from vmrun.core.schedules import parse_schedule

HOUR, DAY = 3600.0, 86400.0


def at(text: str) -> float:
    """Seconds since the epoch of a time in UTC."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


#: A Thursday.
THURSDAY = "2026-11-26"


@pytest.mark.parametrize(
    ("schedule", "now", "span"),
    [
        ("mon-fri 08:00-18:00", f"{THURSDAY} 08:00", ("2026-11-26 08:00", "2026-11-26 18:00")),
        ("mon-fri 08:00-18:00", f"{THURSDAY} 17:59", ("2026-11-26 08:00", "2026-11-26 18:00")),
        ("mon-fri 08:00-18:00", f"{THURSDAY} 18:00", None),
        ("mon-fri 08:00-18:00", "2026-11-28 12:00", None),
        ("mon-fri 08:00-18:00 UTC", f"{THURSDAY} 12:00", ("2026-11-26 08:00", "2026-11-26 18:00")),
        ("MON-FRI 8:00 - 18:00 Europe/Rome", f"{THURSDAY} 07:00", ("2026-11-26 07:00", "2026-11-26 17:00")),
        ("mon-fri 08:00-18:00 Europe/Rome", "2026-07-01 06:00", ("2026-07-01 06:00", "2026-07-01 16:00")),
        ("daily 22:00-06:00", f"{THURSDAY} 01:00", ("2026-11-25 22:00", "2026-11-26 06:00")),
        ("thu 22:00-06:00", "2026-11-27 05:59", ("2026-11-26 22:00", "2026-11-27 06:00")),
        ("thu 22:00-06:00", f"{THURSDAY} 05:59", None),
        ("sat,sun 10:00-12:00; thu 01:00-02:00", f"{THURSDAY} 01:30", ("2026-11-26 01:00", "2026-11-26 02:00")),
        ("sat-mon 10:00-12:00", "2026-11-30 11:00", ("2026-11-30 10:00", "2026-11-30 12:00")),
        ("thu 08:00-12:00; thu 12:00-13:00", f"{THURSDAY} 09:00", ("2026-11-26 08:00", "2026-11-26 13:00")),
        # What never ends has an end all the same, which moves once a day.
        ("daily 00:00-24:00", f"{THURSDAY} 09:00", ("2026-11-26 00:00", "2026-12-04 00:00")),
        ("daily 00:00-24:00", f"{THURSDAY} 23:00", ("2026-11-26 00:00", "2026-12-04 00:00")),
    ],
)
def test_it_is_such_a_time_or_not(schedule: str, now: str, span: tuple[str, str] | None) -> None:
    found = parse_schedule(schedule).current(at(now))
    assert found == (span and (at(span[0]), at(span[1])))


@pytest.mark.parametrize(
    ("schedule", "now", "begin"),
    [
        ("mon-fri 08:00-18:00", f"{THURSDAY} 18:00", "2026-11-27 08:00"),
        ("mon-fri 08:00-18:00", f"{THURSDAY} 08:00", "2026-11-27 08:00"),
        ("mon-fri 08:00-18:00", "2026-11-27 18:00", "2026-11-30 08:00"),
        ("thu 08:00-18:00", f"{THURSDAY} 08:00", "2026-12-03 08:00"),
    ],
)
def test_when_the_next_one_begins(schedule: str, now: str, begin: str) -> None:
    assert parse_schedule(schedule).following(at(now)) == at(begin)


def test_the_clock_on_the_wall_counts_on_a_day_that_is_shorter() -> None:
    # The clocks of Rome are put forward by an hour at 02:00 of this Sunday.
    begin, end = parse_schedule("sun 00:00-12:00 Europe/Rome").current(at("2026-03-29 05:00")) or (0.0, 0.0)
    assert end - begin == 11 * HOUR


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "x" * 400, "mon", "08:00-18:00", "mon-fri", "noday 08:00-18:00", "mon- 08:00-18:00"),
        *("mon-fri 08:00", "mon-fri 8-18", "mon 25:00-26:00", "mon 08:60-09:00", "mon 08:00-08:00", "mon 24:00-01:00"),
        *("mon 08:00-18:00 Nowhere/Atall", "mon 08:00-18:00;", "mön 08:00-18:00", "mon 08:00-18:00 ../etc/passwd"),
        "; ".join(["mon 08:00-18:00"] * 21),
    ],
)
def test_what_is_no_schedule_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--schedule") as caught:
        parse_schedule(text)
    assert caught.value.hint
