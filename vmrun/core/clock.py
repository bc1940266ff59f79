"""Time, sleep and randomness as things that are handed in.

Nothing else in vmrun reads a clock, sleeps or draws a random number by itself: a test or a simulation hands
in its own, and every wait is a call that can be seen.
"""

from __future__ import annotations

import random
import time
from typing import Protocol

#: Seconds that the clocks of two computers may differ before anything follows from it.
CLOCK_GOOD = 30.0


class Clock(Protocol):
    """A machine's sense of time."""

    def now(self) -> float:
        """Seconds since the epoch: for people and absolute deadlines, never compared with another machine's."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back: for every duration and timeout."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let at least `seconds` pass."""
        ...


class SystemClock:
    """The real one."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class CorrectedClock:
    """Another clock, whose time of day is known to be off by so much."""

    def __init__(self, clock: Clock) -> None:
        self.inner = clock
        #: Seconds that the other one is ahead.
        self.ahead = 0.0

    def now(self) -> float:
        """Seconds since the epoch, corrected."""
        return self.inner.now() - self.ahead

    def monotonic(self) -> float:
        """As the other one."""
        return self.inner.monotonic()

    def sleep(self, seconds: float) -> None:
        """As the other one."""
        self.inner.sleep(seconds)


class Rng(Protocol):
    """Where nonces, ids and jitter come from; `random.Random` fits."""

    def getrandbits(self, k: int, /) -> int:
        """A uniform integer of `k` bits."""
        ...

    def uniform(self, a: float, b: float) -> float:
        """A float between `a` and `b`."""
        ...


def system_rng() -> Rng:
    """The operating system's randomness, fit for ids that must never collide."""
    return random.SystemRandom()


def backoff(attempt: int, rng: Rng, *, base: float = 0.05, cap: float = 5.0) -> float:
    """Seconds to wait before retry number `attempt` (from 0): exponential, capped, with full jitter."""
    return rng.uniform(0, min(cap, base * (1 << min(attempt, 20))))
