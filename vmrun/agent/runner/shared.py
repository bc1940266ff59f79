"""The memory that the runner shares with one worker: what the worker is doing, and the outcomes it has not sent yet.

The worker is the only writer, but for `STOP`. It fills one row of the columns per finished task and then counts
`DONE` up, so that whoever looks in, even after the worker was killed, finds every finished outcome whole and knows
exactly which task was running: number `BASE + DONE`, since `BEGUN`, unless `BEGUN` is 0.
"""

from __future__ import annotations

import mmap
from array import array

from vmrun.core.blocks import ResultBlock

#: Rows: tasks of one chunk at most.
CAPACITY = 16 * 1024
#: Bytes of outcomes after which a worker sends them.
PAYLOAD_FLUSH = 512 * 1024
#: Bytes of the largest outcome that travels in a block; a larger one goes into a file.
PAYLOAD_LARGE = 1024 * 1024
_PAYLOAD_SIZE = PAYLOAD_FLUSH + PAYLOAD_LARGE + 64 * 1024

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
_WORDS = 4096
#: Numbers per entry of `moves`: task, end of its stdout, end of its stderr.
MOVE = 3


class Shared:
    """One worker's shared memory; made before the fork, seen by both."""

    def __init__(self) -> None:
        sizes = (_WORDS, CAPACITY * 8, CAPACITY * 8, CAPACITY * 4, CAPACITY, CAPACITY * MOVE * 8, _PAYLOAD_SIZE)
        #: As a file it ends with the payload area, so that a pickler can write into it directly.
        self.memory = mmap.mmap(-1, sum(sizes))
        whole = memoryview(self.memory)
        parts = []
        start = 0
        for size in sizes:
            parts.append(whole[start : start + size])
            start += size
        #: Where the payload area begins.
        self.origin = start - _PAYLOAD_SIZE
        self.words = parts[0].cast("q")
        self.lengths = parts[1].cast("Q")
        self.started = parts[2].cast("d")
        self.seconds = parts[3].cast("f")
        self.status = parts[4]
        self.moves = parts[5].cast("q")
        self.payload = parts[6]

    def restart(self, first: int, chunk: int) -> None:
        """No rows; the next one is for task `first` of chunk number `chunk`. For the worker only."""
        words = self.words
        words[BEGUN] = 0
        words[DONE] = 0
        words[MOVES] = 0
        words[BASE] = first
        words[CHUNK] = chunk
        self.memory.seek(self.origin)

    def results(self) -> ResultBlock:
        """The complete rows, as a block; its payload is a view into this memory, its facts are empty."""
        count = self.words[DONE]
        lengths = array("Q", self.lengths[:count].tobytes())
        return ResultBlock(
            first=self.words[BASE],
            status=bytes(self.status[:count]),
            lengths=lengths,
            payload=self.payload[: sum(lengths)],
            started=array("d", self.started[:count].tobytes()),
            seconds=array("f", self.seconds[:count].tobytes()),
        )

    def moved(self) -> bytes:
        """The complete entries of `moves`."""
        return self.moves[: self.words[MOVES] * MOVE].tobytes()

    def running(self) -> tuple[int, int]:
        """(task number, nanoseconds at which it began); began is 0 when no task runs.

        Two equal answers, some milliseconds apart, mean that the worker was in that one task all the time between.
        """
        return self.words[BASE] + self.words[DONE], self.words[BEGUN]
