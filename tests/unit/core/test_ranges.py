from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.ranges import Range, RangeSet

SPANS = st.tuples(st.integers(0, 60), st.integers(-3, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def numbers(ranges: object) -> set[int]:
    return {number for first, end in ranges for number in range(first, end)}  # type: ignore[attr-defined]


@given(st.lists(SPANS, max_size=20))
def test_it_is_a_set_of_integers(spans: list[Range]) -> None:
    model: set[int] = set()
    ranges = RangeSet()
    for first, end in spans:
        fresh = ranges.add(first, end)

        assert numbers(fresh) == set(range(first, end)) - model
        assert sum(b - a for a, b in fresh) == len(numbers(fresh))
        model |= set(range(first, end))
        assert numbers(ranges) == model
        assert len(ranges) == len(model)
        check_shape(list(ranges))
    assert ranges == RangeSet(spans) == RangeSet(reversed(spans))
    assert all((number in ranges) == (number in model) for number in range(-5, 80))


@given(st.lists(SPANS, max_size=12), SPANS)
def test_missing_and_covered_agree_with_the_set(spans: list[Range], span: Range) -> None:
    ranges, asked = RangeSet(spans), set(range(*span))

    gaps = ranges.missing(*span)

    assert numbers(gaps) == asked - numbers(ranges)
    assert ranges.covered(*span) == len(asked & numbers(ranges))
    check_shape(gaps)


def check_shape(ranges: list[Range]) -> None:
    """Sorted, not empty, neither overlapping nor touching."""
    assert all(first < end for first, end in ranges)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ranges))


def test_a_million_numbers_in_order_are_one_pair() -> None:
    ranges = RangeSet()
    for first in range(0, 1_000_000, 1000):
        ranges.add(first, first + 1000)

    assert list(ranges) == [(0, 1_000_000)]
    assert repr(ranges) == "RangeSet([(0, 1000000)])"
    assert ranges != [(0, 1_000_000)]
