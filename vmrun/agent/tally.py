"""Which shards of a job are complete, and how the tasks in them ended: counted once, by each VM for itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.model import ShardPlan


class Tally:
    """The shards of one job, as the VM `vm` knows them. The journal of a complete one is let go of."""

    def __init__(self, ledger: JobLedger, vm: str) -> None:
        self._ledger = ledger
        self._vm = vm
        self._open: dict[int, ShardLedger] = {}
        #: All shards below this number are complete, and so are those in `_settled`.
        self.floor = 0
        self._settled: set[int] = set()
        #: Tasks of complete shards, and how many of them failed; the reduce is in neither.
        self.ended = self.failed = 0
        #: Whether the reduce failed: 1, or 0.
        self.reduce_failed = 0
        #: Whether a task failed of a shard that this VM had.
        self.failed_here = False

    def is_settled(self, plan: ShardPlan) -> bool:
        """Whether every task of the shard has its outcome; of one that is not known to be complete, by its journal."""
        if self._knows(plan.shard):
            return True
        ledger = self.journal(plan)
        if not ledger.fold.complete and not ledger.catch_up().complete:
            return False
        self._settle(plan, ledger)
        return True

    def journal(self, plan: ShardPlan) -> ShardLedger:
        """The journal of a shard that is not complete, as far as it was read."""
        ledger = self._open.get(plan.shard)
        if ledger is None:
            ledger = self._open[plan.shard] = self._ledger.shard(plan)
        return ledger

    def unknown(self, held: Iterable[int]) -> Iterator[ShardPlan]:
        """The shards, but for the reduce, that are neither `held` nor known to be complete."""
        without = {*held, *self._settled}
        return (plan for plan in self._plans() if plan.shard not in without and not plan.reduce)

    def look(self) -> tuple[bool, ShardPlan | None]:
        """Whether all shards but the reduce are complete; and the reduce, if there is one."""
        reduce: ShardPlan | None = None
        for plan in self._plans():
            if plan.reduce:
                reduce = plan
            elif not self.is_settled(plan):
                return False, reduce
        return True, reduce

    def counts(self) -> tuple[int, int]:
        """Tasks with an outcome, and those of them that failed, in shards that are not complete as well."""
        folds = [ledger.fold for ledger in self._open.values()]
        ended = self.ended + sum(len(fold.done) for fold in folds)
        return ended, self.failed + sum(len(fold.failed) for fold in folds)

    def _plans(self) -> Iterator[ShardPlan]:
        return self._ledger.fold.shards(self.floor)

    def _knows(self, shard: int) -> bool:
        return shard < self.floor or shard in self._settled

    def _settle(self, plan: ShardPlan, ledger: ShardLedger) -> None:
        failed = len(ledger.fold.failed)
        self._settled.add(plan.shard)
        del self._open[plan.shard]
        self.failed_here |= bool(failed) and self._vm in ledger.fold.claimants
        if plan.reduce:
            self.reduce_failed = failed
        else:
            self.ended += plan.count
            self.failed += failed
        while self.floor in self._settled:
            self._settled.remove(self.floor)
            self.floor += 1
