"""What a watcher reads of jobs, VMs and output, and how much of it at once."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.meanwhile import Meanwhile
from tests.unit.agent.bench import Bench, FakeEngine, Switch, engine, outcome
from tests.unit.core.world import JOB, OTHER_JOB, OTHER_VM, VM, an_id, results
from vmrun.agent.commit import OutputWriter
from vmrun.core import keys, output
from vmrun.core.errors import StoreUnavailable, UsageError
from vmrun.core.ledger import JobLedger
from vmrun.core.model import FunctionSpec, JobState, ShardPlan
from vmrun.core.records import Delete, Final, Heartbeat, Hold
from vmrun.core.views import Deadline, OutputChunk
from vmrun.core.vm_ledger import VmLedger
from vmrun.handle import JobHandle, patience
from vmrun.store.counting import CountingStore
from vmrun.store.faulty import Fault, FaultsAt, FaultyStore, When
from vmrun.watch.life import life_of
from vmrun.watch.logs import OutputReader
from vmrun.watch.observe import SILENT, JobObserver, deadlines, find_job, submission_of, view_vm
from vmrun.watch.results import ResultReader, value_of

__all__ = ["engine"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Switch())


def write(bench: Bench, stream: str, *texts: str) -> None:
    writer = OutputWriter(bench.memory, JOB, stream, bench.clock)
    for text in texts:
        writer.add(OutputChunk(0, 1, "stdout", text.encode()))
        writer.flush()


def test_output_is_taken_in_pieces_that_fit_into_memory(bench: Bench) -> None:
    write(bench, "a", *("x" * 100 for _ in range(10)))
    write(bench, "b", *("y" * 100 for _ in range(10)))
    reader = OutputReader(bench.memory, JOB)
    sizes = []
    while chunks := reader.read_some(250):
        sizes.append(sum(len(chunk.data) for chunk in chunks))
    assert sum(sizes) == 2000
    assert max(sizes) <= 350
    write(bench, "c", "late")
    assert [chunk.data for chunk in reader.read_some()] == [b"late"]
    assert reader.read_some() == []


def test_output_that_was_read_before_a_failure_is_not_lost(bench: Bench) -> None:
    write(bench, "a", *(f"{at} " for at in range(6)))
    for number in range(20):
        blobs = FaultyStore(bench.memory, FaultsAt({number: Fault(When.BEFORE)}), bench.rng)
        reader, found = OutputReader(blobs, JOB), b""
        for _ in range(5):
            try:
                found += b"".join(chunk.data for chunk in reader.read_some())
            except StoreUnavailable:
                continue
        assert found == b"0 1 2 3 4 5 ", number


def test_the_end_of_a_job_is_seen_the_later_the_longer_it_ran() -> None:
    assert [round(patience(watched), 3) for watched in (0.0, 0.2, 1.0, 2.0, 10.0, 20.0, 100.0)] == [
        *(0.0, 0.01, 0.05, 0.1, 0.1, 0.2, 1.0)
    ]


def test_a_look_at_a_running_job_costs_little_however_long_it_has_run(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(60, 60)
    bench.vm()
    engine.stuck = {59}
    looks: list[int] = []
    store = CountingStore(bench.memory)
    observer = JobObserver(bench.desk(blobs=store), JOB)

    def script(made: FakeEngine) -> None:
        engine.stuck = set(range(made.polls // 4, 60)) if made.polls < 400 else set()
        before = store.total
        observer.look()
        looks.append(store.total - before)

    engine.script = staticmethod(script)
    bench.run()
    assert observer.look().state is JobState.done
    assert max(looks[10:]) <= 6
    assert [value_of(each) for each in ResultReader(bench.desk(), JOB).outcomes()] == list(range(60))


def test_a_name_is_found_without_reading_whole_journals(bench: Bench) -> None:
    ledger, function = bench.open_job()
    for _ in range(30):
        assert ledger.add(1, function, lambda first: b"block") is not None
    bench.memory.create(keys.job_index(JOB), b"")
    store = CountingStore(bench.memory)
    assert find_job(bench.desk(blobs=store), "a job") == JOB
    assert store.total <= 3
    with pytest.raises(UsageError):
        find_job(bench.desk(), "another")


def test_what_cannot_be_trusted_has_no_submission(bench: Bench) -> None:
    assert submission_of(bench.desk(), OTHER_JOB) is None
    bench.memory.create(keys.entry(keys.job_journal(OTHER_JOB), 0), b"rubbish")
    assert submission_of(bench.desk(), OTHER_JOB) is None


def test_a_jobs_state_goes_with_its_vms(bench: Bench) -> None:
    bench.submit(4, 4)
    observer = JobObserver(bench.desk(), JOB)
    assert observer.look().state is JobState.pending
    bench.memory.create(keys.vm_index(VM), b"")
    bench.vm()
    assert observer.look().state is JobState.running
    agent = JobLedger(bench.desk(f"vm:{VM}"), JOB)
    shard = agent.shard(next(agent.refresh().shards()))
    assert shard.claim(VM)
    assert observer.look().state is JobState.running
    VmLedger(bench.desk(), VM).delete("lost", "client")
    assert observer.look().state is JobState.pending
    assert agent.finish(Final("failed", 3, 1))
    assert observer.look().state is JobState.failed
    assert outcome(0).count == 1


@pytest.mark.parametrize("another_is_gone", [True, False])
def test_a_job_that_ends_during_a_look_has_all_its_outcomes_in_it(bench: Bench, another_is_gone: bool) -> None:
    job = bench.submit(4, 2)
    ledger = JobLedger(bench.desk(f"vm:{VM}"), JOB)
    first, second = ledger.refresh().shards()
    for vm in (VM, OTHER_VM):
        bench.vm(vm, usd_per_hour=1.0)
        assert job.enlist(vm)
    if another_is_gone:
        VmLedger(bench.desk(), OTHER_VM).delete("lost", "client")

    def commit(plan: ShardPlan) -> None:
        shard = ledger.shard(plan)
        assert shard.claim(VM)
        refs, inline = results(plan.first, b"x", b"y")
        assert shard.commit(VM, shard.fold.epoch, refs, (), inline)

    def end() -> None:
        commit(second)
        assert ledger.finish(Final("done", 4, 0))
        bench.clock.sleep(3600)

    commit(first)
    # The VM that works ends the job after the shards were read
    store = Meanwhile(bench.memory, keys.heartbeat(VM), end)
    seen = JobObserver(bench.desk(blobs=store), JOB).look()
    assert (seen.state, seen.tasks.done) == ((JobState.done, 4) if another_is_gone else (JobState.running, 2))
    later = JobObserver(bench.desk(), JOB).look()
    assert (later.state, later.tasks.done) == (JobState.done, 4)
    assert not another_is_gone or seen.usd == later.usd


def call(bench: Bench) -> None:
    """An executor's further call, which ends at once."""
    job = JobLedger(bench.desk(), JOB)
    plan = job.add(1, FunctionSpec("command", argv=("true",)), lambda first: b"block")
    assert plan is not None
    shard = JobLedger(bench.desk(f"vm:{VM}"), JOB).shard(plan)
    assert shard.claim(VM)
    refs, inline = results(plan.first, pickle.dumps(plan.first))
    assert shard.commit(VM, shard.fold.epoch, refs, (), inline)


