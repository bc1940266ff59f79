"""What a task costs its process: CPU time and memory, in system calls of less than a microsecond."""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from .guard import RESTLESS, Guard, raise_and_close
from .shared import Shared

#: Nanoseconds from which on a task is measured on its own: below, the measuring would take a part of its time.
MEASURED = 1_000_000
#: KiB by which a task's peak may be told too high because an earlier one's was.
PEAK_SLACK = 256


class Meter:
    """Measures tasks, and what the tasks of a block took together."""

    def __init__(self, shared: Shared, guard: Guard) -> None:
        self._shared = shared
        self._guard = guard
        self._children = _cpu(resource.RUSAGE_CHILDREN)
        self._user, self._system = _user(), _system()
        self._peak = 0
        #: CPU seconds of the process when the last task that was measured had ended; negative: others ran since.
        self._reached = -1.0
        #: Tasks measured on their own since facts were told, and their CPU seconds.
        self._measured, self._spent = 0, 0.0
        #: The file that tells this process's memory; -1 where there is none.
        self._statm = raise_and_close(_open_statm())
        #: KiB that the process had when its peak last started anew.
        self._floor = 0
        self._forget_peak()

    def begin(self) -> float:
        """CPU seconds of the process before the next task. What comes between two measured tasks is the second's."""
        reached, self._reached = self._reached, -1.0
        return reached if reached >= 0 else time.process_time()

    def measure(self, row: int, spent: float, load: int, keep: int) -> None:
        """Fill the row of a task that began when the process had used `spent` CPU seconds.

        `load` and `keep` are the nanoseconds for its argument and its result. Each system call costs tens of
        microseconds after a task that had the caches for itself, so there is one, and more only after a task that
        started processes, or whose memory grew. (Processes that C code starts unseen count in the block's facts.)
        """
        shared, usage = self._shared, resource.getrusage(resource.RUSAGE_SELF)
        self._reached = usage.ru_utime + usage.ru_stime
        cpu = self._reached - spent
        if self._guard.unrest[0] == RESTLESS:
            before, self._children = self._children, _cpu(resource.RUSAGE_CHILDREN)
            cpu += self._children - before
        shared.cpu[row] = cpu = max(0.0, cpu)
        self._measured += 1
        self._spent += cpu
        peak = usage.ru_maxrss
        shared.peak[row] = min(peak, 0xFFFFFFFF)
        shared.load[row], shared.keep[row] = load / 1e9, keep / 1e9
        self._peak = max(self._peak, peak)
        if peak > self._floor + PEAK_SLACK:
            self._forget_peak()

    def _forget_peak(self) -> None:
        """Have the next task's peak be its own."""
        self._guard.forget_peak()
        self._floor = _memory(self._statm).get("rss_bytes", 0) // 1024

    def facts(self, tasks: int) -> dict[str, Any]:
        """What was used since the last call, for `tasks` tasks, by the process and its children; its memory now.

        `short_seconds` of CPU time is what the `short_tasks` tasks used that were not measured on their own.
        """
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = self._user, self._system
        self._user, self._system = own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime
        peak = max(self._peak, own.ru_maxrss, children.ru_maxrss)
        cpu = self._user - user + self._system - system
        short, rest = max(0, tasks - self._measured), max(0.0, cpu - self._spent)
        self._peak, self._measured, self._spent = 0, 0, 0.0
        self._children, self._reached = children.ru_utime + children.ru_stime, -1.0
        if own.ru_maxrss > self._floor + PEAK_SLACK:
            self._forget_peak()
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
