"""Who gets which tasks, and what happens while they run: chunks out, waiting tasks taken back, time limits."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterable

from vmrun.core.blocks import Status

from .chunks import BRIEF, SHORT
from .frames import Frame, Kind
from .outcomes import Outcomes
from .slots import Doom, RunnerConfig, Slot
from .verdicts import CANCELLED

#: Seconds between looks at what the workers do: toward the end of the queue, or where a task is to be ended; and while
#: enough waits for all, or every worker is at a task that nothing waits behind.
TICK, TICK_CALM = 0.05, 0.2
#: A task that runs for this many seconds gives back what waits behind it.
LONG = 0.1
#: A time limit is overstepped by so much of it, or by `TICK`.
_LATE = 0.02
#: Seconds between looks that pass on the output of running tasks.
FOLLOW_EVERY = 0.2
_SECOND = 1_000_000_000


class Dispatch:
    """Hands tasks to workers. `hire` makes a new worker, or returns None if there can be no more now."""

    def __init__(self, config: RunnerConfig, outcomes: Outcomes, hire: Callable[[], Slot | None]) -> None:
        self._config = config
        self._outcomes = outcomes
        self._queue = outcomes.queue
        self._hire = hire
        self._definitions: dict[str, Frame] = {}
        self._followed = 0.0

    def define(self, frame: Frame) -> None:
        """Remember a function for the workers that will need it."""
        self._definitions[frame.head["function"]] = frame

    def fill(self, slots: Collection[Slot], heard: Collection[Slot] | None) -> list[Slot]:
        """Give tasks to all workers that should have some: idle ones, then new ones, then ahead to busy ones.

        `heard`: those of `slots` that may want tasks since the last call; None: any may. Gives those that got some.
        """
        given: list[Slot] = []
        if not self._queue.tasks:
            return given
        if heard is None or self._queue.grown:
            heard, self._queue.grown = list(slots), False
        free = [slot for slot in heard if slot.free]
        given.extend(self._give(slot, slots) for slot in free if self._queue.tasks and not slot.chunks)
        while self._queue.tasks and (hired := self._hire()) is not None:
            given.append(self._give(hired, slots))
        for slot in free:
            if not self._next_is_short():
                break
            if len(slot.chunks) == 1 and self._short(slot.chunks[0].work.function):
                given.append(self._give(slot, slots))
        return given

    def _next_is_short(self) -> bool:
        """Whether something waits of which it is known that it does not take long."""
        return bool(self._queue.tasks) and not self._config.fresh and self._short(self._queue.function())

    def _short(self, function: str) -> bool:
        """Whether tasks of a function do not take long, for how much is waiting."""
        # The last tasks wait for whoever is free first.
        limit = BRIEF if self._queue.tasks > self._config.workers else SHORT
        return self._outcomes.sizers[function].below(limit)

    def _give(self, slot: Slot, slots: Collection[Slot]) -> Slot:
        function = self._queue.function()
        if function not in slot.known:
            definition = self._definitions[function]
            slot.writer.push(Kind.define, definition.head, definition.body)
            slot.known.add(function)
        if self._config.fresh:
            slot.send(self._queue.take(1))
            return slot
        sizer, waiting, workers = self._outcomes.sizers[function], self._queue.tasks, self._config.workers
        given = sum(other.at_hand for other in slots) if sizer.little(waiting, workers) else 0
        slot.send(self._queue.take(sizer.size(waiting, workers, given=given, own=slot.at_hand)))
        return slot

    def watch(self, slots: list[Slot], *, room: bool, follow: bool) -> None:
        """Look at all workers once.

        `room` is for one more worker; `follow` says that output of running tasks is welcome.
        """
        now = time.monotonic()
        follows = now - self._followed >= FOLLOW_EVERY - TICK / 2
        if follows:
            self._followed = now
        idle = room or any(not slot.chunks and slot.free for slot in slots)
        starving = idle and not self._queue.tasks
        for slot in slots:
            if slot.chunks:
                self._watch(slot, starving=starving)
                if follows and slot.steady:
                    self._outcomes.follow(slot, listen=follow)

    def pace(self, slots: Iterable[Slot]) -> float:
        """Seconds from one look to the next: each costs what a task of microseconds costs, on a core that has work."""
        busy = [slot for slot in slots if slot.chunks]
        timeout = self._config.task_timeout
        if timeout is not None and timeout < TICK_CALM / _LATE:
            return TICK
        if any(slot.doom or slot.cancelled or slot.stopping for slot in busy):
            return TICK
        calm = self._queue.tasks > self._config.workers or all(slot.alone for slot in busy)
        return TICK_CALM if calm else TICK

    def _watch(self, slot: Slot, *, starving: bool) -> None:
        slot.look()
        chunk = slot.chunks[0]
        now = time.monotonic()
        if slot.doom is not None:
            if now >= slot.doom.kill_at and not slot.killed:
                slot.signal(signal.SIGKILL)
            return
        if not slot.running(chunk):
            if starving and not slot.stopping and slot.at_hand > 1 and now - slot.given > TICK:
                slot.stop()
            return
        self._outcomes.harvest(slot)
        if slot.cancelled:
            self._end(slot, Status.cancelled, slot.seen[0])
        if slot.stopping:
            # `STOP` was set at an earlier look, and it has been in this task since: it cannot miss it.
            self._outcomes.take_back(slot)
        task, begun, _ = slot.seen
        seconds = time.monotonic_ns() / _SECOND - begun / _SECOND
        if not slot.stopping and seconds > LONG and (chunk.end > task + 1 or len(slot.chunks) > 1):
            slot.stop()
        if slot.doom is None and self._config.task_timeout is not None and seconds > self._config.task_timeout:
            self._end(slot, Status.timeout, task)

    def _end(self, slot: Slot, kind: Status, task: int) -> None:
        slot.doom = Doom(kind, task, time.monotonic() + self._config.kill_grace, CANCELLED.message)
        slot.stop()
        slot.signal(signal.SIGTERM)

    def cancel(self, slots: Iterable[Slot]) -> None:
        """End all that runs and all that waits."""
        for slot in slots:
            if slot.chunks:
                # Which task it is in the next looks will tell; until then it starts no other.
                slot.cancelled = True
                slot.stop()
        for work in self._queue.take_all():
            self._outcomes.cancelled(work)