@pytest.mark.parametrize("reads", [1, 2, 3])
def test_results_of_a_job_whose_calls_go_on_meanwhile_are_all_there(bench: Bench, reads: int) -> None:
    bench.open_job()
    bench.vm()
    call(bench)
    # The next entry of the job's journal, for which it is looked again and again
    store = Meanwhile(bench.memory, keys.entry(keys.job_journal(JOB), 2), lambda: call(bench), reads)
    client: Any = SimpleNamespace(desk=bench.desk(blobs=store), blobs=store)
    found = JobHandle(client, JOB).collect()
    assert found.values in ([0], [0, 1], [0, None])
    assert JobHandle(client, JOB).collect().values == [0, 1]


def test_a_vms_life_has_the_entries_that_its_state_goes_by(bench: Bench) -> None:
    bench.vm()
    # It is condemned after its journal was read, and before its sign of life is
    act = lambda: VmLedger(bench.desk(), VM).delete("late", "reaper")
    life = life_of(bench.desk(blobs=Meanwhile(bench.memory, keys.heartbeat(VM), act)), VM)
    assert life.view.state == "deleting"
    assert isinstance(life.entries[-1].body, Delete)


def test_a_job_that_is_not_there_is_a_usage_error(bench: Bench) -> None:
    with pytest.raises(UsageError, match="there is no job"):
        JobObserver(bench.desk(), an_id("z")).look()


