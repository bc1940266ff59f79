"""The last that comes out of an engine whose machine is to end: what is finished, and nothing of what is not."""

from __future__ import annotations

from collections.abc import Iterator

from vmrun.core.blocks import ResultBlock, Status
from vmrun.core.clock import Clock

from .engine import Engine, Event, Results, RunnerDied

#: Seconds that tasks get to end: little of the shortest notice that a cloud gives.
PATIENCE = 5.0
#: Seconds of one wait.
_TICK = 0.2


def last_events(engine: Engine, clock: Clock) -> Iterator[Event]:
    """End the tasks that run or wait, which get no outcome by that; what others have finished by then.

    A worker tells what it has finished a few times a second. Without this, tasks would be run again that had ended.
    """
    engine.cancel()
    deadline, alive = clock.monotonic() + PATIENCE, True
    while alive:
        alive = not engine.idle() and clock.monotonic() < deadline
        for event in engine.poll(_TICK if alive else 0.0):
            alive = alive and not isinstance(event, RunnerDied)
            if isinstance(event, Results):
                yield from (Results(part, event.function) for part in without_cancelled(event.block))
            else:
                yield event


def without_cancelled(block: ResultBlock) -> Iterator[ResultBlock]:
    """The parts of a block between tasks that were cancelled."""
    first = 0
    for at, status in enumerate([*block.status, Status.cancelled]):
        if status == Status.cancelled:
            if at > first:
                yield block if at - first == block.count else block.slice(block.first + first, at - first)
            first = at + 1
