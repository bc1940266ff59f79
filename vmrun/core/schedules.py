"""When a pool is up: times of the week, as people write them. Pure."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import UsageError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?P<days>[a-z,-]+)\s+(?P<from>\d{1,2}:\d{2})\s*-\s*(?P<to>\d{1,2}:\d{2})")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*")
_HINT = "such as 'mon-fri 08:00-18:00', 'sat,sun 10:00-12:00; daily 22:00-06:00', 'mon-fri 08:00-18:00 Europe/Rome'"
#: Characters of a schedule, and windows in it.
_LONGEST, _WINDOWS_MAX = 300, 20
#: Windows that follow on one another and are taken for one: a pool that is always up has an end all the same.
_JOINED_MAX = 7


@dataclass(frozen=True, slots=True)
class Window:
    """Minutes of the day, on some days of the week (0 is Monday); `end` may be one of the next day."""

    days: frozenset[int]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Windows in one time zone."""

    windows: tuple[Window, ...]
    zone: dt.tzinfo = dt.UTC

    def current(self, now: float) -> tuple[float, float] | None:
        """From when to when it is up, in seconds since the epoch, if it is at `now`."""
        spans = list(self._spans(now))
        found = next(((begin, end) for begin, end in spans if begin <= now < end), None)
        if found is None:
            return None
        begin, end = found
        for _ in range(_JOINED_MAX):
            longer = max((last for first, last in spans if first <= end < last), default=end)
            if longer == end:
                break
            end = longer
        return begin, end

    def following(self, now: float) -> float:
        """When the next window after `now` begins, in seconds since the epoch."""
        return min(begin for begin, _ in self._spans(now) if begin > now)

    def _spans(self, now: float) -> Iterator[tuple[float, float]]:
        """The windows from yesterday's to those in eight days."""
        today = dt.datetime.fromtimestamp(now, self.zone).date()
        for offset in range(-1, 9):
            day = today + dt.timedelta(days=offset)
            for window in self.windows:
                if day.weekday() in window.days:
                    yield self._at(day, window.begin), self._at(day, window.end)

    def _at(self, day: dt.date, minutes: int) -> float:
        # By the clock on the wall: a day on which it is put forward or back is not 24 hours long.
        days, minutes = divmod(minutes, 24 * 60)
        time = dt.time(minutes // 60, minutes % 60)
        return dt.datetime.combine(day + dt.timedelta(days=days), time, self.zone).timestamp()


def parse_schedule(text: str, what: str = "--schedule") -> Schedule:
    """The schedule that `text` means; UTC where it names no zone. Raises UsageError, naming `what`."""
    if not text.strip() or len(text) > _LONGEST or not text.isascii():
        raise UsageError(f"{what}: {text[:60]!r} is not a schedule", hint=_HINT)
    rest, zone = _zone(text.strip(), what)
    parts = [part.strip().lower() for part in rest.split(";")]
    if len(parts) > _WINDOWS_MAX:
        raise UsageError(f"{what}: {len(parts)} windows are too many", hint=f"at most {_WINDOWS_MAX}")
    return Schedule(tuple(_window(part, what) for part in parts), zone)


def _zone(text: str, what: str) -> tuple[str, dt.tzinfo]:
    rest, _, last = text.rpartition(" ")
    if not rest or not _ZONE.fullmatch(last):
        return text, dt.UTC
    try:
        return rest, zoneinfo.ZoneInfo(last)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"{what}: this computer knows no time zone {last!r}", hint="a name such as Europe/Rome or UTC"
        ) from error


def _window(text: str, what: str) -> Window:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise UsageError(f"{what}: {text[:60]!r} is not days and a span of time", hint=_HINT)
    begin, end = _minutes(found["from"], what), _minutes(found["to"], what)
    if begin in (end, 24 * 60):
        raise UsageError(f"{what}: {text[:60]!r} is no span of time", hint=_HINT)
    return Window(_days(found["days"], what), begin, end if end > begin else end + 24 * 60)


def _minutes(text: str, what: str) -> int:
    hours, _, minutes = text.partition(":")
    whole = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or whole > 24 * 60:
        raise UsageError(f"{what}: {text} is no time of the day", hint="00:00 to 24:00")
    return whole


def _days(text: str, what: str) -> frozenset[int]:
    if text == "daily":
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if first not in _DAYS or last not in _DAYS:
            raise UsageError(f"{what}: {part!r} is no day of the week", hint=f"daily, or of {', '.join(_DAYS)}")
        begin, end = _DAYS.index(first), _DAYS.index(last)
        days |= {day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1)}
    return frozenset(days)
