"""Sets of task numbers, kept as ranges: a million tasks that finished in order are one pair."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

#: Half open: (first, end).
Range = tuple[int, int]


class RangeSet:
    """A set of integers as sorted, disjoint, non-touching half-open ranges."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._total = 0
        for first, end in ranges:
            self.add(first, end)

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[Range]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    __hash__ = None  # type: ignore[assignment]

    def add(self, first: int, end: int) -> list[Range]:
        """Add `first` up to, not including, `end`; the parts that were not in the set before."""
        fresh = self.missing(first, end)
        if not fresh:
            return fresh
        low = bisect_left(self._ends, first)
        high = bisect_right(self._starts, end)
        if low < high:
            first = min(first, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [first]
        self._ends[low:high] = [end]
        self._total += sum(b - a for a, b in fresh)
        return fresh

    def missing(self, first: int, end: int) -> list[Range]:
        """The parts of `first`..`end` that are not in the set, in order."""
        gaps: list[Range] = []
        at = bisect_right(self._ends, first)
        while first < end:
            start = self._starts[at] if at < len(self._starts) else end
            if first < start:
                gaps.append((first, min(start, end)))
            if at >= len(self._starts) or start >= end:
                break
            first = max(first, self._ends[at])
            at += 1
        return gaps

    def covered(self, first: int, end: int) -> int:
        """How many of `first`..`end` are in the set."""
        return max(0, end - first) - sum(b - a for a, b in self.missing(first, end))
