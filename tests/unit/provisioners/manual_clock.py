"""A clock that moves when it is told to."""

from __future__ import annotations


class ManualClock:
    """Starts in 2026; sleeping is moving it."""

    def __init__(self, now: float = 1_780_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self._now += seconds
