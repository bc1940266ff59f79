"""What becomes of a job whose tasks need more memory than its machine has: pure decisions.

A job that may grow never has the outcome `oom` of a task committed as long as a larger machine may help: its agent
sets such tasks aside, says in the job's journal that its VM is too small, and gives the rest back. Whoever looks
after the job gets it the next machine, by what is said here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .clouds import Need
from .model import JobSpec
from .outgrown import Outgrown
from .units import format_size

#: What `--on-oom` may be.
FAIL, GROW = "fail", "grow"
#: Machines that one job may outgrow; what runs out of memory on the one after the last of them has failed.
MOVES_MAX = 4
#: Of a machine's memory as sold, the least that the next one must have usable. The next size up has twice as much,
#: and of what is sold not all is usable.
FACTOR = 1.75
#: Bytes: a machine below this is not worth its boot.
LEAST = 2 * 2**30
#: Factor for the limit of one task that the job asked for.
TASK_FACTOR = 2
#: Seconds that the next machine must be left of the job's maximum lifetime.
LIFE_MIN = 60.0


def moves(outgrown: Sequence[Outgrown]) -> int:
    """How often the job has moved: several VMs of one size are outgrown together."""
    return len({each.memory for each in outgrown})


def may_grow(spec: JobSpec, outgrown: Sequence[Outgrown]) -> bool:
    """Whether a task of the job that runs out of memory is moved to a larger machine."""
    return spec.on_oom == GROW and moves(outgrown) < MOVES_MAX


def too_small(memory: int, outgrown: Sequence[Outgrown]) -> bool:
    """Whether a machine rented with `memory` bytes is no larger than one that was too small."""
    return any(memory <= each.memory for each in outgrown)


def grown_need(need: Need, outgrown: Sequence[Outgrown]) -> Need:
    """What the next machine must be like."""
    if not outgrown:
        return need
    least = max(LEAST, *(int(each.memory * FACTOR) for each in outgrown))
    return replace(need, memory=max(need.memory, least), task_memory=grown_limit(need, outgrown))


def grown_limit(need: Need, outgrown: Sequence[Outgrown]) -> int:
    """Bytes that one task may take by now; 0: no limit of its own."""
    return int(need.task_memory * TASK_FACTOR ** moves(outgrown))


def grown_workers(outgrown: Sequence[Outgrown], workers: int) -> int:
    """Workers on the next machine, of as many as it would have: no more than shared one that was too small.

    So each has more memory than there, though the machine may have more cores, too.
    """
    return min([workers, *(each.workers for each in outgrown if each.workers)])


def grown_spec(spec: JobSpec, outgrown: Sequence[Outgrown], now: float) -> JobSpec:
    """The job as its next machine is to be asked for: larger, and with what the earlier ones left of its lifetime."""
    if not outgrown:
        return spec
    left = spec.max_lifetime - max(0.0, now - min(each.since for each in outgrown))
    return replace(spec, need=grown_need(spec.need, outgrown), max_lifetime=left)


def verdict(outgrown: Outgrown) -> str:
    """What happened, with the peak and the limit."""
    peak = f"peaked at {format_size(outgrown.peak)}" if outgrown.peak else "needs more memory"
    return (
        f"task {outgrown.task} {peak}, where {format_size(outgrown.limit)} was the limit on a machine of "
        f"{format_size(outgrown.memory)} ({outgrown.message})"
    )
