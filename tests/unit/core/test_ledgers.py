"""Ledgers over a store: which moves win, which lose, and that each says truly whether it holds."""

from __future__ import annotations

import dataclasses

import pytest

from tests.sim.keys import FakeSigner, fake_key
from tests.unit.core.world import (
    DEPLOYMENT,
    FUNCTION,
    JOB,
    OTHER_JOB,
    OTHER_VM,
    THIRD_VM,
    VM,
    Bench,
    commit,
    intent,
    job_spec,
    ready,
    results,
)
from vmrun.core import keys
from vmrun.core.errors import Corrupt, StoreDenied, StoreError, StoreUnavailable
from vmrun.core.ledger import JobLedger, ShardLedger, WriterCheck
from vmrun.core.model import ShardPlan
from vmrun.core.outcomes import OutcomeReader, in_order
from vmrun.core.records import Alive, Assign, Cancel, Claim, Delete, Drain, Entry, Final, Ready, Record, Results, Submit
from vmrun.core.sealing import seal
from vmrun.core.vm_ledger import VmLedger

PLAN = ShardPlan(0, 0, 4)
AGENT, OTHER_AGENT = f"vm:{VM}", f"vm:{OTHER_VM}"


@pytest.fixture
def bench() -> Bench:
    """A deployment with one job that two VMs were made ready for."""
    bench = Bench()
    bench.submitted()
    bench.ready_vm(VM)
    bench.ready_vm(OTHER_VM)
    return bench


def forge(bench: Bench, prefix: str, body: Record, signer: FakeSigner, attachment: bytes = b"") -> None:
    """Put an entry at the end of a journal, whoever may write there."""
    n = sum(key.startswith(prefix) for key in bench.store.objects)
    bench.store.objects[keys.entry(prefix, n)] = seal(prefix, Entry(n, "", "forged", 0.0, body, attachment), signer)


# --- jobs ---


def test_a_job_is_submitted_once() -> None:
    bench = Bench()
    one, two = bench.job(), bench.job()
    body = Submit(JOB, job_spec(), DEPLOYMENT)

    assert one.submit(body)
    assert not two.submit(body)
    assert two.fold.submit == body


@pytest.mark.parametrize("fate", ["lost", "dropped", "late"])
def test_a_submission_in_doubt_holds_when_repeated(fate: str) -> None:
    bench = Bench()
    ledger = bench.job()
    body = Submit(JOB, job_spec(), DEPLOYMENT)
    bench.store.doubt(fate, lambda: ledger.submit(body))
    bench.store.deliver()

    assert ledger.submit(body)
    assert not bench.job().submit(body)


def test_nothing_is_said_of_a_job_that_does_not_exist() -> None:
    bench = Bench()
    ledger = bench.job()

    assert not ledger.cancel("me")
    assert not ledger.close()
    assert not ledger.finish(Final("done", 0, 0))
    assert ledger.add(1, FUNCTION, lambda first: b"") is None
    assert bench.store.objects == {}


def test_a_journal_that_does_not_begin_with_a_submission_is_no_job() -> None:
    bench = Bench()
    forge(bench, keys.job_journal(JOB), Cancel("early"), FakeSigner("client"))

    with pytest.raises(Corrupt):
        bench.job().submit(Submit(JOB, job_spec(), DEPLOYMENT))


def test_another_jobs_submission_is_refused_every_time() -> None:
    bench = Bench()
    forge(bench, keys.job_journal(JOB), Submit(OTHER_JOB, job_spec(), DEPLOYMENT), FakeSigner("client"))
    ledger = bench.job()

    for _ in range(2):
        with pytest.raises(Corrupt):
            ledger.refresh()


def test_the_end_is_declared_once(bench: Bench) -> None:
    one, two = bench.job(), bench.job(writer=AGENT)
    two.refresh()
    VmLedger(two._desk, VM).refresh()

    assert one.finish(Final("done", 12, 0))
    assert not two.finish(Final("failed", 0, 12))
    assert not one.cancel("me")
    assert two.fold.final == Final("done", 12, 0)


def test_a_job_is_cancelled_once(bench: Bench) -> None:
    one, two = bench.job(), bench.job()

    assert one.cancel("me")
    assert not two.cancel("you")
    assert two.fold.cancelled_by == "me"
    assert two.finish(Final("cancelled", 0, 0))


