"""One job on several VMs: what each takes of it, what it takes over, and how the last one ends it without money."""

from __future__ import annotations

import dataclasses

from tests.support.meanwhile import Meanwhile
from tests.unit.agent.bench import Bench, FakeEngine
from tests.unit.core.world import JOB, OTHER_VM, THIRD_VM, VM, intent, ready, results
from vmrun.agent import daemon
from vmrun.agent.share import LOOKS_MAX, SHARDS_MAX, Share
from vmrun.agent.spent import end_if_last
from vmrun.core import keys
from vmrun.core.ledger import JobLedger
from vmrun.core.model import ShardPlan
from vmrun.core.records import Final
from vmrun.core.vm_ledger import VmLedger

Engine = type[FakeEngine]


def fleet(bench: Bench, *, max_cost: float = 0.0) -> None:
    """Two VMs at a cent a second that share the job."""
    ledger = JobLedger(bench.desk(), JOB)
    for vm in (VM, OTHER_VM):
        made = VmLedger(bench.desk(), vm)
        assert made.intend(dataclasses.replace(intent(vm, JOB), usd_per_hour=36.0, max_cost=max_cost))
        assert made.created(f"i-{vm}")
        assert ledger.enlist(vm)
        assert made.ready(ready(vm))


def owners(bench: Bench) -> list[str]:
    return [shard.fold.owner for shard in bench.shards()]


def test_a_vm_that_is_alone_takes_all_that_it_can_hold() -> None:
    share = Share(VM, 1, 4)
    assert share.wants(0, 0, 0.0)
    assert share.wants(SHARDS_MAX - 1, 10**6, 0.0)
    assert not share.wants(SHARDS_MAX, 10**6, 0.0)
    plans = [ShardPlan(number, number, 1) for number in range(100)]
    assert list(share.turn(plans)) == plans


def test_a_vm_of_several_takes_what_keeps_it_at_work_until_it_looks_again() -> None:
    share = Share(VM, 3, 4)
    assert share.wants(1, 3, 0.0)
    assert not share.wants(1, 4, 0.0)
    # The faster tasks are, the more of them it has in hand
    assert share.wants(1, 4 + 19, 10.0)
    assert not share.wants(1, 4 + 20, 10.0)


