"""A job that may grow: what its VM is too small for is nobody's failure, and runs again on a larger VM, alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.agent.bench import Bench, FakeEngine, said
from tests.unit.core.world import JOB, OTHER_VM, THIRD_VM, VM
from vmrun.agent.engine import Event
from vmrun.agent.work import JobRun
from vmrun.agent.workshop import Owners
from vmrun.core import keys
from vmrun.core.folds import JobFold
from vmrun.core.growth import MOVES_MAX
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.outgrown import Outgrown
from vmrun.saving import DIRECTORY
from vmrun.store.faulty import Fault, FaultsAt, FaultyStore, When
from vmrun.watch.logs import OutputReader

SMALL, LARGE = 4 * 2**30, 8 * 2**30


def ran(engine: type[FakeEngine]) -> list[list[int]]:
    """The tasks that each engine was given."""
    return [made.fed for made in engine.made]


def test_the_others_finish_and_what_ran_out_of_memory_runs_on_a_larger_vm_alone(
    bench: Bench, engine: type[FakeEngine]
) -> None:
    bench.submit(12, 12, on_oom="grow")
    bench.vm(memory=SMALL)
    engine.greedy = {3, 7}
    fold = bench.run()
    # It is said in the job's journal, and not one outcome of theirs is committed.
    assert fold.final is None
    assert [(each.vm, each.memory, each.workers) for each in fold.outgrown] == [(VM, SMALL, 2)]
    assert bench.values() == [x for x in range(12) if x not in (3, 7)]
    assert [shard.fold.owner for shard in bench.shards()] == [""]
    # The same VM, whose agent was started again, and another one of its size do no more of it.
    engine.greedy = set()
    bench.run()
    bench.vm(OTHER_VM, memory=SMALL)
    bench.run(OTHER_VM)
    assert len(engine.made) == 1
    # A larger one does the rest, with no more workers.
    bench.vm(THIRD_VM, memory=LARGE)
    fold = bench.run(THIRD_VM)
    assert fold.final is not None
    assert (fold.final.outcome, fold.final.done, fold.final.failed) == ("done", 12, 0)
    assert bench.values() == list(range(12))
    assert sorted(ran(engine)[1]) == [3, 7]
    assert len(fold.outgrown) == 1


def test_what_a_task_saved_last_goes_along_to_the_larger_vm(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(4, 4, on_oom="grow")
    bench.vm(memory=SMALL)
    engine.greedy = {1}
    engine.before = staticmethod(saving)  # type: ignore[method-assign,assignment]
    fold = bench.run()
    assert [each.vm for each in fold.outgrown] == [VM]
    (shard,) = bench.shards()
    # Of those that ended nothing is kept
    assert list(shard.fold.saved) == [1]
    saved = shard.fold.saved[1]
    assert bench.memory.get(keys.state(JOB, 1, saved.sha256)) == b"state of 1"


def saving(made: FakeEngine, task: int) -> list[Event]:
    """As a task that saves itself right before its end."""
    folder = Path(made.spec.env[DIRECTORY])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(task)).write_text(f"state of {task}")
    return []


def test_without_being_asked_to_grow_it_fails_as_ever(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(4, 4)
    bench.vm(memory=SMALL)
    engine.greedy = {1}
    fold = bench.run()
    assert fold.final is not None
    assert (fold.final.outcome, fold.final.failed, fold.outgrown) == ("failed", 1, [])
    assert bench.values() == [0, "oom", 2, 3]


def test_this_computer_has_no_larger_one(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(4, 4, on_oom="grow")
    bench.vm(memory=SMALL)
    engine.greedy = {1}
    JobRun(bench.shop(VM, same_machine=True), JOB).run()
    final = bench.job().final
    assert final is not None
    assert (final.outcome, final.failed) == ("failed", 1)


def test_when_nothing_else_comes_what_is_left_is_not_tried_there(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(50, 50, on_oom="grow")
    bench.vm(memory=SMALL)
    engine.greedy = set(range(38, 48))
    engine.stuck = {48, 49}
    fold = bench.run()
    # Those that ran when it was broken off have no outcome either; nothing that finished is lost.
    assert len(fold.outgrown) == 1
    kept = bench.values()
    assert kept == list(range(38))
    engine.greedy, engine.stuck = set(), set()
    bench.vm(OTHER_VM, memory=LARGE)
    fold = bench.run(OTHER_VM)
    assert fold.final is not None
    assert fold.final.outcome == "done"
    assert bench.values() == list(range(50))
    assert sorted(ran(engine)[1]) == sorted(set(range(50)) - set(kept))


def test_the_number_of_moves_is_bounded_and_then_it_fails_with_its_reason(
    bench: Bench, engine: type[FakeEngine]
) -> None:
    bench.submit(3, 3, on_oom="grow")
    engine.greedy = {1}
    fold = JobFold()
    for move in range(MOVES_MAX + 1):
        vm = "cdefg"[move] * 26
        bench.vm(vm, memory=SMALL * 2**move)
        assert fold.final is None
        fold = bench.run(vm)
    assert len(fold.outgrown) == MOVES_MAX
    assert fold.final is not None
    assert (fold.final.outcome, fold.final.done, fold.final.failed) == ("failed", 2, 1)
    assert bench.values() == [0, "oom", 2]
    # Each task that finished did so once.
    assert sum(fed.count(0) + fed.count(2) for fed in ran(engine)) == 2


def test_a_reduce_may_be_what_needs_more(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(4, 2, on_oom="grow", reduce=True)
    bench.vm(memory=SMALL)
    engine.greedy = {4}
    assert bench.run().final is None
    assert bench.values() == [0, 1, 2, 3]
    engine.greedy = set()
    bench.vm(OTHER_VM, memory=LARGE)
    fold = bench.run(OTHER_VM)
    assert fold.final is not None
    assert fold.final.outcome == "done"
    assert ran(engine)[1] == [4]


def test_what_became_of_it_stands_in_the_tasks_output(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(2, 2, on_oom="grow")
    bench.vm(memory=SMALL)
    engine.greedy = {1}
    engine.before = staticmethod(lambda made, task: [said(task)])
    bench.run()
    chunks = list(OutputReader(bench.memory, JOB).read())
    assert [chunk.data for chunk in chunks if chunk.task == 0] == [b"task 0\n"]
    (note,) = [chunk for chunk in chunks if chunk.stream == "stderr"]
    assert (note.task, note.reduce) == (1, False)
    assert note.data == b"vmrun: task 1 ran out of memory, and runs again on a larger machine: no\n"


@pytest.mark.parametrize(
    "when", [When.AFTER, *(pytest.param(when, marks=pytest.mark.slow) for when in (When.BEFORE, When.LATE))]
)
def test_any_one_request_may_fail_on_the_way_to_a_larger_vm(
    engine: type[FakeEngine], tmp_path: Path, when: When
) -> None:
    number, untouched = 0, False
    while not untouched:
        folder = tmp_path / str(number)
        folder.mkdir()
        bench = Bench(folder, FaultsAt({number: Fault(when, requests_late=2)}))
        bench.submit(6, 3, on_oom="grow")
        bench.vm(memory=SMALL)
        engine.greedy = {1, 4}
        fold = bench.run()
        assert isinstance(bench.blobs, FaultyStore)
        bench.blobs.deliver()
        assert fold.final is None, number
        assert len(fold.outgrown) == 1, number
        assert bench.values() == [0, 2, 3, 5], number
        engine.greedy = set()
        bench.vm(OTHER_VM, memory=LARGE)
        fold = bench.run(OTHER_VM)
        bench.blobs.deliver()
        assert fold.final is not None, number
        assert fold.final.outcome == "done", number
        assert bench.values() == list(range(6)), number
        untouched = bench.blobs.requests <= number
        number += 1
    assert number > 20


def test_a_job_that_was_cancelled_meanwhile_ends_there(bench: Bench, engine: type[FakeEngine]) -> None:
    ledger = bench.submit(3, 3, on_oom="grow")
    bench.vm(memory=SMALL)
    engine.greedy, engine.stuck = {0}, {2}

    def script(made: FakeEngine) -> None:
        if made.polls == 3:
            ledger.cancel("user")

    engine.script = staticmethod(script)
    fold = bench.run()
    assert fold.final is not None
    assert (fold.final.outcome, fold.outgrown) == ("cancelled", [])


def test_only_the_vm_itself_says_that_it_is_too_small(bench: Bench) -> None:
    bench.submit(3, 3, on_oom="grow")
    bench.vm(memory=SMALL)
    bench.vm(OTHER_VM, memory=SMALL)
    body = Outgrown(VM, SMALL, 2, 1, 10, 20, "no", 0.0)
    for writer in ("client", f"vm:{OTHER_VM}"):
        assert not JobLedger(bench.desk(writer), JOB).outgrow(body)
        assert bench.job().outgrown == []
    for _ in range(2):
        assert JobLedger(bench.desk(f"vm:{VM}"), JOB).outgrow(body)
    assert bench.job().outgrown == [body]


class Killed(BaseException):
    """The agent is no more, with all that it meant to do."""


def test_an_agent_that_is_killed_before_it_gives_the_rest_back_keeps_nobody_from_it(
    bench: Bench, engine: type[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit(6, 3, on_oom="grow")
    bench.vm(memory=SMALL)
    engine.greedy = {1, 4}

    def killed(*_: object) -> bool:
        raise Killed

    with monkeypatch.context() as dying, pytest.raises(Killed):
        dying.setattr(ShardLedger, "release", killed)
        bench.run()
    assert [each.vm for each in bench.job().outgrown] == [VM]
    # The VM is started again and waits for other jobs: its heart beats on.
    bench.run()
    monkeypatch.setattr(Owners, "dead", lambda self, vm: False)

    def script(made: FakeEngine) -> None:
        assert made.polls < 1000, "nobody else may have its tasks"

    engine.greedy, engine.script = set(), staticmethod(script)
    bench.vm(OTHER_VM, memory=LARGE)
    fold = bench.run(OTHER_VM)
    assert fold.final is not None
    assert fold.final.outcome == "done"
    assert sorted(ran(engine)[-1]) == [1, 4]


def test_tasks_that_fit_in_when_they_ran_again_move_nothing(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(24, 1, on_oom="grow")
    bench.vm(memory=SMALL)
    engine.greedy, engine.stuck = {0, 1}, {2, 3, 4, 5}

    def script(made: FakeEngine) -> None:
        # The whole machine was short of memory, and then there was nobody to share it with.
        if made.polls == 5 and len(made.made) == 1:
            engine.greedy, engine.stuck = set(), set()
            made.die()

    engine.script = staticmethod(script)
    fold = bench.run()
    assert bench.values() == list(range(24))
    assert fold.outgrown == []
    assert fold.final is not None
    assert fold.final.outcome == "done"
