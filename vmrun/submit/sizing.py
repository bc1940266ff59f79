"""How much memory a job's machine should have, by what its tasks took before: pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vmrun.core import codec
from vmrun.core.clouds import Offer
from vmrun.core.crew import Asked, crew_of, usable_memory
from vmrun.core.growth import LEAST as UNKNOWN
from vmrun.core.model import JobSpec
from vmrun.core.units import format_size

#: What is planned for each task, over the most that one took.
MARGIN = 1.25
#: Over what a task had when it was ended for lack of memory: how much more it wanted nobody knows.
OOM_MARGIN = 2.0
#: Bytes that the smallest machine has: system and agent want some, too.
LEAST = 512 * 2**20
_STEP = 2**20


@dataclass(frozen=True, slots=True)
class Usage:
    """What tasks took that were measured."""

    #: Where that was: `job …`, for people.
    source: str
    tasks: int
    #: Bytes: the most resident memory of a worker.
    peak: int
    #: CPU seconds per second: 1.0 is one core kept busy; 0 for tasks that were too short to tell.
    cpu: float
    #: Tasks that ran out of memory, so that the peak is only a lower bound.
    oom: int = 0


@dataclass(frozen=True, slots=True)
class Sized:
    """What to ask for."""

    #: Bytes that the machine must have, and the workers that then fit; 0 workers: as many as it has cores.
    memory: int
    workers: int
    #: Where the number comes from, for people.
    why: str
    #: Whether it may be too small.
    uncertain: bool = False


def identity(spec: JobSpec) -> str:
    """What a job calls: equal for two submissions of the same function of the same source."""
    function = spec.function
    parts = [spec.kind, spec.python, function and codec.to_data(function), spec.code and spec.code.sha256]
    return codec.sha256(codec.canonical([part or "" for part in parts]))


def akin(spec: JobSpec, other: JobSpec) -> bool:
    """Whether two jobs call what goes by the same name: perhaps another version of it."""
    names = [each.function.name if each.function else "" for each in (spec, other)]
    return spec.kind == other.kind and spec.name == other.name and names[0] == names[1]


def memory_for(usage: Usage, workers: int, shared: int) -> int:
    """Bytes of a machine on which `workers` such tasks run at once; `shared`: bytes that they all see one copy of."""
    margin = OOM_MARGIN if usage.oom else MARGIN
    own = max(usage.peak - shared, 0)
    return with_reserve(int(margin * (own * workers + min(shared, usage.peak))))


def with_reserve(tasks: int) -> int:
    """Bytes of the smallest machine of which `tasks` bytes are usable."""
    memory = max(LEAST, tasks)
    while usable_memory(memory) < tasks:
        memory += tasks - usable_memory(memory)
    return -(-memory // _STEP) * _STEP


def choose(usage: Usage, offers: Iterable[Offer], asked: Asked, shared: int = 0) -> Sized | None:
    """The first of the offers, in the order to try them, on which all of its workers fit; None if there is none."""
    for offer in offers:
        workers = crew_of(offer.vcpus, offer.memory, asked).workers
        memory = memory_for(usage, workers, shared)
        if memory <= offer.memory:
            return Sized(memory, workers, _why(usage, workers, memory), uncertain=bool(usage.oom))
    return None


def _why(usage: Usage, workers: int, memory: int) -> str:
    many = f"{usage.tasks} tasks" if usage.tasks != 1 else "one task"
    margin = f"{OOM_MARGIN:g} x, as {usage.oom} of them ran out of memory" if usage.oom else f"{MARGIN:g} x"
    at_once = f" x {workers} at once" if workers > 1 else ""
    cores = f", with {usage.cpu:.2f} cores each" if usage.cpu else ""
    return (
        f"{format_size(memory)}: {margin} {format_size(usage.peak)}{at_once} and the system's share; "
        f"the peak is that of {many} of {usage.source}{cores}"
    )


def unknown(why: str) -> Sized:
    """What to ask for where nothing was measured."""
    return Sized(UNKNOWN, 0, f"{format_size(UNKNOWN)} to begin with: {why}", uncertain=True)
