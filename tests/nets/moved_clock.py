"""This computer's clock, put forward by hand: for passes of a reaper that would be minutes apart."""

from __future__ import annotations

from vmrun.core.clock import SystemClock


class MovedClock(SystemClock):
    """Whoever has it waits as ever, and finds that more time has passed meanwhile."""

    def __init__(self) -> None:
        #: Seconds.
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead
