"""One job on one VM: whatever fails on the way, every task gets one outcome and the job its end."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest

from tests.unit.agent.bench import Bench, FakeEngine, Switch, files_of, large_of, outcome, said
from tests.unit.core.world import JOB, OTHER_JOB, OTHER_VM, VM, intent, ready
from vmrun.agent import daemon, suspects, work
from vmrun.agent.daemon import Terminated
from vmrun.agent.engine import Event, Load
from vmrun.agent.work import JobRun
from vmrun.core import codec, keys
from vmrun.core.blocks import TaskBlock, lengths_of
from vmrun.core.errors import StoreUnavailable
from vmrun.core.ledger import JobLedger
from vmrun.core.model import Arguments, FunctionSpec
from vmrun.core.vm_ledger import VmLedger
from vmrun.store.faulty import Fault, FaultsAt, FaultyStore, When
from vmrun.submit.publish import put_payload

Engine = type[FakeEngine]


def test_a_job_runs_to_its_end(bench: Bench, engine: Engine) -> None:
    bench.submit(12)
    bench.vm()
    fold = bench.run()
    assert fold.final is not None
    assert (fold.final.outcome, fold.final.done, fold.final.failed) == ("done", 12, 0)
    assert bench.values() == list(range(12))
    assert [made.closed for made in engine.made] == [True]
    assert not (bench.folder / VM / JOB).exists()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER, When.LATE])
def test_any_one_request_may_fail_and_every_task_is_settled_once_with_its_files(
    engine: Engine, tmp_path: Path, when: When
) -> None:
    def before(made: FakeEngine, task: int) -> list[Event]:
        events: list[Event] = [said(task)]
        if task % 3 == 0:
            events.append(files_of(bench, task, f"file of {task}"))
        return [*events, large_of(bench, task)] if task == 4 else events

    engine.before = staticmethod(before)
    number, untouched = 0, False
    while not untouched:
        folder = tmp_path / str(number)
        folder.mkdir()
        plan = FaultsAt({number: Fault(when, requests_late=2)})
        bench = Bench(folder, plan)
        bench.submit(7, 4)
        bench.vm()
        fold = bench.run()
        assert isinstance(bench.blobs, FaultyStore)
        bench.blobs.deliver()
        assert fold.final is not None, number
        assert fold.final.outcome == "done", number
        assert bench.values() == list(range(7)), number
        assert sorted((file.task, file.path) for file in bench.files()) == [(at, "out.txt") for at in (0, 3, 6)], number
        for file in bench.files():
            assert bench.memory.get(keys.output_file(JOB, file.sha256)) == f"file of {file.task}".encode()
        untouched = bench.blobs.requests <= number
        number += 1
    assert number > 20


def test_outcomes_that_come_during_an_outage_wait_for_its_end(bench: Bench, switch: Switch, engine: Engine) -> None:
    bench.submit(8, 8)
    bench.vm()

    def script(made: FakeEngine) -> None:
        switch.down = 2 <= made.polls < 12  # the outcomes of all tasks are told within

    engine.script = staticmethod(script)
    engine.before = staticmethod(
        lambda made, task: [large_of(bench, task)] if task % 2 else [files_of(bench, task, "x")]
    )
    fold = bench.run()
    assert fold.final is not None
    assert fold.final.outcome == "done"
    assert bench.values() == list(range(8))
    assert sorted(file.task for file in bench.files()) == [0, 2, 4, 6]


def test_arguments_that_cannot_be_read_for_a_while_are_read_later(bench: Bench, engine: Engine) -> None:
    # Given a job with arguments in several blocks, and a store that fails once in the middle of reading them
    pieces, rows = b"", []
    for first in range(0, 40, 10):
        payloads = [json.dumps(at).encode() for at in range(first, first + 10)]
        data = TaskBlock(first, lengths_of(payloads), b"".join(payloads)).encode()
        rows.append([first, 10, len(pieces), len(data), codec.sha256(data)])
        pieces += data
    arguments = Arguments(put_payload(bench.memory, pieces), put_payload(bench.memory, codec.canonical(rows)))
    bench.submit(40, 40, arguments=arguments)
    bench.vm()
    key, reads = keys.payload(arguments.data.sha256), 0

    class Moody:
        def fault(self, request: object, rng: object) -> Fault | None:
            nonlocal reads
            if getattr(request, "key", "") == key:
                reads += 1
                return Fault(When.BEFORE) if reads == 3 else None
            return None

    bench.blobs = FaultyStore(bench.memory, Moody(), bench.rng)
    # Then every task is fed once, and the job ends
    fold = bench.run()
    assert fold.final is not None
    assert bench.values() == list(range(40))
    assert [task for made in engine.made for task in made.fed] == list(range(40))


def test_a_runner_that_dies_while_the_store_is_away_is_replaced(bench: Bench, switch: Switch, engine: Engine) -> None:
    bench.submit(6, 6)
    bench.vm()
    engine.stuck = {4, 5}

    def script(made: FakeEngine) -> None:
        if made is not engine.made[0]:
            engine.stuck = set()
        elif made.polls == 3:
            made.die()
            switch.down = True
        elif made.polls > 6:
            switch.down = False

    engine.script = staticmethod(script)
    fold = bench.run()
    assert fold.final is not None
    assert bench.values() == list(range(6))
    assert engine.made[1].fed == [4, 5]


def test_a_runner_that_dies_again_and_again_ends_the_job(bench: Bench, engine: Engine) -> None:
    bench.submit(1, 1)
    bench.vm()
    engine.stuck = {0}
    engine.script = staticmethod(lambda made: made.die(told=True))
    final = bench.run().final
    assert final is not None
    assert final.outcome == "failed"
    assert "runner died" in final.error
    assert len(engine.made) == suspects.DEATHS_MAX + 1


def waits(made: FakeEngine, tasks: set[int]) -> bool:
    """Whether the engine has any of these tasks."""
    return any(block.first <= task < block.first + block.count for block, _ in made.waiting for task in tasks)


@pytest.mark.catalogue(53)
@pytest.mark.parametrize(
    ("tasks", "shard", "bad"), [(1, 1, {0}), (3, 3, {1}), (40, 7, {0}), (40, 40, {39}), (300, 100, {17, 18, 250})]
)
def test_a_task_that_ends_its_runner_again_and_again_is_lost_alone(
    bench: Bench, engine: Engine, tasks: int, shard: int, bad: set[int]
) -> None:
    """At once, each time, before any of those that are out with it has ended."""
    bench.submit(tasks, shard)
    bench.vm()
    engine.script = staticmethod(lambda made: made.die() if waits(made, bad) else None)
    final = bench.run().final
    assert final is not None
    assert (final.outcome, final.done, final.failed, final.error) == ("failed", tasks - len(bad), len(bad), "")
    assert bench.values() == ["lost" if task in bad else task for task in range(tasks)]
    # A quarter of the suspects at a time, and then alone.
    assert len(engine.made) <= 1 + len(bad) * (suspects.DEATHS_MAX + 1 + math.ceil(math.log(tasks, 4)) + 1)


def test_a_runner_that_ended_now_and_then_has_nobody_suspected(bench: Bench, engine: Engine) -> None:
    """By somebody else's hand: whatever was out runs again, and in the end all at once, as before."""
    bench.submit(100, 100)
    bench.vm()
    deaths = suspects.DEATHS_MAX + 2

    def script(made: FakeEngine) -> None:
        if len(engine.made) <= deaths:
            made.die()

    engine.script = staticmethod(script)
    bench.run()
    assert bench.values() == list(range(100))
    assert len(engine.made) == deaths + 1


def test_where_every_task_ends_its_runner_the_job_is_given_up(bench: Bench, engine: Engine) -> None:
    bench.submit(50, 50)
    bench.vm()
    engine.script = staticmethod(lambda made: made.die() if made.waiting else None)
    final = bench.run().final
    assert final is not None
    assert final.outcome == "failed"
    assert "runner died" in final.error
    assert len(engine.made) < 20
    assert sum(value == "lost" for value in bench.values()) <= suspects.LOST_MAX


def test_files_wait_for_the_outcome_that_they_belong_to(bench: Bench, engine: Engine) -> None:
    # Given a task whose files are known long before its outcome, while others end and are committed
    bench.submit(3, 3)
    bench.vm()
    engine.stuck = {0}

    def script(made: FakeEngine) -> None:
        if made.polls == 1:
            made.ready.append(files_of(bench, 0, "early"))
        elif made.polls == 30:
            engine.stuck = set()

    engine.script = staticmethod(script)
    bench.run()
    assert bench.values() == [0, 1, 2]
    (shard,) = bench.shards()
    assert len({extent.entry for extent in shard.fold.extents}) == 2
    assert [file.task for file in bench.files()] == [0]


def test_of_several_attempts_only_the_last_ones_files_count(bench: Bench, engine: Engine) -> None:
    bench.submit(2, 2)
    bench.vm()
    # Task 0 wrote in both attempts; task 1 in its first only, and its outcome is the second's.
    engine.stuck = {0, 1}

    def script(made: FakeEngine) -> None:
        if made.polls == 1:
            made.ready += [
                files_of(bench, 0, "first", 1),
                files_of(bench, 1, "first", 1),
                files_of(bench, 0, "last", 2),
            ]
        elif made.polls == 2:
            made.waiting.clear()
            made.ready += [_ended(0, 2), _ended(1, 2)]

    engine.script = staticmethod(script)
    bench.run()
    (file,) = bench.files()
    assert (file.task, file.sha256) == (0, codec.sha256(b"last"))


def _ended(task: int, attempt: int) -> Event:
    from vmrun.agent.engine import Results

    return Results(outcome(task, attempt=attempt), "map")


@pytest.mark.parametrize("at", range(1, 10))
def test_an_agent_that_dies_at_any_turn_is_followed_by_one_that_ends_the_job(
    bench: Bench, engine: Engine, at: int
) -> None:
    class Killed(BaseException):
        pass

    bench.submit(9, 3)
    bench.vm()

    def script(made: FakeEngine) -> None:
        engine.stuck = set(range(made.polls, 9))  # one more task ends at each turn
        if made is engine.made[0] and made.polls == at:
            raise Killed

    engine.script = staticmethod(script)
    run = JobRun(bench.shop(), JOB)
    run._leave = lambda: None  # type: ignore[method-assign]  # a killed process leaves nothing behind
    with pytest.raises(Killed):
        run.run()
    committed = bench.values()
    fold = bench.run()
    assert fold.final is not None
    assert bench.values() == list(range(9))
    # What was committed is not done again.
    again = engine.made[1].fed if len(engine.made) > 1 else []
    assert not set(again) & set(committed)


def test_an_agent_that_is_told_to_end_commits_what_is_finished_and_gives_back_the_rest(
    bench: Bench, engine: Engine
) -> None:
    bench.submit(8, 4)
    bench.vm()
    engine.stuck = {6, 7}

    def script(made: FakeEngine) -> None:
        if made.polls == 2:
            raise Terminated

    engine.script = staticmethod(script)
    with pytest.raises(Terminated):
        bench.run()
    assert bench.values() == list(range(6))
    assert [shard.fold.owner for shard in bench.shards()] == [VM, ""]
    assert bench.job().final is None
    # Another VM has only the rest to do, and need not wait.
    bench.vm(OTHER_VM)
    engine.stuck, engine.script = set(), staticmethod(lambda made: None)
    assert bench.run(OTHER_VM).final is not None
    assert engine.made[-1].fed == [6, 7]


@pytest.mark.catalogue(55)
@pytest.mark.parametrize(("stuck", "workers"), [(1, 10), (2, 10)])
def test_a_vm_with_too_many_processes_that_cannot_be_ended_gives_itself_up(
    bench: Bench, engine: Engine, stuck: int, workers: int
) -> None:
    """Up to a tenth it goes on. With more it commits what it has, and another VM does the rest."""

    def script(made: FakeEngine) -> None:
        if made.polls == 3:
            made.ready.append(Load(1, 0, 3, stuck=stuck))
            type(made).stuck.clear()

    engine.script = staticmethod(script)
    engine.stuck.update({9, 10})
    bench.submit(12, workers=workers)
    bench.vm()
    shop = bench.shop()
    JobRun(shop, JOB).run()
    if stuck == 1:
        assert shop.pulse.condemned() == ""
        assert bench.job().final is not None
        return
    assert shop.pulse.condemned() == "2 of its 10 workers cannot be ended"
    assert bench.job().final is None
    assert all(not shard.fold.owner for shard in bench.shards() if not shard.fold.complete)
    bench.vm(OTHER_VM)
    engine.script = staticmethod(lambda made: None)
    assert bench.run(OTHER_VM).final is not None
    assert bench.values() == list(range(12))


def test_sigterm_passes_through_handlers_of_errors() -> None:
    assert not issubclass(Terminated, Exception)


@pytest.mark.parametrize("at", range(6))
def test_a_job_cancelled_at_any_moment_ends_as_cancelled(bench: Bench, engine: Engine, at: int) -> None:
    ledger = bench.submit(6, 2)
    bench.vm()
    engine.stuck = {3, 4, 5}

    def script(made: FakeEngine) -> None:
        if made.polls == at:
            ledger.cancel("user")

    engine.script = staticmethod(script)
    if at == 0:
        ledger.cancel("user")
    final = bench.run().final
    assert final is not None
    assert final.outcome == "cancelled"
    settled = bench.values()
    assert final.done + final.failed == len(settled)
    assert final.done == sum(isinstance(value, int) for value in settled)
    assert all(made.closed for made in engine.made)


def test_a_vm_whose_work_was_taken_over_goes_on_with_what_is_left(bench: Bench, engine: Engine) -> None:
    # Given a VM that holds both shards, and another that takes the first one over in the meantime
    bench.submit(4, 2)
    bench.vm()
    bench.vm(OTHER_VM)
    engine.stuck = {0, 1, 2, 3}

    def script(made: FakeEngine) -> None:
        if made.polls == 2:
            shard = JobLedger(bench.desk(f"vm:{OTHER_VM}"), JOB)
            plan = next(shard.refresh().shards())
            assert shard.shard(plan).claim(OTHER_VM, from_owner=VM)
            engine.stuck = {0}
        elif made.polls == 60:
            VmLedger(bench.desk(), OTHER_VM).delete("it is dead", "client")
            engine.stuck = set()

    engine.script = staticmethod(script)
    fold = bench.run()
    assert fold.final is not None
    assert bench.values() == [0, 1, 2, 3]


@pytest.mark.catalogue(45)
def test_a_shard_that_ends_every_vm_that_takes_it_is_given_up(bench: Bench, engine: Engine) -> None:
    ledger = bench.submit(2, 2)
    bench.vm()
    plan = next(ledger.refresh().shards())
    mine = JobLedger(bench.desk(f"vm:{VM}"), JOB)
    for _ in range(work.BARREN_CLAIMS_MAX):
        assert mine.shard(plan).claim(VM, from_owner=VM)
    final = bench.run().final
    assert final is not None
    assert final.outcome == "failed"
    assert "tasks 0-1" in final.error
    assert not engine.made[0].fed


def test_claims_that_were_given_back_are_not_held_against_the_shard(bench: Bench, engine: Engine) -> None:
    ledger = bench.submit(2, 2)
    bench.vm()
    plan = next(ledger.refresh().shards())
    shard = JobLedger(bench.desk(f"vm:{VM}"), JOB).shard(plan)
    for _ in range(2 * work.BARREN_CLAIMS_MAX):
        assert shard.claim(VM)
        assert shard.release(VM, "preempted")
    final = bench.run().final
    assert final is not None
    assert final.outcome == "done"


# --- open jobs ---


def _call(ledger: JobLedger, function: FunctionSpec, count: int = 1) -> None:
    def block(first: int) -> bytes:
        return TaskBlock(first, lengths_of([b"x"] * count), b"x" * count, "call").encode()

    assert ledger.add(count, function, block) is not None


def test_the_thousandth_call_costs_what_the_tenth_did(bench: Bench, engine: Engine) -> None:
    ledger, function = bench.open_job()
    bench.vm()
    costs: list[int] = []
    run = JobRun(bench.shop(), JOB)
    assert isinstance(bench.blobs, FaultyStore)

    def script(made: FakeEngine) -> None:
        settled = run._tally.floor
        if settled == len(ledger.fold.added) and settled < 1000:
            costs.append(bench.blobs.requests)
            _call(ledger, function)
        elif settled == 1000 and not ledger.fold.closed:
            costs.append(bench.blobs.requests)
            ledger.close()

    engine.script = staticmethod(script)
    run.run()
    each = [after - before for before, after in itertools.pairwise(costs)]
    assert max(each[500:]) <= max(each[10:50]) <= 14
    # Nothing is kept of calls that are over.
    assert not run._tally._settled
    assert not run._tally._open
    assert not run._held
    assert len({id(plan.function) for plan in run._ledger.fold.added}) == 1


def test_one_slow_call_delays_no_other(bench: Bench, engine: Engine) -> None:
    # Given an open job that is an hour old, in which one call takes for ever
    ledger, function = bench.open_job()
    bench.vm()
    engine.stuck = {0}
    seen: dict[str, float] = {}

    def script(made: FakeEngine) -> None:
        if made.polls == 1:
            _call(ledger, function)
            bench.clock.sleep(1700)
        elif made.polls == 5:
            _call(ledger, function)
            seen["called"] = bench.clock.now()
        elif made.polls > 5 and "answered" not in seen and 1 in bench.values():
            seen["answered"] = bench.clock.now()
            ledger.cancel("user")

    engine.script = staticmethod(script)
    bench.run()
    assert seen["answered"] - seen["called"] < 3.0


