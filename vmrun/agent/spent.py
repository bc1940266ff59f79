"""The end of a job that several VMs shared and whose money is spent: the last of them to take its leave declares it."""

from __future__ import annotations

from vmrun.core.errors import BudgetError
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.records import Final

from .workshop import Workshop


def end_if_last(shop: Workshop, job: str, why: str) -> bool:
    """Declare the job failed if none of its other VMs may still work on it; whether it was declared.

    To be called when this VM has saved what it had and stands drained in its own journal: of two VMs that end at the
    same time, at least the one that drained last sees the other one drained. Raises StoreError.
    """
    ledger = JobLedger(shop.desk, job)
    fold = ledger.refresh()
    if fold.final is not None:
        return False
    shards = [ledger.shard(plan) for plan in fold.shards()]
    # A client may have died after it gave a VM the job, and before it listed it.
    others = {*fold.vms, *_claimants(shards)} - {shop.config.vm}
    if any(shop.owners.stays(vm) for vm in others):
        return False
    # Once more: what they saved last, they saved before they left; and one may have begun since.
    if not _claimants(shards) <= {*others, shop.config.vm}:
        return False
    folds = [shard.fold for shard in shards]
    failed = sum(len(shard.failed) for shard in folds)
    done = sum(len(shard.done) for shard in folds) - failed
    message = f"its money is spent, of which each of its {len(others) + 1} VMs had a part: {why.partition(': ')[2]}"
    hint = f"`vmrun result {job}` has what had finished; a higher --max-cost lets it run on"
    return ledger.finish(Final("failed", done, failed, message, hint, BudgetError.code))


def _claimants(shards: list[ShardLedger]) -> set[str]:
    """All VMs that ever held one of the shards, by their journals as they stand."""
    return {vm for shard in shards for vm in shard.catch_up().claimants}
