"""What a measurement amounts to: medians, ratios of paired runs, shares of the ideal, and whether a target is met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")

#: What the last column of a table says.
PASS, FAIL, UNMEASURED = "PASS", "FAIL", "not measured"


@dataclass(frozen=True)
class Target:
    """What a figure has to be. Targets are those of the project, not what happens to be measured today."""

    figure: str
    sense: Literal["at least", "at most"]
    limit: float
    unit: str
    what: str

    def met(self, value: float) -> bool:
        """Whether `value` is good enough; the limit itself is, and what is not a number never is."""
        return value >= self.limit if self.sense == "at least" else value <= self.limit


@dataclass(frozen=True)
class Figure:
    """One measured number; `note` says what a reader must know of how it came about."""

    name: str
    value: float
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """A target, and what was measured for it."""

    target: Target
    figure: Figure | None

    @property
    def verdict(self) -> str:
        """PASS, FAIL, or that nothing was measured."""
        if self.figure is None:
            return UNMEASURED
        return PASS if self.target.met(self.figure.value) else FAIL


def judge(targets: Sequence[Target], figures: Iterable[Figure]) -> list[Judgement]:
    """Each target with its figure. Raises ValueError for a figure that was measured twice."""
    found: dict[str, Figure] = {}
    for figure in figures:
        if figure.name in found:
            raise ValueError(f"figure {figure.name} was measured twice")
        found[figure.name] = figure
    return [Judgement(target, found.get(target.figure)) for target in targets]


def rotated(items: Sequence[T], number: int) -> list[T]:
    """The items in the order of round `number`: each comes first in turn, and every other round runs backwards."""
    at = number % len(items)
    turned = [*items[at:], *items[:at]]
    return turned if number % 2 == 0 else turned[::-1]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round. Raises ValueError when the rounds do not match or there are none."""
    if not ours:
        raise ValueError("there are no rounds to compare")
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(ratios(ours, theirs))


def share_of_ideal(cpu_seconds: float, cores: int, makespan: float, stolen: float = 0.0) -> float:
    """How much of the time of all cores went into the tasks themselves; 1 is perfect.

    `stolen` seconds of all cores were not there to be used.
    """
    return cpu_seconds / (cores * makespan - stolen)


def lower_bound(seconds: Sequence[float], cores: int) -> float:
    """No schedule of tasks with these times ends sooner."""
    return max(sum(seconds) / cores, *seconds)


def peak_together(samples: Sequence[dict[int, int]], pids: Iterable[int] | None = None) -> int:
    """The most bytes that some processes had at one moment; all that were seen when `pids` is None.

    A sample has the bytes of each process at that moment.
    """
    wanted = None if pids is None else set(pids)
    sums = [sum(size for pid, size in sample.items() if wanted is None or pid in wanted) for sample in samples]
    return max(sums, default=0)
