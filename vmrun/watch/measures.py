"""What a block of outcomes says about how its tasks went, checked: it was written by the job's own processes.

Some figures are each task's own, in columns; others were taken for all tasks of the block together and stand in its
facts. Those that add up are then shared out evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vmrun.core.blocks import ResultBlock


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
    #: Bytes.
    peak: int | None
    rss: int | None
    shared: int | None
    virtual: int | None

    def share(self, seconds: float | None) -> float | None:
        """One task's part of a sum."""
        return None if seconds is None else seconds / self.tasks

    @property
    def user(self) -> float | None:
        """Seconds of CPU time outside the kernel, of all the tasks together."""
        return None if self.cpu is None or self.system is None else max(0.0, self.cpu - self.system)


def facts_of(block: ResultBlock) -> Facts:
    """The facts of `block`, whatever a task may have made of them."""
    told = block.facts
    return Facts(
        tasks=max(_whole(told.get("tasks")) or 0, block.count, 1),
        worker=_whole(told.get("worker")),
        pid=_whole(told.get("pid")),
        attempt=_whole(told.get("attempt")) or 0,
        cold=-1 if (cold := _whole(told.get("cold"))) is None else cold,
        cpu=_amount(told.get("cpu_seconds")),
        system=_amount(told.get("system_seconds")),
        peak=_whole(told.get("peak_bytes")),
        rss=_whole(told.get("rss_bytes")),
        shared=_whole(told.get("shared_bytes")),
        virtual=_whole(told.get("virtual_bytes")),
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


NOT_MEASURED = Measures()


def measures_of(block: ResultBlock, at: int) -> Measures:
    """The figures of the task in row `at`."""
    del block, at
    return NOT_MEASURED
