"""Finds the task that ends its job's runner, and with it all that runs: fewer and fewer run at once until it is alone.

The runner is the job's own user, so a task can kill it, and takes its neighbours along. Whatever was out when the
runner ended is suspected; the suspects, which come first again, are then out a part at a time. Once they have all
ended, nobody is suspected any more. A task in whose sole company the runner ended is lost, and the others go on.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable

from vmrun.core.blocks import ResultBlock, Status, failure, lengths_of
from vmrun.core.ranges import RangeSet

from .engine import Files, LargeResult, Results, RunnerDied
from .share import HeldShard

log = logging.getLogger(__name__)

#: Times that the runner may end before anybody is suspected: the system, or a person, may have ended it.
DEATHS_MAX = 3
#: Of the suspects, one in so many is out at once.
PART = 4
#: Tasks that are lost in a row, none having ended between them, after which it is not the tasks that are to blame.
LOST_MAX = 2
_ANY = 1 << 62


class Suspects:
    """Of one job: what its engine has, and what it may have."""

    def __init__(self) -> None:
        #: Times that the runner ended since nobody was suspected.
        self._deaths = 0
        #: Tasks that this engine was given, and those of them that have ended.
        self._given, self._ended = 0, RangeSet()
        #: Tasks that may be out at once (0: any number), and how many suspects have not ended.
        self._limit = self._left = 0
        self._lost = 0
        #: Why another runner would end the same way; "" as long as there is hope.
        self.unfit = ""

    @property
    def room(self) -> int:
        """How many more tasks may be out."""
        return max(0, self._limit - self._given + len(self._ended)) if self._limit else _ANY

    def given(self, count: int) -> None:
        """The engine was given so many tasks."""
        self._given += count

    def ended(self, event: Results | LargeResult | Files) -> None:
        """The engine told something of a task: perhaps how it ended, perhaps how several did."""
        if isinstance(event, Files):
            return
        first, count = (event.block.first, event.block.count) if isinstance(event, Results) else (event.task, 1)
        self._ended.add(first, first + count)
        self._lost = 0
        self._settle(count)

    def _settle(self, count: int) -> None:
        self._left -= count
        if self._left <= 0 and self._limit:
            self._limit = self._deaths = 0

    def fell(self, died: RunnerDied, held: Iterable[HeldShard]) -> None:
        """The runner ended, with some tasks of the shards `held` out. If one is lost for that, its batch is told."""
        self._deaths += 1
        log.error("event=runner-died reason=%s deaths=%d", died.reason, self._deaths)
        out = [(shard, *part) for shard in held for given in shard.given for part in self._ended.missing(*given)]
        count = sum(end - first for _, first, end in out)
        self._given, self._ended = 0, RangeSet()
        if self._deaths <= DEATHS_MAX:
            return
        if died.told or not count or (count == 1 and self._lost == LOST_MAX):
            self.unfit = f"the runner died {self._deaths} times: {died.reason}"
        elif count > 1:
            self._limit, self._left = max(1, count // PART), count
        else:
            ((shard, task, _),) = out
            log.error("event=task-lost task=%d reason=ends-its-runner", task)
            shard.batch.add(_lost(task, died.reason))
            self._lost += 1
            self._limit = 1
            self._settle(1)


def _lost(task: int, reason: str) -> ResultBlock:
    message = f"the process that runs the job's tasks ended again and again, in the end with no other task: {reason}"
    document = failure(Status.lost, message)
    zeros = array("d", [0.0]), array("f", [0.0])
    return ResultBlock(task, bytes([Status.lost]), lengths_of([document]), document, *zeros, facts={"attempt": 0})
