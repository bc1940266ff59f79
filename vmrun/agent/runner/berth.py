"""Where a worker waits: on a core of its own, if there is one for each.

Whoever is woken stays where it slept unless the kernel finds an idle core for it at once. On small machines it often
does not look: workers that slept on the same core then take turns for some milliseconds while another core is idle.
A worker that has tasks may be moved to any core, as always.
"""

from __future__ import annotations

import os
import select
from collections.abc import Collection

#: Milliseconds without work after which a worker goes to its own core: between two chunks it stays where it is.
IDLE = 10
#: As it is before user code may change what it does.
_move = os.sched_setaffinity


def own_core(number: int, workers: int, cores: Collection[int]) -> int:
    """The core of worker `number`, counted from 0, of so many; -1 if there is not just one for each."""
    return sorted(cores)[number] if number >= 0 and workers == len(cores) else -1


class Berth:
    """Waits for what comes in on descriptor `fd`, on core number `core`; -1: wherever."""

    def __init__(self, fd: int, core: int) -> None:
        self._core = core
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def wait(self) -> None:
        """Where there is such a core, return once there is something to read, or never will be; else at once.

        This process may use the same cores afterwards as before.
        """
        if self._core < 0 or self._poll.poll(IDLE):
            return
        allowed = os.sched_getaffinity(0)
        try:
            _move(0, {self._core})
        except OSError:  # the machine's owner has taken the core away
            self._core = -1
            return
        try:
            self._poll.poll()
        finally:
            _move(0, allowed)
