"""Sizes, durations and money the way people write them: `1TB`, `1.5TiB`, `90m`, `2h30m`."""

from __future__ import annotations

import re

from .errors import UsageError

#: ASCII: else an old form of the letter s would match, and be no unit of ours.
_FLAGS = re.IGNORECASE | re.ASCII
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)(b?)", _FLAGS)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", _FLAGS)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
#: No size or duration that a person means is longer than this many characters.
_LONGEST = 40
_MOST_SECONDS = 1e15


def parse_size(text: str | int, what: str = "size") -> int:
    """Bytes. `k/M/G/T/P` are powers of 1000, with `i` of 1024; a bare number is bytes. Raises UsageError."""
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise UsageError(f"{what}: {text} is negative", hint="write a size such as 16GB")
        return text
    match = _SIZE.fullmatch(str(text).strip()) if len(str(text)) <= _LONGEST else None
    if match is None:
        raise UsageError(
            f"{what}: {str(text)[:_LONGEST]!r} is not a size",
            hint="write a number and a unit, such as 512MB, 16GB, 1.5TiB",
        )
    number, prefix, binary, _ = match.groups()
    whole, _, fraction = number.partition(".")
    # In integers: `16.1kB` in floating point is 16100.000000000002 bytes, and would be one too many.
    scaled: int = int(whole + fraction) * (1024 if binary else 1000) ** _POWERS[prefix.lower()]
    parts: int = 10 ** len(fraction)
    return -(-scaled // parts)


def parse_duration(text: str | float, what: str = "duration") -> float:
    """Seconds. Parts add up (`1h30m`); a bare number is seconds. Raises UsageError."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        # False for NaN too; the upper limit keeps a whole number of any length from overflowing a float.
        if not 0 <= text <= _MOST_SECONDS:
            raise UsageError(f"{what}: {text} is not a duration", hint="write a duration such as 90s or 2h30m")
        return float(text)
    compact = str(text).strip()
    if len(compact) <= _LONGEST:
        if re.fullmatch(r"\d+(?:\.\d+)?", compact):
            return float(compact)
        parts = _DURATION_PART.findall(compact)
        if parts and re.fullmatch(rf"(?:{_DURATION_PART.pattern}\s*)+", compact, _FLAGS):
            return sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    raise UsageError(
        f"{what}: {compact[:_LONGEST]!r} is not a duration",
        hint="write numbers with units, such as 90s, 10m, 2h30m, 1d",
    )


def parse_money(text: str | float, what: str = "money") -> float:
    """US dollars: `25`, `2.50`, `$25`. Raises UsageError."""
    compact = str(text).strip().removeprefix("$")
    if len(compact) <= _LONGEST and re.fullmatch(r"\d{1,9}(\.\d{1,12})?", compact, re.ASCII):
        return float(compact)
    raise UsageError(f"{what}: {str(text)[:_LONGEST]!r} is no amount of dollars", hint="write it as 25, 2.50 or $25")


def format_size(size: float) -> str:
    """Three significant digits and a decimal unit: `1.02 TB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError


def format_duration(seconds: float) -> str:
    """The two largest units: `2h 05m`, `3m 20s`, `1.4s`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"
