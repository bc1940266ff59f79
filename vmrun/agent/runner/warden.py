"""Ends the task that takes more than its share of memory, or of processes, before the machine or a neighbour suffers.

A look costs a microsecond per worker and is made the less often the further a worker is from its limit, so that 128
workers take less than one percent of one core. Where tasks have a limit (`--task-memory`), it holds for the task's
process and all below it. Where memory is short on the machine, whoever is above a fair share and takes most has to go,
rather than whomever the kernel would choose; likewise where processes and threads are too many.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Sequence

from vmrun.core.blocks import Status

from .failures import size
from .slots import Doom, RunnerConfig, Slot
from .usage import Crowd, Machine, Probe

#: Seconds between two looks at the same thing, at least and at most.
SOON, LATER = 0.05, 0.5
#: Seconds between searches for processes below a worker that had none.
_SEARCH = 0.5
#: Bytes a second that one core can make its own at most: what tells how soon a limit may be reached.
_RATE = 4e9
#: Processes and threads that all tasks together may have, where the machine allows twice that.
CROWD_MAX = 32 * 1024
#: Processes and threads a second that tasks can start at most: what tells how soon a limit may be reached.
_CROWD_RATE = 20_000
#: No task with so many, or fewer, is to blame: where there is little room, and many workers, half a share may be one.
_FEW = 32


class Warden:
    """Looks at workers, and dooms the tasks of some."""

    def __init__(
        self, config: RunnerConfig, machine: Machine | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = config.task_memory
        self._workers = config.workers
        #: What one worker may take when memory is short; 0: the machine's memory is not watched.
        self._share = config.memory // config.workers
        self._spare = config.memory_spare
        self._machine = machine or Machine()
        #: Workers that can fill memory at the same time.
        self._filling = min(config.workers, self._machine.cores())
        self._monotonic = monotonic
        self._probes: dict[int, Probe] = {}
        self._due = 0.0
        self._crowds = [(crowd, _allowed(crowd, config.crowd_max or CROWD_MAX)) for crowd in self._machine.crowds]
        self._crowd_due = 0.0

    def look(self, slots: Sequence[Slot]) -> None:
        """To be called while tasks run: when `due` says so, at least every `LATER` seconds, at most every `SOON`."""
        now = self._monotonic()
        if self._limit:
            for slot in slots:
                self._look(slot, now)
        if self._share and now >= self._due:
            self._look_at_machine(slots, now)
        if now >= self._crowd_due:
            self._look_at_crowds(slots, now)

    def due(self) -> float:
        """Monotonic time at which memory, or how many processes there are, is to be looked at again."""
        probes = min((probe.due for probe in self._probes.values()), default=math.inf) if self._limit else math.inf
        return min(probes, self._due if self._share else math.inf, self._crowd_due)

    def forget(self, pid: int) -> None:
        """A worker is gone."""
        probe = self._probes.pop(pid, None)
        if probe is not None:
            probe.close()

    def largest(self, slots: Iterable[Slot]) -> int:
        """Bytes of the largest of these workers."""
        return max((self._probe(slot).own() for slot in slots), default=0)

    # --- one task ---

    def _probe(self, slot: Slot) -> Probe:
        probe = self._probes.get(slot.pid)
        if probe is None:
            probe = self._probes[slot.pid] = Probe(slot.pid, slot.inherited)
        return probe

    def _look(self, slot: Slot, now: float) -> None:
        probe = self._probe(slot)
        if now < probe.due or slot.doom is not None:
            return
        self._search(slot, probe, now)
        taken = probe.total()
        if taken > self._limit:
            taken = probe.exact()
        if taken > self._limit:
            self._end(
                slot,
                Status.oom,
                f"its memory reached {size(taken)}, and {size(self._limit)} is the limit (--task-memory)",
            )
        probe.due = now + min(LATER, max(SOON, (self._limit - taken) / _RATE))

    def _search(self, slot: Slot, probe: Probe, now: float) -> None:
        """Know the processes below a worker whose task takes some time, or is known to have some."""
        if probe.below or (slot.steady and now >= probe.search_at):
            probe.search_at = now + _SEARCH
            probe.search()

    # --- the machine ---

    def _look_at_machine(self, slots: Sequence[Slot], now: float) -> None:
        left = self._machine.available()
        if left >= self._spare:
            self._due = now + min(LATER, max(SOON, (left - self._spare) / _RATE / self._filling))
            return
        if any(slot.killed for slot in slots):
            # Somebody is going already; what that gives back the next look will tell.
            return
        sizes = []
        for slot in slots:
            probe = self._probe(slot)
            probe.search()
            sizes.append(probe.exact())
        taken = max(sizes, default=0)
        if taken > self._share:
            self._end(
                slots[sizes.index(taken)],
                Status.oom,
                f"the machine was short of memory, with {size(left)} left, and this task took most: {size(taken)}, "
                f"where {size(self._share)} was its fair share",
            )

    def _look_at_crowds(self, slots: Sequence[Slot], now: float) -> None:
        left = LATER * _CROWD_RATE
        for crowd, allowed in self._crowds:
            left = min(left, allowed - (taken := crowd.taken()))
            if taken > allowed:
                self._end_crowd(slots, crowd, allowed)
        self._crowd_due = now + max(SOON, left / _CROWD_RATE)

    def _end_crowd(self, slots: Sequence[Slot], crowd: Crowd, allowed: int) -> None:
        if any(slot.killed for slot in slots):
            return
        sizes = [self._probe(slot).crowd() for slot in slots]
        most = max(sizes, default=0)
        if most > max(_FEW, allowed // (2 * self._workers)):
            self._end(
                slots[sizes.index(most)],
                Status.signalled,
                f"killed by SIGKILL: it had {most} processes and threads, more than {crowd.name} can do with, "
                f"where there can be {crowd.limit}",
            )

    def _end(self, slot: Slot, kind: Status, message: str) -> None:
        task, begun = slot.shared.running()
        if slot.chunks and not begun:
            # Between two tasks: whoever comes next is looked at again at once.
            return
        if slot.chunks:
            slot.doom = Doom(kind, task, self._monotonic(), message)
            slot.stop()
        else:
            # What earlier tasks left in it is nobody's any more.
            slot.broken = True
        slot.signal(signal.SIGKILL)


def _allowed(crowd: Crowd, most: int) -> int:
    """With how many processes and threads there are too many: the tasks' own may be `most`, or half of what is left."""
    taken = crowd.taken()
    return taken + min(most, max(0, crowd.limit - taken) // 2)
