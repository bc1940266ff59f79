"""When what there is for the agent is sent: at once, or together with what comes next. A pure decision.

Each time the agent is woken costs what a task of microseconds costs. With many workers at long tasks, one of them ends
every few milliseconds, and nobody misses its outcome for a small part of the time that it took.
"""

from __future__ import annotations

import math

#: An outcome waits for others for at most so much of the time that its task took, and so many seconds at most.
PART, LONGEST = 0.02, 0.05
#: The shortest wait that is worth it, in seconds.
SHORTEST = 0.001
#: Bytes that may wait.
BYTES_MAX = 64 * 1024


def hold_of(seconds: float) -> float:
    """Seconds for which the outcome of a task may wait that took `seconds`; 0.0: it is sent at once."""
    hold = min(LONGEST, seconds * PART)
    return hold if hold >= SHORTEST else 0.0


class Batching:
    """Holds back what is to be sent. Times are monotonic."""

    def __init__(self) -> None:
        #: Since when something waits for more; infinite: nothing does.
        self._since = math.inf
        self._hold = 0.0

    @property
    def waits(self) -> bool:
        """Whether something waits for more."""
        return self._since < math.inf

    @property
    def due(self) -> float:
        """When what waits is to be sent though nothing else comes; infinite if nothing waits."""
        return self._since + self._hold

    def holds(self, pending: int, hold: float, now: float) -> bool:
        """Whether `pending` bytes wait for more, of which the last may for `hold` seconds."""
        if not hold or not 0 < pending <= BYTES_MAX:
            self._since = math.inf
            return False
        self._since, self._hold = min(self._since, now), hold
        # What comes in the second half takes the others along, so that nobody need wake for those alone.
        if now - self._since < hold / 2:
            return True
        self._since = math.inf
        return False