def test_an_output_object_is_bounded(bench: Bench) -> None:
    write(bench, "a", "x" * (output.OBJECT_MAX * 2 + 5))
    assert max(listed.size for listed in bench.memory.list(keys.task_output(JOB))) <= output.OBJECT_MAX
    assert sum(len(chunk.data) for chunk in OutputReader(bench.memory, JOB).read()) == output.OBJECT_MAX * 2 + 5


def test_a_vm_that_says_nothing_any_more_is_shown_as_that(bench: Bench) -> None:
    bench.vm()
    shop = bench.shop(lease=1800.0)
    shop.pulse.sign(busy="job 7", ends_at=bench.clock.now() + 86400, ends_because="maximum lifetime")
    for _ in range(2):
        shop.pulse._once()
    view, _ = view_vm(bench.desk(), VmLedger(bench.desk(), VM))
    assert (view.busy_because, view.ends_because) == ("job 7", "maximum lifetime")
    last = bench.clock.now()
    bench.clock.sleep(SILENT + 60)
    view, _ = view_vm(bench.desk(), VmLedger(bench.desk(), VM))
    assert view.busy_because.startswith("job 7, by its last sign of life at 20")
    assert view.ends_because == "lease"
    assert view.ends_at == pytest.approx(last + 1800, abs=5.0)
    # Watched, it has not changed
    bench.clock.sleep(60)
    again, _ = view_vm(bench.desk(), VmLedger(bench.desk(), VM))
    assert (again.busy_because, again.deadlines) == (view.busy_because, view.deadlines)


def test_what_ends_a_vm_is_told_in_order(bench: Bench) -> None:
    bench.vm()
    fold = VmLedger(bench.desk(), VM).refresh()
    assert fold.intent is not None
    start, hard = bench.clock.now(), fold.intent.hard_deadline
    beat = Heartbeat(1, "boot", 3, ends_at=start + 60, ends_because="keep-warm window")
    assert [(each.what, each.at) for each in deadlines(fold, beat)] == [
        ("keep-warm window", start + 60),
        ("maximum lifetime", hard),
    ]
    # What an agent says is no reason to believe that it outlives its deadline
    beat = Heartbeat(1, "boot", 3, ends_at=hard + 60, ends_because="keep-warm window")
    assert deadlines(fold, beat)[0].what == "maximum lifetime"
    fold = replace(fold, hold=Hold(JOB, start + 30, "it failed", "hold on failure"), max_cost=1.0, given_at=[start])
    fold = replace(fold, intent=replace(fold.intent, usd_per_hour=3600.0))
    assert [each.what for each in deadlines(fold, None)] == ["maximum cost", "hold on failure", "maximum lifetime"]
    assert deadlines(fold, None)[0].at == start + 1.0
    # One whose agent says nothing any more ends with its lease
    quiet = Heartbeat(1, "boot", 3, busy="a job", ends_at=hard, ends_because="maximum lifetime", lease=start + 1800)
    plain = VmLedger(bench.desk(), VM).refresh()
    assert [each.what for each in deadlines(plain, quiet)] == ["maximum lifetime"]
    assert deadlines(plain, quiet, silent=True)[0] == Deadline("lease", start + 1800)
    assert VmLedger(bench.desk(), VM).delete("why", "client")
    ended = VmLedger(bench.desk(), VM).refresh()
    assert deadlines(ended, beat) == ()
