"""What is told of an engine whose machine is to end."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from tests.unit.agent.bench import Bench, FakeEngine, said
from tests.unit.core.world import JOB, OTHER_JOB, OTHER_VM, VM
from vmrun.agent import daemon
from vmrun.agent.leaving import PATIENCE, last_events, without_cancelled
from vmrun.agent.work import JobRun
from vmrun.core.blocks import ResultBlock, Status
from vmrun.core.ledger import JobLedger
from vmrun.core.records import Drain, Final
from vmrun.core.vm_ledger import VmLedger

OK, CANCELLED, RAISED = Status.ok, Status.cancelled, Status.raised


def block(*statuses: Status) -> ResultBlock:
    count = len(statuses)
    zeros = [0.0] * count
    return ResultBlock(
        5, bytes(statuses), array("Q", [1]) * count, b"x" * count, array("d", zeros), array("f", zeros), facts={}
    )


@pytest.mark.parametrize(
    ("statuses", "kept"),
    [
        ([OK, OK], [(5, 2)]),
        ([CANCELLED, CANCELLED], []),
        ([OK, CANCELLED, RAISED, OK, CANCELLED], [(5, 1), (7, 2)]),
        ([CANCELLED, OK], [(6, 1)]),
    ],
)
def test_what_was_cancelled_is_left_out(statuses: list[Status], kept: list[tuple[int, int]]) -> None:
    parts = list(without_cancelled(block(*statuses)))
    assert [(part.first, part.count) for part in parts] == kept
    assert all(status is not CANCELLED for part in parts for _, status, _ in part.items())


def test_a_machine_that_is_given_up_commits_what_is_finished_and_lets_others_have_the_rest(
    bench: Bench, engine: type[FakeEngine]
) -> None:
    bench.submit(8, 8)
    bench.vm()
    bench.vm(OTHER_VM)
    shop = bench.shop()
    engine.stuck.update({2, 5})

    def script(made: FakeEngine) -> None:
        if made.polls == 1:
            # Right after the agent's last look, and before it hears of any outcome
            shop.pulse.give_up("its cloud takes it back")

    engine.script = staticmethod(script)
    JobRun(shop, JOB).run()
    (shard,) = bench.shards()
    assert shard.fold.owner == ""
    assert list(shard.fold.done) == [(0, 2), (3, 5), (6, 8)]
    assert engine.made[0].cancelled
    # And another machine runs the two, and no other
    engine.stuck.clear()
    engine.script = staticmethod(lambda made: None)
    fold = bench.run(OTHER_VM)
    assert fold.final is not None
    assert fold.final.outcome == "done"
    assert sorted(engine.made[1].fed) == [2, 5]
    assert bench.values() == list(range(8))


def test_tasks_that_do_not_end_are_not_waited_for(bench: Bench) -> None:
    class Deaf:
        def cancel(self) -> None: ...

        def idle(self) -> bool:
            return False

        def poll(self, timeout: float) -> list[Any]:
            bench.clock.sleep(timeout)
            return [said(1)] if timeout else []

    began = bench.clock.now()
    deaf: Any = Deaf()
    assert len(list(last_events(deaf, bench.clock))) > 1
    assert bench.clock.now() - began < PATIENCE + 1


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_machine_that_waits_for_jobs_is_given_none_when_its_cloud_takes_it_back(bench: Bench, jobs: int) -> None:
    """Whoever gave it one would wait until it is found to be dead."""
    bench.submit()
    bench.vm(job=JOB if jobs else "", stay_until=bench.clock.now() + 3600)
    if jobs:
        assert JobLedger(bench.desk(), JOB).finish(Final("done", 12, 0))
    shop = bench.shop()
    slept = bench.clock.sleep

    def sleep(seconds: float) -> None:
        slept(seconds)
        shop.pulse.give_up("its cloud takes it back")

    bench.clock.sleep = sleep  # type: ignore[method-assign]
    daemon._serve(shop)
    fold = VmLedger(bench.desk(), VM).refresh()
    assert fold.drain == Drain("its cloud takes it back")
    assert not VmLedger(bench.desk(), VM).assign(OTHER_JOB, 0.0)


def test_a_job_that_comes_while_the_machine_is_given_up_does_not_keep_it_from_taking_its_leave(bench: Bench) -> None:
    bench.submit()
    bench.vm(stay_until=bench.clock.now() + 3600)
    shop = bench.shop()
    shop.pulse.give_up("its cloud takes it back")
    assert VmLedger(bench.desk(), VM).assign(OTHER_JOB, 0.0)
    daemon._serve(shop)
    assert VmLedger(bench.desk(), VM).refresh().drain == Drain("its cloud takes it back")
