"""How many tasks of a job run at once on a machine, and how many threads each may start: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UsageError
from .units import format_size

#: Of a machine's memory this part stays free for its system, the agent and the dead-man timer, within these bounds.
_RESERVE_PART, RESERVE_MIN, RESERVE_MAX = 32, 128 * 2**20, 2 * 2**30
#: On a tiny machine no more than this part.
_RESERVE_MOST = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job says about its tasks; 0: nothing."""

    #: Worker processes.
    workers: int = 0
    #: Threads of each task, as libraries such as OpenMP's are told.
    threads: int = 0
    #: Bytes of memory that one task needs at most.
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of a job on one machine."""

    workers: int
    #: Threads that libraries in each worker start unless the job says otherwise.
    threads: int
    #: What made them this many: `asked`, `cores`, or `memory`.
    bound: str


def usable_memory(total: int) -> int:
    """Bytes that tasks may take of a machine that has `total`."""
    reserve = min(max(total // _RESERVE_PART, RESERVE_MIN), RESERVE_MAX, total // _RESERVE_MOST)
    return total - reserve


def fits(memory: int, task_memory: int) -> bool:
    """Whether one task that takes `task_memory` bytes (0: not said) fits on a machine with `memory` bytes."""
    return not task_memory or usable_memory(memory) >= task_memory


def refusal(memory: int, task_memory: int) -> UsageError:
    """The error for a machine on which not one task fits."""
    return UsageError(
        f"not one task fits: each may take {format_size(task_memory)} (--task-memory), and of the machine's "
        f"{format_size(memory)} tasks can use {format_size(usable_memory(memory))}",
        hint="lower --task-memory, or ask for a machine with more --memory",
    )


def crew_of(cores: int, memory: int, asked: Asked) -> Crew:
    """The crew on a machine with so many cores and bytes of memory (0: not known, and then no bound).

    One worker per core, or per `threads` cores; fewer where the memory of so many tasks does not fit. Raises
    UsageError when not even one fits.
    """
    cores = max(1, cores)
    workers, bound = asked.workers, "asked"
    if not workers:
        workers, bound = max(1, cores // (asked.threads or 1)), "cores"
    if asked.memory and memory:
        if not fits(memory, asked.memory):
            raise refusal(memory, asked.memory)
        fit = usable_memory(memory) // asked.memory
        if fit < workers:
            workers, bound = fit, "memory"
    return Crew(workers, asked.threads or max(1, cores // workers), bound)
