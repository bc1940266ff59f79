from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.errors import UsageError
from vmrun.core.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        (17, 17),
        ("1k", 1000),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("1 MB", 10**6),
        ("1TB", 10**12),
        ("1.5TiB", 3 * 2**39),
        ("  16gb ", 16 * 10**9),
        ("16.1kB", 16_100),
        ("0.1B", 1),
        ("9007199254740993", 2**53 + 1),
        ("1.000000000000001PB", 10**15 + 1),
    ],
)
def test_sizes_as_people_write_them(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "GB", "1 G B", "-1", -1, "1e9", "1,5GB", ".5GB", "1.GB", "1GBs", "nan", "inf", "0x10", True, "1" * 41],
)
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text, "memory")

    assert caught.value.message.startswith("memory: ")
    assert caught.value.hint


@given(
    number=st.decimals(min_value=0, max_value=10**6, places=3),
    unit=st.sampled_from([("", 1), ("k", 1000), ("M", 10**6), ("GiB", 2**30), ("TiB", 2**40), ("PB", 10**15)]),
)
def test_a_size_is_exact_and_never_too_small(number: Decimal, unit: tuple[str, int]) -> None:
    assert parse_size(f"{number}{unit[0]}") == int((number * unit[1]).to_integral_value(ROUND_CEILING))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        (90, 90.0),
        (1.5, 1.5),
        ("90s", 90.0),
        ("250ms", 0.25),
        ("10m", 600.0),
        ("2h30m", 9000.0),
        ("2h 30m", 9000.0),
        ("1.5h", 5400.0),
        ("1d", 86400.0),
        ("1w", 604800.0),
        ("1M", 60.0),
    ],
)
def test_durations_as_people_write_them(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "m", "-5", -5, "5 minutes", "1h-30m", "1h,30m", "nan", float("nan"), float("inf"), 10**400, True, "1" * 41],
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text, "keep-warm")

    assert caught.value.message.startswith("keep-warm: ")
    assert caught.value.hint


@given(st.text(max_size=50))
def test_any_text_is_a_value_or_a_usage_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except UsageError:
            pass


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_024_000_000_000, "1.02 TB"), (999_600, "1 MB"), (5e15, "5e+03 TB")],
)
def test_sizes_are_shown_with_three_digits(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (1.44, "1.4s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (200, "3m 20s"),
        (3599.6, "1h 00m"),
        (7500, "2h 05m"),
        (90_000, "1d 01h"),
    ],
)
def test_durations_are_shown_with_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
