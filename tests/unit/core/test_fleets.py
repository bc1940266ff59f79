"""A job of several VMs: how it is cut, what its journal says of them, and what of its money they have."""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.core.world import JOB, OTHER_JOB, OTHER_VM, THIRD_VM, VM, Bench, intent, job_spec, ready
from vmrun.core.folds import VmFold
from vmrun.core.ledger import JobLedger
from vmrun.core.model import SHARDS_MOST, SHARDS_PER_VM, plan_shards, shard_size
from vmrun.core.money import reserved
from vmrun.core.records import Enlist, Final, Replace, Submit
from vmrun.core.vm_ledger import VmLedger


@pytest.mark.parametrize(
    ("tasks", "vms", "size"),
    [
        (0, 4, 0),
        (1000, 1, 1000),
        (3, 4, 1),
        (64, 4, 1),
        (65, 4, 2),
        (10_000, 4, 157),
        (1_000_000, 256, 977),
    ],
)
def test_a_job_is_cut_into_some_shards_for_each_vm(tasks: int, vms: int, size: int) -> None:
    assert shard_size(tasks, vms) == size


def test_there_are_never_more_shards_than_wanted() -> None:
    for tasks in (1, 2, 63, 64, 65, 1000, 99_999):
        for vms in (2, 3, 7, 64, 100, 256):
            spec = job_spec(tasks=tasks, shard_size=shard_size(tasks, vms))
            shards = list(plan_shards(spec))
            assert len(shards) <= max(vms, min(SHARDS_PER_VM * vms, SHARDS_MOST))
            assert sum(plan.count for plan in shards) == tasks


@pytest.fixture
def bench() -> Bench:
    return Bench()


def submitted(bench: Bench, **changes: object) -> JobLedger:
    ledger = JobLedger(bench.desk(), JOB)
    spec = dataclasses.replace(job_spec(), **changes)  # type: ignore[arg-type]
    assert ledger.submit(Submit(JOB, spec, ""))
    return ledger


def test_vms_are_listed_once_and_a_loss_is_one_clients(bench: Bench) -> None:
    mine, other = submitted(bench, vms=2, replace_lost=2), JobLedger(bench.desk(), JOB)
    assert mine.enlist(VM)
    assert not other.enlist(VM)
    assert other.enlist(OTHER_VM)
    assert mine.refresh().vms == [VM, OTHER_VM]
    assert mine.replace(VM)
    assert not other.replace(VM)
    assert other.replace(OTHER_VM)
    # So many as the job asked for
    assert mine.enlist(THIRD_VM)
    assert not mine.replace(THIRD_VM)
    assert other.refresh().replaced == [VM, OTHER_VM]


def test_the_list_has_no_room_for_more_than_are_wanted(bench: Bench) -> None:
    mine, other = submitted(bench, vms=2), JobLedger(bench.desk(), JOB)
    assert mine.enlist(VM, 2)
    assert other.enlist(OTHER_VM, 2)
    assert not mine.enlist(THIRD_VM, 2)
    assert not mine.enlist(THIRD_VM, 2, {THIRD_VM})
    assert mine.enlist(THIRD_VM, 2, {VM})
    assert other.refresh().vms == [VM, OTHER_VM, THIRD_VM]


def test_nothing_is_replaced_for_a_job_that_does_not_ask_or_has_ended(bench: Bench) -> None:
    ledger = submitted(bench, vms=2)
    assert ledger.enlist(VM)
    assert not ledger.replace(VM)
    assert ledger.finish(Final("done", 12, 0))
    assert not ledger.enlist(OTHER_VM)


def test_nothing_is_replaced_for_a_cancelled_job(bench: Bench) -> None:
    ledger = submitted(bench, vms=2, replace_lost=1)
    assert ledger.enlist(VM)
    assert ledger.cancel("user")
    assert not ledger.replace(VM)


def test_a_vm_does_not_enlist_itself_or_others(bench: Bench) -> None:
    ledger = submitted(bench, vms=2, replace_lost=1)
    made = VmLedger(bench.desk(), VM)
    assert made.intend(intent(VM, JOB))
    assert made.created("i-1")
    assert made.ready(ready(VM))
    forged = JobLedger(bench.desk(f"vm:{VM}"), JOB)
    forged._move(Enlist(OTHER_VM), lambda fold: True)
    forged._move(Replace(VM), lambda fold: True)
    fold = ledger.refresh()
    assert (fold.vms, fold.replaced) == ([], [])


