"""How much of a job one VM takes at a time: all that it can hold if it is alone, no more than it needs if others share.

A VM of several holds what keeps its workers at work until it looks again, so that a VM that comes later,
or is faster, finds shards that nobody has, and the end of the job is not one VM's.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from vmrun.core.blocks import TaskBlock
from vmrun.core.model import ShardPlan
from vmrun.core.ranges import RangeSet

from .commit import Batch

#: Shards that one VM holds at once at most, or this many for each worker: calls of an open job are a shard each.
SHARDS_MAX, SHARDS_PER_WORKER = 64, 2
#: Seconds of work, as fast as it went so far, that a VM of several has in hand: more than pass between two looks.
AHEAD = 2.0
#: Shards of others that one look looks into: each costs a request, and the tasks at hand wait meanwhile.
LOOKS_MAX = 16


@dataclass(slots=True)
class HeldShard:
    """A shard that this VM works on."""

    plan: ShardPlan
    batch: Batch
    feed: Iterator[tuple[TaskBlock, str]]
    fed: bool = False
    #: Tasks that the engine has been given.
    given: RangeSet = field(default_factory=RangeSet)

    @property
    def left(self) -> int:
        """Tasks that have no outcome yet, committed or not."""
        return self.plan.count - len(self.batch.ledger.fold.done) - self.batch.tasks

    def cut(self, block: TaskBlock, function: str, most: int) -> tuple[TaskBlock, str]:
        """The first `most` tasks of a block that was taken from `feed`; the others are the next ones there again."""
        if block.count <= most:
            return block, function
        rest = block.slice(block.first + most, block.count - most)
        self.feed = itertools.chain([(rest, function)], self.feed)
        return block.slice(block.first, most), function


class Share:
    """The part of one VM in a job that it shares with `vms - 1` others."""

    def __init__(self, vm: str, vms: int, workers: int) -> None:
        self._alone = vms <= 1
        self._workers = workers
        # Where each VM begins is its own, so that they do not all want the same shard.
        self._begin = zlib.crc32(vm.encode())
        self._looked = 0

    def wants(self, shards: int, tasks: int, rate: float) -> bool:
        """Whether to take another shard with so many in hand, and `tasks` without an outcome in them.

        `rate`: tasks that end here in a second.
        """
        if shards >= max(SHARDS_MAX, SHARDS_PER_WORKER * self._workers):
            return False
        return self._alone or tasks < self._workers + rate * AHEAD

    def turn(self, plans: Iterable[ShardPlan]) -> Iterable[ShardPlan]:
        """The shards to look into now, in order, of those that are not complete and not held.

        Alone: all. Of several: some, others of them the next time.
        """
        if self._alone:
            return plans
        found = list(plans)
        begin = (self._begin + self._looked) % max(1, len(found))
        self._looked += LOOKS_MAX
        return itertools.islice(itertools.chain(found[begin:], found[:begin]), LOOKS_MAX)
