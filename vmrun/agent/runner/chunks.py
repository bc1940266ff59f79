"""How many tasks a worker gets at once: pure arithmetic, and the queue that tasks are cut from.

Chunks grow from one task until they take about `TARGET` seconds, so that microsecond tasks travel by the thousand and
long ones alone; toward the end of the queue they shrink, so that all workers finish together.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vmrun.core.blocks import TaskBlock

from .shared import CAPACITY

#: Seconds of work in one chunk.
TARGET = 0.4
#: Seconds of work for each worker that are handed out at once, if each task takes less than `LEAST`.
LITTLE = 0.005
#: Seconds of work that are not divided any further toward the end: handing them out would take longer.
LEAST = 0.0005
#: A chunk has at most this many times the tasks of the largest one that was measured.
GROWTH = 16
#: The measured time of a task sinks by at most this factor per measurement: the first call may have imported much.
DECAY = 8.0
#: The measured time of a task rises by half of the way to what was found in so many seconds, and further in more.
TELLING = 0.001
#: Bytes of arguments in one chunk at most, unless a single one is larger.
CHUNK_BYTES = 2 * 1024 * 1024
#: Tasks shorter than this many seconds are sent ahead, so that their worker need not wait for the next chunk.
SHORT = 0.02
#: While more wait than there are workers, these are, too; longer ones would be taken back before they begin.
BRIEF = 0.08
#: Bytes that a queued task counts beyond its payload.
OVERHEAD = 16


class Sizer:
    """What is known about the time that one function's tasks take."""

    def __init__(self) -> None:
        #: Seconds per task; negative until one was measured.
        self.seconds = -1.0
        self._largest = 0

    def learn(self, count: int, seconds: float) -> None:
        """`count` tasks took `seconds` on one worker."""
        if count <= 0:
            return
        mean = max(seconds / count, 1e-9)
        if mean < self.seconds or self.seconds < 0:
            self.seconds = max(mean, self.seconds / DECAY)
        else:
            # A few quick tasks alone seem slow, for all that is around them.
            self.seconds += (mean - self.seconds) * seconds / (seconds + TELLING)
        self._largest = max(self._largest, count)

    def size(self, waiting: int, workers: int, *, given: int = 0, own: int = 0) -> int:
        """Tasks for the next chunk, when `waiting` are queued for `workers` workers.

        Matters where there is `little` left: they have `given` tasks that may not be done yet, of which the one that
        the chunk is for has `own`.
        """
        if self.seconds < 0:
            return 1
        # Half of what each would get; where little is left, one part for each, or fewer that are worth it.
        fair = -(-waiting // (2 * max(1, workers)))
        if self.little(waiting, workers):
            parts = min(workers, int(waiting * self.seconds / LEAST))
            fair = -(-(waiting + given) // max(1, parts)) - own
        return max(1, min(int(TARGET / self.seconds), self._largest * GROWTH, fair, CAPACITY))

    def little(self, waiting: int, workers: int) -> bool:
        """Whether `waiting` tasks are known to be so little work that it is handed out at once."""
        if self.seconds < 0:
            return False
        work = waiting * self.seconds
        return (self.seconds < LEAST and work < LITTLE * workers) or int(work / LEAST) < workers

    def below(self, limit: float) -> bool:
        """Whether tasks are known to take less than `limit` seconds."""
        return 0 <= self.seconds < limit


@dataclass(slots=True)
class Work:
    """Tasks that belong together: one function, the same history."""

    function: str
    block: TaskBlock
    #: Times that these tasks were started before and did not count as done.
    attempt: int = 0
    #: How many of those times the worker was lost through no fault of the task that is known.
    losses: int = 0

    @property
    def end(self) -> int:
        """Number after the last task."""
        return self.block.first + self.block.count

    def size(self, first: int, count: int) -> int:
        """Bytes of the payloads of `count` tasks from number `first` on."""
        low = first - self.block.first
        return self.block.size(low, count)


class WorkQueue:
    """Tasks that wait for a worker, in order."""

    def __init__(self) -> None:
        self._queue: deque[Work] = deque()
        #: Tasks of the first entry that are taken, and the bytes of their payloads.
        self._taken = 0
        self._offset = 0
        #: Tasks that wait.
        self.tasks = 0
        #: Bytes that they keep.
        self.bytes = 0
        #: Set when tasks come in; for whoever hands them out, to reset.
        self.grown = False

    def add(self, work: Work) -> None:
        """Queue tasks behind all others."""
        if work.block.count:
            self._queue.append(work)
            self._count(work.block, 1)
            self.grown = True

    def add_first(self, work: Work) -> None:
        """Queue tasks before all others."""
        if not work.block.count:
            return
        if self._taken:
            rest = self._cut(self._queue[0].block.count - self._taken)
            self._queue[0] = rest
            self._taken = self._offset = 0
        self._queue.appendleft(work)
        self._count(work.block, 1)
        self.grown = True

    def function(self) -> str:
        """The function of the next task; there must be one."""
        return self._queue[0].function

    def take(self, tasks: int, size: int = CHUNK_BYTES) -> Work:
        """At least one and at most `tasks` of the next tasks, of no more than `size` bytes unless it is only one."""
        block = self._queue[0].block
        count = left = min(tasks, block.count - self._taken)
        if left > 1 and block.size(self._taken, left) > size:
            count, total = 1, block.lengths[self._taken]
            while count < left and total + block.lengths[self._taken + count] <= size:
                total += block.lengths[self._taken + count]
                count += 1
        work = self._cut(count)
        self._taken += count
        self._offset += len(work.block.payload)
        if self._taken == block.count:
            self._queue.popleft()
            self._taken = self._offset = 0
        self._count(work.block, -1)
        return work

    def take_all(self) -> list[Work]:
        """Everything."""
        works = []
        while self._queue:
            block = self._queue[0].block
            works.append(self.take(block.count, 1 << 62))
        return works

    def _cut(self, count: int) -> Work:
        work = self._queue[0]
        part = work.block.part(self._taken, count, self._offset)
        return Work(work.function, part, work.attempt, work.losses)

    def _count(self, block: TaskBlock, sign: int) -> None:
        self.tasks += sign * block.count
        self.bytes += sign * (len(block.payload) + OVERHEAD * block.count)