def open_job(bench: Bench) -> JobLedger:
    return bench.submitted(OTHER_JOB, kind="open")


def block(first: int) -> bytes:
    return f"tasks from {first}".encode()


def test_tasks_of_two_clients_follow_on_from_each_other(bench: Bench) -> None:
    one = open_job(bench)
    two = bench.job(OTHER_JOB)

    plans = [ledger.add(count, FUNCTION, block) for ledger, count in ((one, 3), (two, 2), (one, 1))]

    assert [(plan.shard, plan.first, plan.count) for plan in plans if plan] == [(0, 0, 3), (1, 3, 2), (2, 5, 1)]
    reader = bench.job(OTHER_JOB)
    assert list(reader.refresh().shards()) == plans
    for plan in plans:
        assert plan is not None
        assert reader.attachment(plan.entry) == block(plan.first)


@pytest.mark.parametrize("fate", ["lost", "dropped", "late"])
def test_tasks_added_in_doubt_are_added_once(bench: Bench, fate: str) -> None:
    ledger = open_job(bench)
    bench.store.doubt(fate, lambda: ledger.add(3, FUNCTION, block))
    bench.store.deliver()

    plan = ledger.add(3, FUNCTION, block)

    assert plan is not None
    assert (plan.first, plan.count) == (0, 3)
    again = ledger.add(3, FUNCTION, block)
    assert again is not None
    assert (again.first, again.count) == (3, 3)
    assert bench.job(OTHER_JOB).refresh().tasks == 6


def test_other_tasks_after_a_doubt_are_other_tasks(bench: Bench) -> None:
    ledger = open_job(bench)
    bench.store.doubt("dropped", lambda: ledger.add(3, FUNCTION, block))

    plan = ledger.add(3, FUNCTION, lambda first: b"other")

    assert plan is not None
    assert plan.first == 3
    assert ledger.attachment(plan.entry) == b"other"


def test_tasks_lost_to_another_client_are_added_behind_its(bench: Bench) -> None:
    one, two = open_job(bench), bench.job(OTHER_JOB)
    bench.store.doubt("late", lambda: one.add(3, FUNCTION, block))
    assert two.add(2, FUNCTION, block) is not None
    assert bench.store.deliver() == 0

    plan = one.add(3, FUNCTION, block)

    assert plan is not None
    assert (plan.first, bench.job(OTHER_JOB).refresh().tasks) == (2, 5)


@pytest.mark.parametrize("end", ["close", "cancel", "finish"])
def test_no_tasks_are_added_after_the_end(bench: Bench, end: str) -> None:
    ledger = open_job(bench)
    assert {
        "close": ledger.close,
        "cancel": lambda: ledger.cancel("me"),
        "finish": lambda: ledger.finish(Final("failed", 0, 0)),
    }[end]()

    assert bench.job(OTHER_JOB).add(1, FUNCTION, block) is None
    assert not ledger.close() or end == "cancel"


def test_no_tasks_are_added_to_a_job_that_is_not_open(bench: Bench) -> None:
    ledger = bench.job()

    assert ledger.add(1, FUNCTION, block) is None
    assert not ledger.close()


def test_a_missing_attachment_is_corrupt(bench: Bench) -> None:
    with pytest.raises(Corrupt):
        bench.job().attachment(7)


# --- shards ---


def agents(bench: Bench) -> tuple[ShardLedger, ShardLedger]:
    return bench.shard(PLAN, writer=AGENT), bench.shard(PLAN, writer=OTHER_AGENT)


def outcomes(bench: Bench, plan: ShardPlan = PLAN, job: str = JOB) -> dict[int, bytes]:
    """What a fresh reader gets."""
    ledger = ShardLedger(bench.reader(), job, plan)
    ledger.refresh()
    reader = OutcomeReader(bench.store, job, ledger.prefix)  # type: ignore[arg-type]
    return {o.task: bytes(o.payload) for extent in in_order(ledger.fold) for o in reader.outcomes(extent)}


def test_one_of_two_claims_wins(bench: Bench) -> None:
    one, two = agents(bench)

    assert one.claim(VM)
    assert not two.claim(OTHER_VM)
    assert (two.fold.owner, two.fold.epoch) == (VM, 0)


def test_a_dead_owner_is_replaced_and_its_results_stay(bench: Bench) -> None:
    one, two = agents(bench)
    one.claim(VM)
    assert commit(one, VM, 0, b"r0", b"r1")

    assert two.claim(OTHER_VM, from_owner=VM)
    assert two.fold.remaining() == [(2, 4)]
    # The old owner was only slow: what it finished first counts, and it learns that the shard is not its any more.
    assert not commit(one, VM, 2, b"z2")
    assert commit(two, OTHER_VM, 2, b"r2", b"r3")

    assert outcomes(bench) == {0: b"r0", 1: b"r1", 2: b"z2", 3: b"r3"}
    assert not one.claim(VM, from_owner=OTHER_VM)


def test_only_the_owner_that_was_judged_is_replaced(bench: Bench) -> None:
    bench.ready_vm(THIRD_VM)
    one, two = agents(bench)
    three = bench.shard(PLAN, writer=f"vm:{THIRD_VM}")
    one.claim(VM)
    assert two.claim(OTHER_VM, from_owner=VM)

    assert not three.claim(THIRD_VM, from_owner=VM)
    assert three.fold.owner == OTHER_VM


def test_a_released_shard_is_anybodys(bench: Bench) -> None:
    one, two = agents(bench)
    one.claim(VM)

    assert one.release(VM, "preempted")
    assert not one.release(VM, "preempted")
    assert two.claim(OTHER_VM)
    assert not one.release(VM, "late")
    assert two.fold.owner == OTHER_VM


@pytest.mark.parametrize("fate", ["lost", "dropped", "late"])
def test_a_claim_in_doubt_holds_when_repeated(bench: Bench, fate: str) -> None:
    one, two = agents(bench)
    bench.store.doubt(fate, lambda: one.claim(VM))
    bench.store.deliver()

    assert one.claim(VM)
    assert one.fold.owner == VM
    assert not two.claim(OTHER_VM)
    assert two.fold.epoch == one.fold.epoch


def test_a_claim_in_doubt_that_was_taken_over_does_not_hold(bench: Bench) -> None:
    one, two = agents(bench)
    bench.store.doubt("dropped", lambda: one.claim(VM))
    assert two.claim(OTHER_VM, from_owner=VM)

    assert not one.claim(VM)


def test_a_restarted_agent_takes_its_own_shard_anew(bench: Bench) -> None:
    one, _ = agents(bench)
    one.claim(VM)
    again = bench.shard(PLAN, writer=AGENT)

    assert not again.claim(VM)
    assert again.claim(VM, from_owner=VM)
    assert again.fold.epoch == 1
    # The process before it, should it still be there, learns that it is not the owner any more.
    assert not commit(one, VM, 0, b"r0")


@pytest.mark.parametrize("fate", ["lost", "dropped", "late"])
def test_results_in_doubt_are_committed_once(bench: Bench, fate: str) -> None:
    one, _ = agents(bench)
    one.claim(VM)
    refs, inline = results(0, b"first", b"first")
    bench.store.doubt(fate, lambda: one.commit(VM, 0, refs, (), inline))
    bench.store.deliver()

    # The retry holds other outcomes of the same tasks: had the first ones landed, they stay.
    assert commit(one, VM, 0, b"second", b"second")

    assert outcomes(bench) == {0: b"first", 1: b"first"}


def test_nobody_claims_a_complete_shard(bench: Bench) -> None:
    one, two = agents(bench)
    one.claim(VM)
    commit(one, VM, 0, b"a", b"b", b"c", b"d")

    assert not two.claim(OTHER_VM, from_owner=VM)
    assert two.fold.complete


def test_what_was_read_before_an_outage_is_told_after_it(bench: Bench) -> None:
    one, _ = agents(bench)
    one.claim(VM)
    commit(one, VM, 0, b"a")
    commit(one, VM, 1, b"b")
    reader = ShardLedger(bench.reader(), JOB, PLAN)
    real = bench.store.get

    def get(key: str, start: int = 0, end: int | None = None) -> bytes:
        if key.endswith("000002") and "shards" in key:
            raise StoreUnavailable("no answer")
        return real(key, start, end)

    bench.store.get = get  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        reader.refresh()
    bench.store.get = real  # type: ignore[method-assign]

    told = reader.refresh()
    assert [entry.n for entry, _ in told] == [0, 1, 2]
    assert [(e.first, e.end) for _, extents in told for e in extents] == [(0, 1), (1, 2)]
    assert reader.refresh() == []


