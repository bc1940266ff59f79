"""What a worker tells the runner: outcomes of the chunk at hand, where each task's output ends, files that it left."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

from vmrun.core.blocks import TaskBlock
from vmrun.core.columns import is_zero

from . import frames
from .frames import Kind
from .guard import Guard
from .keeper import Keeper
from .meter import Meter
from .shared import BEGUN, MOVE, MOVES, Shared

_SECOND = 1_000_000_000


def cold(chunk: int, first: int) -> dict[str, int]:
    """As a fact: which task found its process fresh, if it is in chunk number `chunk`, whose first task is `first`."""
    return {"cold": first} if chunk == 1 else {}


@dataclass(slots=True)
class Running:
    """The chunk at hand."""

    number: int
    function: str
    block: TaskBlock
    attempt: int
    #: Add to monotonic seconds to get seconds since the epoch.
    epoch: float
    #: Number of the next task.
    next: int

    @property
    def end(self) -> int:
        """Number after the last task."""
        return self.block.first + self.block.count


class Reports:
    """The reports of the worker in place `slot`."""

    def __init__(
        self, channel: socket.socket, shared: Shared, guard: Guard, keeper: Keeper, meter: Meter, slot: int
    ) -> None:
        self._channel = channel
        self._shared = shared
        self._guard = guard
        self._keeper = keeper
        self._meter = meter
        self._slot = slot
        #: Where the output of the last task that wrote any ends.
        self.ends = (0, 0)
        #: When outcomes were sent last, or the chunk began: nanoseconds, monotonic clock.
        self.flushed = 0

    def open(self, running: Running) -> None:
        """Begin with a chunk."""
        self._shared.restart(running.block.first, running.number)
        self.ends = self._guard.settle()
        self._meter.open()
        self.flushed = time.monotonic_ns()

    def wrote(self, number: int) -> None:
        """Note where the task's output ends."""
        self.ends = self._guard.settle()
        words, moves = self._shared.words, self._shared.moves
        at = words[MOVES] * MOVE
        moves[at], moves[at + 1], moves[at + 2] = number, *self.ends
        words[MOVES] += 1

    def left_files(self, number: int, attempt: int) -> None:
        """Tell of the files that the task left."""
        path = self._guard.take_files(number, attempt)
        if path:
            frames.send(self._channel, Kind.files, {"task": number, "attempt": attempt, "path": path})

    def send(self, running: Running, *, final: bool = False, large: int | None = None) -> None:
        """Send all outcomes that are kept, and the one in a file, of row `large`, after them.

        `final` says that no more of this chunk will come.
        """
        shared = self._shared
        facts = self._facts(running, shared.done() + (large is not None))
        file = ("", 0) if large is None else self._keeper.large(large, facts)
        shared.words[BEGUN] = 0
        block = shared.results(copy=False)
        block.facts = facts
        moves = shared.moved()
        now = time.monotonic_ns()
        head = {
            "chunk": running.number,
            "first": block.first,
            "count": block.count,
            "failed": not is_zero(block.status),
            "seconds": (now - self.flushed) / _SECOND,
            "moves": len(moves),
            "final": final,
        }
        frames.send(self._channel, Kind.results, head, moves, *block.parts())
        after = block.first + block.count
        if large is not None:
            path, size = file
            where = {"task": after, "path": path, "size": size}
            frames.send(self._channel, Kind.large, {"chunk": running.number, "attempt": running.attempt, **where})
            after += 1
        shared.restart(after, running.number)
        self.flushed = time.monotonic_ns()

    def _facts(self, running: Running, tasks: int) -> dict[str, Any]:
        """What the `tasks` tasks of a block share."""
        facts = {"worker": self._slot, "attempt": running.attempt, **self._meter.facts(tasks)}
        return facts | cold(running.number, running.block.first)
