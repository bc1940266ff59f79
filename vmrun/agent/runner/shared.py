"""The memory that the runner shares with one worker: what the worker is doing, and the outcomes it has not sent yet.

The worker is the only writer, but for `STOP`. It fills one row of the columns per finished task and then counts
`DONE` up, so that whoever looks in, even after the worker was killed, finds every finished outcome whole and knows
exactly which task was running: number `BASE + DONE`, since `BEGUN`, unless `BEGUN` is 0.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from typing import Any, Literal

from vmrun.core.blocks import ResultBlock
from vmrun.core.columns import is_zero

#: Rows: tasks of one chunk at most.
CAPACITY = 16 * 1024
#: Bytes of outcomes after which a worker sends them.
PAYLOAD_FLUSH = 512 * 1024
#: Bytes of the largest outcome that travels in a block; a larger one goes into a file.
PAYLOAD_LARGE = 1024 * 1024
_PAYLOAD_SIZE = PAYLOAD_FLUSH + PAYLOAD_LARGE + 256 * 1024

#: Words: number of the task in the first row; rows that are complete.
BASE, DONE = 0, 1
#: When the running task began (nanoseconds, monotonic clock); 0 while no task runs.
BEGUN = 2
#: The chunk that the rows belong to.
CHUNK = 3
#: Written by the runner: of chunks up to this one, no further task is to be started.
STOP = 4
#: Entries of `moves` that are complete.
MOVES = 5
#: Not 0: the rows are of tasks that followed on each other at once. Those from `DONE` on are complete as far as `ended`
#: is not 0; the running task began when the last one ended.
SPRINT = 6
#: Of such rows: when the first began, and what to add to get seconds since the epoch. In `reals_of_words`.
BEGAN, EPOCH = 7, 8
_WORDS = 4096
#: Numbers per entry of `moves`: task, end of its stdout, end of its stderr.
MOVE = 3


#: Columns with a number per task, and the type of that.
_COLUMNS: dict[str, Literal["Q", "q", "d", "f", "I", "B"]] = {
    "lengths": "Q",
    "values": "q",
    "started": "d",
    "seconds": "f",
    "cpu": "f",
    "peak": "I",
    "load": "f",
    "keep": "f",
    "ended": "d",
    "forms": "B",
    "status": "B",
}
#: Those that tasks which follow on each other at once do not fill.
_OF_WALKS = ("started", "seconds", "cpu", "peak", "load", "keep")


class Shared:
    """One worker's shared memory; made before the fork, seen by both.

    `values` is also there as `reals`, which takes floats. All columns but `started` and `seconds` are zero in rows that
    are not complete, so that only what is not zero need be written. A row has either these two or `ended`.

    With `fd`, that of an anonymous file, for a worker that is not forked from here: both map the file.
    """

    lengths: memoryview
    values: memoryview
    started: memoryview[float]
    ended: memoryview[float]
    seconds: memoryview[float]
    cpu: memoryview[float]
    peak: memoryview
    load: memoryview[float]
    keep: memoryview[float]
    forms: memoryview
    status: memoryview

    def __init__(self, fd: int = -1) -> None:
        size_of_all = CAPACITY * sum(map(struct.calcsize, _COLUMNS.values()))
        moves = CAPACITY * MOVE * 8
        #: As a file it ends with the payload area, so that a pickler can write into it directly.
        size = _WORDS + size_of_all + moves + _PAYLOAD_SIZE
        if fd >= 0:
            os.ftruncate(fd, size)
        self.memory = mmap.mmap(fd, size)
        whole = memoryview(self.memory)
        self.words = whole[:_WORDS].cast("q")
        start = _WORDS
        self._clean: list[tuple[memoryview, int]] = []
        for name, code in _COLUMNS.items():
            size = CAPACITY * struct.calcsize(code)
            part = whole[start : start + size]
            setattr(self, name, part.cast(code))
            if name == "values":
                self.reals = part.cast("d")
            if name not in ("started", "seconds"):
                self._clean.append((part, size // CAPACITY))
            start += size
        self.moves = whole[start : start + moves].cast("q")
        #: The words as floats.
        self.reals_of_words = whole[:_WORDS].cast("d")
        #: Where the payload area begins.
        self.origin = start + moves
        self.payload = whole[self.origin :]

    def restart(self, first: int, chunk: int) -> None:
        """No rows; the next one is for task `first` of chunk number `chunk`. For the worker only."""
        words = self.words
        words[BEGUN] = 0
        # One more than are complete: a task may have died on its way into the next one.
        used = min(self.done() + 1, CAPACITY)
        words[DONE] = 0
        words[MOVES] = 0
        words[SPRINT] = 0
        words[BASE] = first
        words[CHUNK] = chunk
        for part, size in self._clean:
            part[: used * size] = bytes(used * size)
        self.memory.seek(self.origin)

    def results(self, *, copy: bool = True) -> ResultBlock:
        """The complete rows, as a block; its payload is a view into this memory, its facts are empty.

        Unless `copy`, its columns are views too: it is to be encoded at once.
        """
        count, sprint = self.done(), bool(self.words[SPRINT])
        status, forms = bytes(self.status[:count]), bytes(self.forms[:count])
        absent = _OF_WALKS if sprint else ("ended",)
        columns: dict[str, Any] = {
            name: array(code) if name in absent else self._column(name, count, copy=copy)
            for name, code in _COLUMNS.items()
            if name not in ("status", "forms")
        }
        # Where results are plain numbers, this saves a look at each.
        size = 0 if is_zero(columns["lengths"]) else sum(columns["lengths"])
        block = ResultBlock(self.words[BASE], status, payload=self.payload[:size], forms=forms, **columns)
        if sprint:
            block.began, block.epoch = self.reals_of_words[BEGAN], self.reals_of_words[EPOCH]
        return block

    def _column(self, name: str, count: int, *, copy: bool) -> array[Any] | memoryview[Any]:
        view = getattr(self, name)[:count]
        return array(_COLUMNS[name], view.tobytes()) if copy else view

    def done(self) -> int:
        """The number of complete rows."""
        count, words = self.words[DONE], self.words
        if words[SPRINT]:
            while count < CAPACITY and self.ended[count]:
                count += 1
        return count

    def moved(self) -> bytes:
        """The complete entries of `moves`."""
        return self.moves[: self.words[MOVES] * MOVE].tobytes()

    def running(self) -> tuple[int, int]:
        """(task number, nanoseconds at which it began); began is 0 when no task runs.

        Two equal answers, some milliseconds apart, mean that the worker was in that one task all the time between.
        """
        done, begun = self.done(), self.words[BEGUN]
        if begun and done > self.words[DONE]:
            begun = int(self.ended[done - 1] * 1e9)
        return self.words[BASE] + done, begun
