"""What a task costs its process: CPU time and memory, in system calls of less than a microsecond."""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from .guard import Guard
from .shared import Shared

#: Nanoseconds from which on a task is measured on its own: below, the measuring would take a part of its time.
MEASURED = 1_000_000


class Meter:
    """Measures tasks, and what the tasks of a block took together."""

    def __init__(self, shared: Shared, guard: Guard) -> None:
        self._shared = shared
        self._guard = guard
        self._children = _cpu(resource.RUSAGE_CHILDREN)
        self._user, self._system = _user(), _system()
        self._peak = 0
        guard.forget_peak()

    def measure(self, row: int, spent: float, load: int, keep: int) -> None:
        """Fill the row of a task that began when the process had used `spent` CPU seconds.

        `load` and `keep` are the nanoseconds for its argument and its result.
        """
        shared, before = self._shared, self._children
        self._children = _cpu(resource.RUSAGE_CHILDREN)
        shared.cpu[row] = max(0.0, time.process_time() - spent + self._children - before)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        shared.peak[row] = min(peak, 0xFFFFFFFF)
        shared.load[row], shared.keep[row] = load / 1e9, keep / 1e9
        self._peak = max(self._peak, peak)
        self._guard.forget_peak()

    def facts(self) -> dict[str, Any]:
        """What was used since the last call: CPU seconds, and the most memory, of the process and its children."""
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = self._user, self._system
        self._user, self._system = _user(), _system()
        peak = max(self._peak, own.ru_maxrss, children.ru_maxrss)
        self._peak = 0
        self._guard.forget_peak()
        return {
            "pid": os.getpid(),
            "cpu_seconds": round(self._user - user + self._system - system, 6),
            "user_seconds": round(self._user - user, 6),
            "system_seconds": round(self._system - system, 6),
            "peak_bytes": peak * 1024,
        }


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _user() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def _system() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime + resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime
