"""How fast tasks finish, and when the rest will have: from counts seen now and then."""

from __future__ import annotations

from collections import deque

#: Seconds of history that count: long enough to be steady, short enough to follow a change.
WINDOW = 30.0
#: Sightings kept at most.
SIGHTINGS_MAX = 256
#: Seconds apart that sightings are kept.
APART = 0.2


class Pace:
    """Tasks per second over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=SIGHTINGS_MAX)

    def see(self, finished: int, now: float) -> None:
        """Take in that `finished` tasks have ended, at `now` on a monotonic clock."""
        if len(self._seen) > 1 and now - self._seen[-2][0] < APART:
            self._seen[-1] = (now, finished)
        else:
            self._seen.append((now, finished))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Tasks per second; 0 while that cannot be told."""
        if len(self._seen) < 2:
            return 0.0
        (then, before), (now, after) = self._seen[0], self._seen[-1]
        return (after - before) / (now - then) if now > then and after > before else 0.0

    def remaining(self, tasks: int) -> float | None:
        """Seconds until `tasks` more have ended; None while that cannot be told."""
        return tasks / self.rate if self.rate else None