def test_a_vm_without_the_job_is_refused_and_does_not_write(bench: Bench) -> None:
    bench.submitted(OTHER_JOB)
    bench.ready_vm(THIRD_VM, OTHER_JOB)
    shard = bench.shard(PLAN, writer=f"vm:{THIRD_VM}")
    before = dict(bench.store.objects)

    with pytest.raises(StoreDenied):
        shard.claim(THIRD_VM)
    with pytest.raises(StoreDenied):
        bench.job(writer=f"vm:{THIRD_VM}").finish(Final("done", 12, 0))
    assert bench.store.objects == before


@pytest.mark.parametrize("body", [Claim(THIRD_VM), Results(THIRD_VM, 0, ()), Claim(VM)])
def test_an_entry_of_a_vm_without_the_job_is_corrupt_for_everybody(bench: Bench, body: Record) -> None:
    bench.submitted(OTHER_JOB)
    bench.ready_vm(THIRD_VM, OTHER_JOB)
    forge(bench, keys.shard_journal(JOB, 0), body, FakeSigner(f"vm:{THIRD_VM}"))

    for desk in (bench.reader(), bench.desk(), bench.desk(AGENT)):
        with pytest.raises(Corrupt):
            ShardLedger(desk, JOB, PLAN).refresh()


def test_a_vm_may_work_once_it_is_assigned(bench: Bench) -> None:
    bench.submitted(OTHER_JOB)
    third = bench.ready_vm(THIRD_VM, OTHER_JOB)
    check = WriterCheck(bench.desk(), JOB)
    signer = FakeSigner(f"vm:{THIRD_VM}")
    assert not check.verify(signer.name, b"x", signer.sign(b"x"))

    assert third.assign(JOB, 0.0)

    assert check.verify(signer.name, b"x", signer.sign(b"x"))
    assert not check.verify(signer.name, b"x", signer.sign(b"y"))
    assert bench.shard(PLAN, writer=signer.name).claim(THIRD_VM)


@pytest.mark.parametrize("writer", ["", "client2", "vm:", "vm:../../jobs", f"vm:{'a' * 25}", f"VM:{VM}", "reader"])
def test_writers_that_do_not_exist_are_refused_without_asking_the_store(bench: Bench, writer: str) -> None:
    bench.store.blind = 1

    assert not WriterCheck(bench.desk(), JOB).verify(writer, b"x", FakeSigner(writer).sign(b"x"))
    assert bench.store.blind == 1


def test_a_vm_that_is_not_ready_has_no_key(bench: Bench) -> None:
    ledger = bench.vm(THIRD_VM)
    ledger.intend(intent(THIRD_VM))
    signer = FakeSigner(f"vm:{THIRD_VM}")

    assert not WriterCheck(bench.desk(), JOB).verify(signer.name, b"x", signer.sign(b"x"))
    with pytest.raises(StoreDenied):
        bench.vm(THIRD_VM, writer=signer.name).drain("boot took too long", jobs=1)
    assert bench.vm(THIRD_VM).refresh().phase == "intended"


def test_what_a_vm_did_stays_readable_whatever_befalls_its_journal_later(bench: Bench) -> None:
    one, _ = agents(bench)
    one.claim(VM)
    commit(one, VM, 0, b"a", b"b", b"c", b"d")
    seen = outcomes(bench)

    bench.vm().delete("idle", "reaper")
    assert outcomes(bench) == seen
    bench.store.objects[keys.entry(keys.vm_journal(VM), 4)] = b"garbage"
    assert outcomes(bench) == seen


# --- VMs ---


def test_an_intent_comes_first_or_not_at_all() -> None:
    bench = Bench()
    one, two = bench.vm(), bench.vm()

    assert one.intend(intent())
    assert not two.intend(intent())
    assert two.fold.intent == intent()


@pytest.mark.parametrize("fate", ["lost", "dropped", "late"])
def test_an_intent_in_doubt_holds_when_repeated(fate: str) -> None:
    bench = Bench()
    ledger = bench.vm()
    bench.store.doubt(fate, lambda: ledger.intend(intent()))
    bench.store.deliver()

    assert ledger.intend(intent())
    assert not bench.vm().intend(intent())


def test_an_id_that_was_condemned_is_burnt() -> None:
    bench = Bench()
    assert bench.vm().delete("orphan", "reaper")

    slow = bench.vm()
    assert not slow.intend(intent())
    assert slow.fold.ended
    assert bench.vm().gone("not listed")


def test_nothing_is_said_of_a_vm_that_was_never_intended() -> None:
    bench = Bench()
    ledger = bench.vm()

    assert not ledger.created("i-1")
    assert not ledger.failed("quota", "")
    assert not ledger.ready(ready())
    assert not ledger.suspect("reaper")
    assert not ledger.gone("not listed")
    assert bench.store.objects == {}


def test_a_vm_is_made_ready_once() -> None:
    bench = Bench()
    ledger = bench.ready_vm()

    assert not ledger.ready(Ready(agent_key="00", boot_id="other"))
    assert not ledger.created("i-2")
    assert not ledger.failed("quota", "")
    assert bench.vm().refresh().cloud_id == f"i-{VM[:3]}"


def test_a_key_that_is_none_is_refused_before_it_is_written() -> None:
    bench = Bench()
    ledger = bench.vm()
    ledger.intend(intent())
    with pytest.raises(Corrupt):
        ledger.ready(Ready(agent_key="no key", boot_id="b"))
    assert bench.vm().refresh().ready is None
    assert ledger.ready(ready())


def test_readys_key_replaces_what_was_believed_before() -> None:
    bench = Bench()
    bench.ready_vm()
    desk = bench.desk()
    desk.keyring.add(AGENT, b"an old belief")
    VmLedger(desk, VM).refresh()

    assert desk.keyring.verify(AGENT, b"x", FakeSigner(AGENT).sign(b"x"))
    assert ready().agent_key == fake_key(AGENT).hex()


def test_assign_and_delete_compete_and_one_wins() -> None:
    for first in ("assign", "delete"):
        bench = Bench()
        bench.ready_vm()
        client, reaper = bench.vm(), bench.vm()
        seen = (client.refresh(), reaper.refresh(), reaper.seen)[2]
        moves = {
            "assign": lambda client=client: client.assign(OTHER_JOB, 9.0),
            "delete": lambda reaper=reaper, seen=seen: reaper.delete("idle", "reaper", seen=seen),
        }
        second = "delete" if first == "assign" else "assign"

        assert moves[first]()
        assert not moves[second]()
        fold = bench.vm().refresh()
        assert fold.ended == (first == "delete")
        assert (OTHER_JOB in fold.jobs) == (first == "assign")


def test_assign_and_delete_race_for_one_slot() -> None:
    # Both have folded the same journal and judged before either writes: only the slot decides.
    for first in ("assign", "delete"):
        bench = Bench()
        bench.ready_vm()
        client, reaper = bench.vm(), bench.vm()
        client.refresh()
        reaper.refresh()
        seen = reaper.seen
        assign = lambda client=client: client.assign(OTHER_JOB, 9.0)
        delete = lambda reaper=reaper, seen=seen: reaper.delete("idle", "reaper", seen=seen)
        outer, inner = (delete, assign) if first == "assign" else (assign, delete)
        won: list[bool] = []
        bench.store.before_create = [lambda inner=inner, won=won: won.append(inner())]

        assert outer() is False
        assert won == [True]


def test_drain_holds_only_for_the_jobs_it_was_meant_for() -> None:
    bench = Bench()
    bench.ready_vm()
    agent, client = bench.vm(writer=AGENT), bench.vm()
    assert agent.refresh().jobs == [JOB]
    assert client.assign(OTHER_JOB, 9.0)

    assert not agent.drain("idle", jobs=1)
    assert agent.fold.drain is None
    assert agent.drain("idle", jobs=2)
    assert not client.assign("3" * 26, 9.0)


def test_drain_races_with_assign_for_one_slot() -> None:
    bench = Bench()
    bench.ready_vm()
    agent, client = bench.vm(writer=AGENT), bench.vm()
    agent.refresh()
    bench.store.before_create = [lambda: client.assign(OTHER_JOB, 9.0)]

    assert not agent.drain("idle", jobs=1)
    assert bench.vm().refresh().jobs == [JOB, OTHER_JOB]
    assert bench.vm().refresh().drain is None


@pytest.mark.parametrize("fate", ["lost", "dropped", "late"])
def test_moves_in_doubt_hold_when_repeated(fate: str) -> None:
    bench = Bench()
    bench.ready_vm()
    client, agent = bench.vm(), bench.vm(writer=AGENT)
    agent.refresh()
    bench.store.doubt(fate, lambda: client.assign(OTHER_JOB, 9.0))
    bench.store.deliver()
    assert client.assign(OTHER_JOB, 9.0)
    assert bench.vm().refresh().jobs == [JOB, OTHER_JOB]

    bench.store.doubt(fate, lambda: agent.drain("idle", jobs=2))
    bench.store.deliver()
    assert agent.drain("idle", jobs=2)
    assert not client.assign("3" * 26, 9.0)


def test_a_doubtful_drain_that_lost_to_a_job_does_not_hold() -> None:
    bench = Bench()
    bench.ready_vm()
    client, agent = bench.vm(), bench.vm(writer=AGENT)
    agent.refresh()
    bench.store.doubt("late", lambda: agent.drain("idle", jobs=1))
    assert client.assign(OTHER_JOB, 9.0)
    assert bench.store.deliver() == 0

    assert not agent.drain("idle", jobs=1)
    assert bench.vm().refresh().drain is None


def test_a_job_is_given_once_and_not_to_what_ends() -> None:
    bench = Bench()
    bench.ready_vm()
    client = bench.vm()

    assert client.assign(OTHER_JOB, 9.0)
    assert client.assign(OTHER_JOB, 9.0)
    assert client.fold.jobs == [JOB, OTHER_JOB]
    bench.vm(writer=AGENT).refresh()
    assert bench.vm().drain("stop", jobs=2)
    assert not client.assign(OTHER_JOB, 9.0)
    assert not client.assign(JOB, 9.0)


def test_suspicion_is_contested() -> None:
    bench = Bench()
    bench.ready_vm()
    reaper, agent, client = bench.vm(), bench.vm(writer=AGENT), bench.vm()
    assert not agent.alive()

    assert reaper.suspect("reaper")
    assert not client.suspect("another")
    assert not client.assign(OTHER_JOB, 9.0)
    seen = reaper.seen
    assert agent.alive()
    assert not agent.alive()

    assert not reaper.delete("dead", "reaper", seen=seen)
    assert client.assign(OTHER_JOB, 9.0)
    assert reaper.suspect("reaper")
    assert reaper.delete("dead", "reaper", seen=reaper.seen)
    assert not agent.alive()
    assert not agent.drain("idle", jobs=2)


def test_a_vm_is_condemned_once_and_gone_once() -> None:
    bench = Bench()
    bench.ready_vm()
    one, two = bench.vm(), bench.vm()

    assert one.delete("idle", "one")
    assert not two.delete("idle", "two")
    assert one.gone("not listed")
    assert not two.gone("not listed")
    for move in (
        lambda: two.assign(OTHER_JOB, 1.0), lambda: two.suspect("x"), lambda: two.ready(ready()),
        lambda: two.drain("x", jobs=1), lambda: two.created("i-9"), lambda: two.delete("again", "x"),
    ):  # fmt: skip
        assert not move()
    assert two.seen == 5


def test_a_refused_creation_can_be_condemned() -> None:
    bench = Bench()
    ledger = bench.vm()
    ledger.intend(intent())
    assert ledger.failed("quota", "x" * 10_000)
    assert len(ledger.fold.failed.message) == 2000  # type: ignore[union-attr]

    assert bench.vm().delete("refused, and yet it is there", "reaper")
    assert bench.vm().gone("deleted")


@pytest.mark.parametrize("body", [Alive(), Drain("x"), Assign(JOB), Delete("x", "x")])
@pytest.mark.parametrize("met_before", [False, True])
def test_another_vm_in_a_vms_journal_is_corrupt_for_everybody(body: Record, met_before: bool) -> None:
    bench = Bench()
    bench.ready_vm(VM)
    bench.ready_vm(OTHER_VM)
    bench.vm().suspect("reaper")
    forge(bench, keys.vm_journal(VM), body, FakeSigner(OTHER_AGENT))
    desk = bench.desk()
    if met_before:
        VmLedger(desk, OTHER_VM).refresh()

    ledger = VmLedger(desk, VM)
    with pytest.raises(Corrupt):
        ledger.refresh()
    assert ledger.fold.suspected
    assert ledger.fold.jobs == [JOB]
    assert not ledger.fold.ended
    with pytest.raises(Corrupt):
        ledger.delete("dead", "reaper")


def test_what_a_vm_may_not_say_in_its_own_journal_is_void() -> None:
    bench = Bench()
    bench.ready_vm()
    for body in (Assign(OTHER_JOB), Delete("x", "x"), Ready(agent_key="00", boot_id="x"), intent(job=OTHER_JOB)):
        forge(bench, keys.vm_journal(VM), body, FakeSigner(AGENT))

    fold = bench.vm().refresh()
    assert (fold.jobs, fold.delete, fold.ready) == ([JOB], None, ready())
    assert bench.vm().assign(OTHER_JOB, 1.0)


def test_endless_contention_ends_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrun.core.vm_ledger.MOVES_MAX", 20)
    bench = Bench()
    bench.ready_vm()
    ledger = bench.vm()

    def overtake() -> None:
        other = bench.vm()
        assert other.suspect("x") or bench.vm(writer=AGENT).alive()
        bench.store.before_create = [overtake]

    bench.store.before_create = [overtake]
    with pytest.raises(StoreError, match="overtaken") as caught:
        ledger.drain("x", jobs=1)
    assert caught.value.hint


# --- the rest of what ledgers are asked ---


def test_what_is_settled_already_is_not_appended_again(bench: Bench) -> None:
    one, two = agents(bench)
    one.claim(VM)
    commit(one, VM, 0, b"a", b"b")
    two.claim(OTHER_VM, from_owner=VM)
    before = set(bench.store.objects)

    assert not commit(one, VM, 0, b"x", b"y")
    assert set(bench.store.objects) == before
    # In part is not wholly: the task without an outcome gets its one.
    assert not commit(one, VM, 1, b"y", b"z")
    assert outcomes(bench) == {0: b"a", 1: b"b", 2: b"z"}


def test_shards_of_one_job_find_out_once_who_may_write(bench: Bench) -> None:
    plans = [ShardPlan(shard, shard * 4, 4) for shard in range(3)]
    for plan in plans:
        ledger = bench.shard(plan, writer=AGENT)
        ledger.claim(VM)
    asked: list[str] = []
    real = bench.store.get

    def get(key: str, start: int = 0, end: int | None = None) -> bytes:
        asked.append(key)
        return real(key, start, end)

    bench.store.get = get  # type: ignore[method-assign]
    reader = JobLedger(bench.reader(), JOB)
    reader.refresh()
    assert [reader.shard(plan).catch_up().owner for plan in plans] == [VM] * 3
    assert len([key for key in asked if key.startswith(keys.vm_journal(VM))]) == 3


def test_the_submission_alone_can_be_read(bench: Bench) -> None:
    assert bench.job(OTHER_JOB).read_submission() is None
    bench.store.objects[keys.entry(keys.job_journal(JOB), 1)] = b"garbage"

    ledger = bench.job()
    submission = ledger.read_submission()
    assert submission is not None
    assert submission.job == JOB
    assert ledger.read_submission() == submission


def test_the_end_is_not_declared_over_tasks_that_came_in(bench: Bench) -> None:
    ledger = open_job(bench)
    ledger.add(2, FUNCTION, block)

    assert not bench.job(OTHER_JOB).finish(Final("done", 0, 0), tasks=0)
    assert bench.job(OTHER_JOB).finish(Final("done", 2, 0), tasks=2)


def test_a_vm_is_not_condemned_over_a_job_that_came_in() -> None:
    bench = Bench()
    bench.ready_vm()
    assert bench.vm().assign(OTHER_JOB, 9.0)

    assert not bench.vm().delete("done", "client", jobs=1)
    assert bench.vm().delete("done", "client", jobs=2)


def test_jobs_and_vms_of_another_deployment_are_refused() -> None:
    bench = Bench()
    bench.submitted()
    bench.ready_vm()
    own = dataclasses.replace(bench.desk(), deployment=DEPLOYMENT)
    other = dataclasses.replace(bench.desk(), deployment="1" * 26)

    assert JobLedger(own, JOB).refresh().submit is not None
    assert VmLedger(own, VM).has(JOB)
    for _ in range(2):
        with pytest.raises(Corrupt, match="another deployment"):
            JobLedger(other, JOB).refresh()
    ledger = VmLedger(other, VM)
    for _ in range(2):
        with pytest.raises(Corrupt, match="another deployment"):
            ledger.refresh()
        with pytest.raises(Corrupt, match="another deployment"):
            ledger.delete("idle", "reaper")
