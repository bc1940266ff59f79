"""What a block of outcomes says about how its tasks went, checked: it was written by the job's own processes.

Some figures are each task's own, in columns; others were taken for all tasks of the block together and stand in its
facts. Those that add up are then shared out evenly.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from vmrun.core.blocks import Form, ResultBlock
from vmrun.core.columns import is_zero

#: Bytes of a number.
_NUMBER = 8


@dataclass(frozen=True, slots=True)
class Facts:
    """What the tasks of a block have in common. None: not measured."""

    #: Tasks that the figures below are about; the block may have been cut out of a longer one.
    tasks: int
    worker: int | None
    pid: int | None
    attempt: int
    #: Number of the task that was the first one of the process; -1 if that is in another block.
    cold: int
    #: Seconds, of all the tasks together.
    cpu: float | None
    system: float | None
    #: Seconds of CPU time of each of those that were not measured on their own: the mean.
    short: float | None
    #: Bytes.
    peak: int | None
    rss: int | None
    shared: int | None
    virtual: int | None
    private: int | None
    start: int | None
    sent: int | None
    received: int | None

    def in_kernel(self, cpu: float | None) -> float | None:
        """The part of `cpu` seconds that was spent in the kernel, if it was the same for all tasks."""
        if cpu is None or self.cpu is None or self.system is None:
            return None
        return cpu * min(1.0, self.system / self.cpu) if self.cpu else 0.0


def facts_of(block: ResultBlock) -> Facts:
    """The facts of `block`, whatever a task may have made of them."""
    told = block.facts
    tasks = max(_whole(told.get("tasks")) or 0, block.count, 1)
    cpu = _amount(told.get("cpu_seconds"))
    short_tasks, short_seconds = _whole(told.get("short_tasks")), _amount(told.get("short_seconds"))
    if short_tasks is None or short_seconds is None:
        short_tasks, short_seconds = tasks, cpu
    return Facts(
        tasks=tasks,
        worker=_whole(told.get("worker")),
        pid=_whole(told.get("pid")),
        attempt=_whole(told.get("attempt")) or 0,
        cold=-1 if (cold := _whole(told.get("cold"))) is None else cold,
        cpu=cpu,
        system=_amount(told.get("system_seconds")),
        short=None if short_seconds is None else short_seconds / max(1, short_tasks),
        peak=_whole(told.get("peak_bytes")),
        rss=_whole(told.get("rss_bytes")),
        shared=_whole(told.get("shared_bytes")),
        virtual=_whole(told.get("virtual_bytes")),
        private=_whole(told.get("private_bytes")),
        start=_whole(told.get("start_bytes")),
        sent=_whole(told.get("sent_bytes")),
        received=_whole(told.get("received_bytes")),
    )


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value) if abs(value) < 1e15 else math.nan
    return number if number >= 0 else None


@dataclass(frozen=True, slots=True)
class Measures:
    """One task's own figures; None: not measured on its own."""

    cpu: float | None = None
    peak: int | None = None
    load: float | None = None
    keep: float | None = None


_NOT_MEASURED = Measures()


def measures_of(block: ResultBlock) -> Iterator[Measures]:
    """The figures of each task, in order."""
    if not block.peak:
        return repeat(_NOT_MEASURED, block.count)
    nothing = array("f", bytes(4 * block.count))
    rows = zip(block.cpu or nothing, block.peak, block.load or nothing, block.keep or nothing, strict=True)
    # No process has no memory at all: where none was noted, nothing was measured.
    return (Measures(cpu, peak * 1024, load, keep) if peak else _NOT_MEASURED for cpu, peak, load, keep in rows)


def cpu_of(block: ResultBlock, facts: Facts) -> float:
    """Seconds of CPU time of all tasks of the block."""
    alone = block.count - block.peak.count(0) if block.peak else 0
    return sum(block.cpu) + (facts.short or 0.0) * (block.count - alone)


def peak_of(block: ResultBlock, facts: Facts) -> int:
    """The most memory that any of its tasks had, in bytes; 0 when not known."""
    if block.peak and 0 not in block.peak:
        return max(block.peak) * 1024
    return max(facts.peak or 0, max(block.peak, default=0) * 1024)


def result_sizes(block: ResultBlock) -> Iterator[int]:
    """Bytes of each result: of its pickle, 8 of a number, which needs none, and 0 of None and of a failure."""
    if not block.forms and is_zero(block.status):
        return iter(block.lengths)
    forms = block.forms or bytes(block.count)
    rows = zip(block.lengths, forms, block.status, strict=True)
    return (0 if code else length or _NUMBER * (form != Form.pickled) for length, form, code in rows)
