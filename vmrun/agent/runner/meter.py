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
#: Seconds of a block from which on the machine's traffic meanwhile is looked up, which takes 10 to 200 µs.
TRAFFIC_LEAST = 0.3
#: The part of a block's time that finding out which memory is the process's alone may take, the seconds that it takes
#: at least, and the bytes of memory that it gets through in a second.
PRIVATE_PART, PRIVATE_LEAST, PRIVATE_RATE = 0.002, 0.0001, 8e9


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
        self._statm = raise_and_close(_open("/proc/self/statm"))
        #: Likewise for what of it is the process's alone, and for the machine's traffic.
        self._rollup = raise_and_close(_open("/proc/self/smaps_rollup"))
        self._interfaces = raise_and_close(_open("/proc/net/dev"))
        #: When the block began whose facts are told next (monotonic).
        self._began = time.monotonic()
        #: The memory when facts were last told, and the traffic by then unless it was not looked up.
        self._before: int | None = _memory(self._statm).get("rss_bytes")
        self._traffic = _traffic(self._interfaces)
        #: KiB that the process had when its peak last started anew.
        self._floor = 0
        self._forget_peak()

    def open(self) -> None:
        """A block begins: what passed since the last one is no time of its tasks."""
        self._began = time.monotonic()

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
            **self._surroundings(),
            "tasks": tasks,
            "short_tasks": short,
            "short_seconds": round(rest, 6),
            "pid": os.getpid(),
            "cpu_seconds": round(cpu, 6),
            "user_seconds": round(self._user - user, 6),
            "system_seconds": round(self._system - system, 6),
            "peak_bytes": peak * 1024,
        }

    def _surroundings(self) -> dict[str, int]:
        """Memory at the end of a block and at its beginning, and what the machine sent and received meanwhile."""
        found, now = _memory(self._statm), time.monotonic()
        took, self._began = now - self._began, now
        resident = found.get("rss_bytes", 0)
        if self._before is not None:
            found["start_bytes"] = self._before
        self._before = resident or None
        if PRIVATE_LEAST + (resident - found.get("shared_bytes", 0)) / PRIVATE_RATE < took * PRIVATE_PART:
            found.update(_private(self._rollup))
        before, self._traffic = self._traffic, _traffic(self._interfaces) if took >= TRAFFIC_LEAST else None
        if before is not None and self._traffic is not None:
            found["sent_bytes"], found["received_bytes"] = (
                max(0, after - earlier) for after, earlier in zip(self._traffic, before, strict=True)
            )
        return found


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _user() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def _system() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime + resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:
        return -1


def _private(rollup: int) -> dict[str, int]:
    """Bytes of memory that no other process has a part in."""
    try:
        lines = os.pread(rollup, 4096, 0).splitlines()
        return {"private_bytes": sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Private_"))}
    except (OSError, ValueError, IndexError):
        return {}


def _traffic(interfaces: int) -> tuple[int, int] | None:
    """Bytes that the machine's interfaces but the loopback have sent and received; None where nobody tells."""
    sent = received = 0
    try:
        for line in os.pread(interfaces, 64 * 1024, 0).splitlines()[2:]:
            name, _, numbers = line.partition(b":")
            if name.strip() != b"lo":
                fields = numbers.split()
                sent, received = sent + int(fields[8]), received + int(fields[0])
    except (OSError, ValueError, IndexError):
        return None
    return sent, received


def _memory(statm: int) -> dict[str, int]:
    """Bytes of memory of the process that opened `statm`: resident, of these shared, and virtual."""
    try:
        virtual, resident, shared = os.pread(statm, 128, 0).split()[:3]
    except (OSError, ValueError):
        return {}
    pages = {"rss_bytes": resident, "shared_bytes": shared, "virtual_bytes": virtual}
    return {name: int(number) * resource.getpagesize() for name, number in pages.items()}