def priced(bench: Bench, max_cost: float) -> VmFold:
    made = VmLedger(bench.desk(), VM)
    assert made.intend(dataclasses.replace(intent(VM, JOB), usd_per_hour=36.0, max_cost=max_cost))
    assert made.created("i-1")
    assert made.ready(ready(VM))
    return made.refresh()


def test_a_vm_that_works_has_its_whole_part_and_one_that_ended_what_it_spent(bench: Bench) -> None:
    fold = priced(bench, 5.0)
    now = fold.created_at
    assert reserved(fold, JOB, now + 100) == 5.0
    # Overdrawn: what it costs counts
    assert reserved(fold, JOB, now + 600) == pytest.approx(6.0)
    ledger = VmLedger(bench.desk(), VM)
    bench.clock.sleep(100)
    assert ledger.delete("lost", "client")
    assert ledger.gone("not found")
    assert reserved(ledger.refresh(), JOB, now + 10_000) == pytest.approx(1.0, abs=0.1)


def test_a_vm_that_has_another_job_has_nothing_more_of_this_one(bench: Bench) -> None:
    priced(bench, 5.0)
    bench.clock.sleep(100)
    ledger = VmLedger(bench.desk(), VM)
    assert ledger.assign(OTHER_JOB, 60.0, 7.0)
    fold = ledger.refresh()
    assert reserved(fold, JOB, bench.clock.now() + 1000) == pytest.approx(1.0, abs=0.1)
    assert reserved(fold, OTHER_JOB, bench.clock.now()) == 7.0


PATIENCE = 90.0


def taken_on(bench: Bench) -> tuple[JobLedger, JobLedger]:
    """A loss that the first of two clients has just taken on."""
    mine, other = submitted(bench, vms=2, replace_lost=1), JobLedger(bench.desk(), JOB)
    assert mine.enlist(VM)
    assert mine.replace(VM)
    return mine, other


def test_a_replacement_is_taken_over_once_it_is_old_and_by_one_client(bench: Bench) -> None:
    mine, other = taken_on(bench)
    third = JobLedger(bench.desk(), JOB)
    bench.clock.sleep(PATIENCE - 1)
    assert not other.take_over(VM, "", PATIENCE, bench.clock.now())
    assert mine.take_over(VM, "", PATIENCE, bench.clock.now())
    bench.clock.sleep(2)
    assert other.take_over(VM, "", PATIENCE, bench.clock.now())
    assert not third.take_over(VM, "", PATIENCE, bench.clock.now())
    assert not mine.take_over(VM, "", PATIENCE, bench.clock.now())
    assert other.take_over(VM, "", PATIENCE, bench.clock.now())
    # It is one loss all the same
    assert mine.refresh().replaced == [VM]


def test_one_who_goes_on_renews_its_word(bench: Bench) -> None:
    mine, other = taken_on(bench)
    bench.clock.sleep(PATIENCE)
    assert mine.take_over(VM, "", PATIENCE, bench.clock.now())
    bench.clock.sleep(PATIENCE - 1)
    assert not other.take_over(VM, "", PATIENCE, bench.clock.now())


def test_what_came_in_the_place_of_a_lost_vm_is_not_got_again_unless_it_came_to_nothing(bench: Bench) -> None:
    mine, other = taken_on(bench)
    assert mine.enlist(OTHER_VM)
    assert other.refresh().replacements.successors == {VM: OTHER_VM}
    bench.clock.sleep(PATIENCE)
    assert not other.take_over(VM, "", PATIENCE, bench.clock.now())
    assert other.take_over(VM, OTHER_VM, PATIENCE, bench.clock.now())
    # By one who knows of it
    bench.clock.sleep(PATIENCE)
    assert not mine.take_over(VM, OTHER_VM, PATIENCE, bench.clock.now())
    assert other.enlist(THIRD_VM)
    assert mine.refresh().replacements.successors == {VM: THIRD_VM}


@pytest.mark.parametrize("ended", [True, False])
def test_nothing_is_taken_over_for_a_job_that_is_over(bench: Bench, ended: bool) -> None:
    mine, other = taken_on(bench)
    bench.clock.sleep(PATIENCE)
    assert mine.finish(Final("done", 12, 0)) if ended else mine.cancel("user")
    assert not other.take_over(VM, "", PATIENCE, bench.clock.now())
    assert not mine.take_over(VM, "", PATIENCE, bench.clock.now())


def test_what_nobody_took_on_is_not_taken_over(bench: Bench) -> None:
    mine, _ = taken_on(bench)
    bench.clock.sleep(PATIENCE)
    assert not mine.take_over(OTHER_VM, "", PATIENCE, bench.clock.now())
