"""The affinity of workers: one that is idle waits on a core of its own, if there is one for each.

Whoever is woken stays where it slept unless the kernel finds an idle core for it at once. On small machines it often
does not look: workers that slept on the same core then take turns for some milliseconds while another core is idle.
A worker that has tasks may be moved to any core, as always.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Collection

#: Milliseconds without work after which a worker goes to its own core: between two chunks it stays where it is.
IDLE = 10
#: As they are before user code may change what they do.
_look, _move = os.sched_getaffinity, os.sched_setaffinity


def home_core(number: int, workers: int, cores: Collection[int]) -> int:
    """The core of worker `number`, counted from 0, of so many; -1 if there is not just one for each."""
    return sorted(cores)[number] if number >= 0 and workers == len(cores) else -1


class HomeCore:
    """Waits for what comes in on descriptor `fd`, on core number `core`; -1: wherever."""

    def __init__(self, fd: int, core: int) -> None:
        self._core = core
        #: What it may use. Whoever has it use others has decided that, and is left alone.
        self._cores = _look(0)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def wait(self) -> None:
        """Where there is such a core, return once there is something to read, or never will be; else at once.

        The calling thread may use all cores again afterwards, unless somebody else has moved it meanwhile.
        """
        if self._core < 0 or self._poll.poll(IDLE) or _look(0) != self._cores:
            return
        try:
            _move(0, {self._core})
        except OSError:  # the machine's owner has taken the core away
            self._core = -1
            return
        try:
            self._poll.poll()
        finally:
            if _look(0) == {self._core}:
                with contextlib.suppress(OSError):
                    _move(0, self._cores)
