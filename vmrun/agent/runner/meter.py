"""What a task costs its process: CPU time and memory, in system calls of less than a microsecond."""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from .guard import Guard, raise_and_close
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
        #: Tasks measured on their own since facts were told, and their CPU seconds.
        self._measured, self._spent = 0, 0.0
        #: The file that tells this process's memory; -1 where there is none.
        self._statm = raise_and_close(_open_statm())
        guard.forget_peak()

    def measure(self, row: int, spent: float, load: int, keep: int) -> None:
        """Fill the row of a task that began when the process had used `spent` CPU seconds.

        `load` and `keep` are the nanoseconds for its argument and its result.
        """
        shared, before = self._shared, self._children
        self._children = _cpu(resource.RUSAGE_CHILDREN)
        cpu = max(0.0, time.process_time() - spent + self._children - before)
        shared.cpu[row] = cpu
        self._measured += 1
        self._spent += cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        shared.peak[row] = min(peak, 0xFFFFFFFF)
        shared.load[row], shared.keep[row] = load / 1e9, keep / 1e9
        self._peak = max(self._peak, peak)
        self._guard.forget_peak()

    def facts(self, tasks: int) -> dict[str, Any]:
        """What was used since the last call, for `tasks` tasks, by the process and its children; its memory now.

        `short_seconds` of CPU time is what the `short_tasks` tasks used that were not measured on their own.
        """
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = self._user, self._system
        self._user, self._system = _user(), _system()
        peak = max(self._peak, own.ru_maxrss, children.ru_maxrss)
        cpu = self._user - user + self._system - system
        short, rest = max(0, tasks - self._measured), max(0.0, cpu - self._spent)
        self._peak, self._measured, self._spent = 0, 0, 0.0
        self._guard.forget_peak()
        return {
            **_memory(self._statm),
            "tasks": tasks,
            "short_tasks": short,
            "short_seconds": round(rest, 6),
            "pid": os.getpid(),
            "cpu_seconds": round(cpu, 6),
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


def _open_statm() -> int:
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return -1


def _memory(statm: int) -> dict[str, int]:
    """Bytes of memory of the process that opened `statm`: resident, of these shared, and virtual."""
    try:
        virtual, resident, shared = os.pread(statm, 128, 0).split()[:3]
    except (OSError, ValueError):
        return {}
    pages = {"rss_bytes": resident, "shared_bytes": shared, "virtual_bytes": virtual}
    return {name: int(number) * resource.getpagesize() for name, number in pages.items()}