def test_vms_begin_at_different_shards_and_look_at_all_of_them_in_turn() -> None:
    plans = [ShardPlan(number, number, 1) for number in range(100)]
    begins = {next(iter(Share(f"vm{number}", 3, 4).turn(plans))).shard for number in range(20)}
    assert len(begins) > 10
    share = Share(VM, 3, 4)
    seen = [plan.shard for _ in range(-(-len(plans) // LOOKS_MAX)) for plan in share.turn(plans)]
    assert set(seen) == set(range(100))
    assert list(share.turn([])) == []


def test_two_vms_share_a_job_and_the_one_that_is_left_takes_over_what_the_other_held(
    bench: Bench, engine: Engine
) -> None:
    bench.submit(40, 4, vms=2)
    fleet(bench)
    held: list[list[str]] = []

    def other_runs(own: FakeEngine) -> None:
        """The first VM stands still while the other one works to the end of the job."""
        if own.polls == 1 and len(engine.made) == 1:
            held.append(owners(bench))
            bench.run(OTHER_VM)

    engine.script = staticmethod(other_runs)
    began = bench.clock.monotonic()
    final = bench.run(VM).final
    assert final is not None
    assert (final.outcome, final.done) == ("done", 40)
    # Of ten shards the first one took one, and left nine to whoever comes
    assert sorted(held[0]) == ["", *[""] * 8, VM]
    assert bench.values() == list(range(40))
    # Its shard was taken over only when its heart had stood still for long enough
    assert bench.clock.monotonic() - began > 120.0
    assert VM not in owners(bench)


def test_a_vm_whose_money_is_spent_leaves_the_job_to_those_that_have_some(bench: Bench, engine: Engine) -> None:
    engine.stuck = {1}
    bench.submit(8, 2, vms=2)
    fleet(bench, max_cost=1.0)
    shop = bench.shop(heartbeat=1.0)
    daemon._serve(shop)
    fold = bench.job()
    assert fold.final is None
    assert {shard.fold.owner for shard in bench.shards() if not shard.fold.complete} == {""}
    mine = VmLedger(bench.desk(), VM).refresh()
    assert mine.drain is not None
    assert mine.drain.reason.startswith("maximum cost: it has cost $0.9")
    # Then the other one, whose money is spent by now too, has it end
    daemon._serve(bench.shop(OTHER_VM))
    final = bench.job().final
    assert final is not None
    assert (final.outcome, final.code, final.failed) == ("failed", "budget", 0)
    assert "of which each of its 2 VMs had a part" in final.error
    settled = [value for value in bench.values() if value != "cancelled"]
    assert final.done == len(settled) > 0


def test_a_job_is_not_ended_while_another_of_its_vms_may_work(bench: Bench, engine: Engine) -> None:
    bench.submit(8, 2, vms=2)
    fleet(bench, max_cost=1.0)
    shop = bench.shop()
    assert not end_if_last(shop, JOB, "maximum cost: spent")
    other = VmLedger(bench.desk(), OTHER_VM)
    assert other.delete("lost", "client")
    assert end_if_last(shop, JOB, "maximum cost: spent")
    assert not end_if_last(shop, JOB, "maximum cost: spent")


def test_a_vm_that_works_without_being_listed_keeps_the_job_from_being_ended(bench: Bench, engine: Engine) -> None:
    bench.submit(8, 2, vms=2)
    fleet(bench, max_cost=1.0)
    listed, unlisted = VmLedger(bench.desk(), OTHER_VM), VmLedger(bench.desk(), THIRD_VM)
    assert listed.delete("lost", "client")
    # Given a third VM whose client died after it had given it the job
    assert unlisted.intend(intent(THIRD_VM, JOB))
    assert unlisted.created("i-3")
    assert unlisted.ready(ready(THIRD_VM))
    ledger = JobLedger(bench.desk(f"vm:{THIRD_VM}"), JOB)
    assert ledger.shard(next(iter(ledger.refresh().shards()))).claim(THIRD_VM)
    assert not end_if_last(bench.shop(), JOB, "maximum cost: spent")
    assert unlisted.delete("lost", "client")
    assert end_if_last(bench.shop(), JOB, "maximum cost: spent")


def test_what_a_vm_has_finished_is_kept_when_another_one_declares_the_end_first(bench: Bench, engine: Engine) -> None:
    engine.stuck = {0, 1, 2, 3}
    bench.submit(4, 4, vms=2)
    fleet(bench)

    def other_ends(own: FakeEngine) -> None:
        """The other VM sees the cancellation, and says so, before this one looks."""
        if own.polls == 1:
            # A job that has run for long is committed now and then only
            own.clock.sleep(3000.0)
            engine.stuck = {1, 2, 3}
        elif own.polls == 4:
            assert bench.values() == [0]
            engine.stuck = {1}
            ledger = JobLedger(bench.desk(), JOB)
            assert ledger.cancel("user")
            assert ledger.finish(Final("cancelled", 0, 0))
            # What runs takes its time to end
            own.cancel = lambda: None  # type: ignore[method-assign]

    engine.script = staticmethod(other_ends)
    final = bench.run(VM).final
    assert final is not None
    assert final.outcome == "cancelled"
    assert bench.values() == [0, 2, 3]


def test_of_shards_only_the_last_outcomes_are_committed_in_a_hurry(bench: Bench, engine: Engine) -> None:
    bench.submit(40, 2, vms=2)
    fleet(bench)
    assert bench.run(VM).final is not None
    entries = sum(1 for listed in bench.memory.list(f"jobs/{JOB}/shards/"))
    # A claim and a commit for each of twenty shards, and no more
    assert entries == 40


def test_whoever_ends_a_job_whose_money_is_spent_counts_what_others_saved_before_they_left(bench: Bench) -> None:
    bench.submit(4, 2, vms=2)
    for vm in (VM, OTHER_VM):
        bench.vm(vm)
    other = JobLedger(bench.desk(f"vm:{OTHER_VM}"), JOB)
    shard = other.shard(next(other.refresh().shards()))
    assert shard.claim(OTHER_VM)

    def save_and_leave() -> None:
        refs, inline = results(0, b"x", b"y")
        assert shard.commit(OTHER_VM, shard.fold.epoch, refs, (), inline)
        assert VmLedger(bench.desk(), OTHER_VM).drain("maximum cost: it has cost $1", jobs=1)

    # The other one's journal is read to know its key, and then to know whether it stays
    entry = keys.entry(keys.vm_journal(OTHER_VM), 0)
    bench.blobs = Meanwhile(bench.memory, entry, save_and_leave, reads=2)
    assert end_if_last(bench.shop(), JOB, "maximum cost: it has cost $1")
    final = bench.job().final
    assert final is not None
    assert (final.done, final.failed) == (2, 0)
