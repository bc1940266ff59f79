"""What the engine itself costs, in processor time, which does not depend on who else uses the machine."""

from __future__ import annotations

import pickle
import resource

from tests.engine.conftest import MakeBench
from vmrun.agent.engine import Results
from vmrun.core.blocks import TaskBlock, lengths_of

TASKS, PER_BLOCK = 200_000, 10_000
#: Seconds of all processes together per task that does nothing: four times what is measured on a quiet machine.
LIMIT = 20e-6


def processor_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def test_a_task_that_does_nothing_costs_microseconds(make_bench: MakeBench) -> None:
    before = processor_seconds(resource.RUSAGE_CHILDREN), processor_seconds(resource.RUSAGE_SELF)
    bench = make_bench()
    bench.define(lambda _: None)
    payloads = [pickle.dumps(number) for number in range(PER_BLOCK)]
    lengths, payload = lengths_of(payloads), b"".join(payloads)
    fed = done = blocks = 0
    while done < TASKS:
        while fed < TASKS and bench.engine.wants():
            bench.engine.feed(TaskBlock(fed, lengths, payload), "f")
            fed += PER_BLOCK
        for event in bench.engine.poll(1):
            if isinstance(event, Results):
                assert not any(event.block.status)
                done += event.block.count
                blocks += 1
    bench.close()
    after = processor_seconds(resource.RUSAGE_CHILDREN), processor_seconds(resource.RUSAGE_SELF)
    assert (after[0] - before[0] + after[1] - before[1]) / TASKS < LIMIT
    assert blocks < TASKS / 200
