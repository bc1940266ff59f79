"""The guardian's judgements, pure: when a machine must end, and when its agent may be started again."""

from __future__ import annotations

import re

#: Plain decimal seconds since the epoch; `inf`, `nan`, signs and exponents are not.
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


def seconds(text: str | None) -> float | None:
    """The moment that a control file names; None when it names none."""
    stripped = text.strip() if text is not None else ""
    return float(stripped) if _SECONDS.fullmatch(stripped) else None


def must_end(now: float, *, hard: str | None, lease: str | None, latest: float) -> str:
    """Why the machine must end now; empty while it may live.

    `hard` and `lease` are the contents of the control files, None when unreadable: then the machine ends.
    `latest` is the hard deadline that was fixed at creation; the file may only shorten it.
    """
    hard_deadline, leased = seconds(hard), seconds(lease)
    if hard_deadline is None:
        return "no hard deadline"
    if now >= min(hard_deadline, latest):
        return "maximum lifetime reached"
    if leased is None:
        return "no lease"
    if now >= leased:
        return "lease expired"
    return ""


class Restarts:
    """How often a failing agent is started again."""

    #: More failures than this within the window, and the machine ends.
    LIMIT = 20
    #: Seconds.
    WINDOW = 600.0
    #: Seconds before the first restart; doubles with every failure in the window.
    FIRST_DELAY, LONGEST_DELAY = 0.05, 5.0

    def __init__(self) -> None:
        self._failures: list[float] = []

    def after_failure(self, now: float) -> float | None:
        """The moment at which to start the agent again, or None when it has failed too often.

        `now` and the answer are seconds on one monotonic clock.
        """
        self._failures = [at for at in self._failures if now - at < self.WINDOW] + [now]
        if len(self._failures) > self.LIMIT:
            return None
        return now + float(min(self.LONGEST_DELAY, self.FIRST_DELAY * 2 ** (len(self._failures) - 1)))