def test_as_many_single_calls_run_at_once_as_there_are_workers(
    bench: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = put_payload(bench.memory, b"a function")
    bench.submit(0, 0, kind="open", function=None, workers=128)
    ledger, function = JobLedger(bench.desk(), JOB), FunctionSpec("pickle", payload=payload)
    bench.vm()
    for _ in range(200):
        _call(ledger, function)
    engine.stuck = set(range(200))
    monkeypatch.setattr(engine, "wants", lambda made: not made.dead)

    def script(made: FakeEngine) -> None:
        if made.polls == 40:
            ledger.cancel("user")

    engine.script = staticmethod(script)
    bench.run()
    assert len(engine.made[0].fed) == 200


def test_an_open_job_without_calls_ends_unless_one_comes_at_the_last_moment(bench: Bench, engine: Engine) -> None:
    ledger, function = bench.open_job(idle_timeout=60.0)
    bench.vm()
    run = JobRun(bench.shop(), JOB)
    finish = run._ledger.finish
    calls: list[float] = []

    def finish_late(body: object, **options: object) -> bool:
        if not calls:
            calls.append(bench.clock.now())
            _call(ledger, function)
        return finish(body, **options)  # type: ignore[arg-type]

    run._ledger.finish = finish_late  # type: ignore[method-assign]
    run.run()
    final = bench.job().final
    assert final is not None
    assert "no calls for 60 s" in final.error
    assert bench.values() == [0]
    assert bench.clock.now() - calls[0] >= 60


def test_a_job_that_cannot_be_prepared_leaves_no_engine(bench: Bench, engine: Engine) -> None:
    bench.submit(2, 2, kind="map", function=FunctionSpec("pickle", payload=put_payload(bench.memory, b"f")))
    bench.memory.delete(keys.payload(codec.sha256(b"f")))
    bench.vm()
    final = bench.run().final
    assert final is not None
    assert "function is missing" in final.error
    assert engine.made == []


def test_a_store_that_is_away_at_the_start_is_told_to_the_caller(bench: Bench, switch: Switch, engine: Engine) -> None:
    bench.submit(2, 2)
    bench.vm()
    switch.down = True
    with pytest.raises(StoreUnavailable):
        JobRun(bench.shop(), JOB).run()
    switch.down = False
    assert bench.run().final is not None


# --- money ---


def priced(bench: Bench, max_cost: float, *, warm: bool = False) -> None:
    """A VM at 36 dollars an hour, a cent a second, with a job that may cost so much."""
    made = dataclasses.replace(intent(VM, OTHER_JOB if warm else JOB), usd_per_hour=36.0, max_cost=max_cost)
    ledger = VmLedger(bench.desk(), VM)
    assert ledger.intend(made)
    assert ledger.created("i-1")
    assert ledger.ready(ready(VM))
    if warm:
        bench.clock.sleep(50_000)
        assert ledger.assign(JOB, 60.0, max_cost)


@pytest.mark.parametrize("warm", [False, True], ids=["new", "warm"])
def test_a_job_ends_when_its_money_is_spent_and_what_had_finished_stays(
    bench: Bench, engine: Engine, warm: bool
) -> None:
    engine.stuck = {3, 5}
    bench.submit(8)
    priced(bench, 1.0, warm=warm)
    began = bench.clock.now()
    shop = bench.shop()
    shop.pulse.jobs()
    assert not shop.pulse.overspent(JOB)
    assert shop.pulse.ends_at() == (began + 90, "maximum cost")
    JobRun(shop, JOB).run()
    final = bench.job().final
    assert final is not None
    assert (final.outcome, final.done, final.failed, final.code) == ("failed", 6, 2, "budget")
    assert final.error.startswith("its money is spent: it has cost $0.9")
    assert final.error.endswith("of the $1.00 that it may")
    assert bench.values() == [0, 1, 2, "cancelled", 4, "cancelled", 6, 7]
    # A tenth of what was paid for was left for saving
    assert began + 90 <= bench.clock.now() < began + 95
    assert daemon._no_longer_needed(shop).startswith("maximum cost: it has cost $0.9")


def test_a_job_that_ends_within_its_money_succeeds(bench: Bench, engine: Engine) -> None:
    bench.submit(8)
    priced(bench, 1.0)
    final = bench.run().final
    assert final is not None
    assert (final.outcome, final.code) == ("done", "")


def test_the_money_of_another_job_does_not_end_this_one(bench: Bench, engine: Engine) -> None:
    bench.vm()
    priced_for_other = VmLedger(bench.desk(), VM)
    assert priced_for_other.assign(OTHER_JOB, 0.0, 1e-6)
    shop = bench.shop()
    shop.pulse.jobs()
    bench.clock.sleep(100)
    assert not shop.pulse.overspent(JOB)


def test_a_lifetime_that_ends_before_the_money_is_what_ends_the_vm(bench: Bench) -> None:
    priced(bench, 1000.0)
    shop = bench.shop(hard_deadline=bench.clock.now() + 60)
    shop.pulse.jobs()
    assert shop.pulse.ends_at()[1] == "maximum lifetime"
