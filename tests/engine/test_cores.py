"""Which cores workers use: each its own while they wait, all of them while they work."""

from __future__ import annotations

import os
from pathlib import Path

from tests.engine.bench import PATIENCE, nap, wait_until
from tests.engine.conftest import MakeBench
from vmrun.core.blocks import Status


def test_workers_wait_on_a_core_each_and_work_on_any(make_bench: MakeBench, tmp_path: Path) -> None:
    # Given a worker for each core, each of which has had a task
    cores = os.sched_getaffinity(0)
    bench = make_bench(workers=len(cores))
    count = len(cores)

    def meet(number: int) -> tuple[int, set[int]]:
        (tmp_path / f"{number}").touch()
        turn, first = 0, number // count * count
        while not all((tmp_path / f"{other}").exists() for other in range(first, first + count)):
            turn += 1
            assert turn < PATIENCE / 0.01, "they do not all run at the same time"
            nap(0.01)
        return os.getpid(), os.sched_getaffinity(0)

    workers = [pid for pid, _ in bench.run(meet, range(count)).values()]
    assert len(set(workers)) == count

    # When nothing comes for a while
    wait_until(lambda: all(len(os.sched_getaffinity(pid)) == 1 for pid in workers), "each is on one core")

    # Then each waits on another core, and the next tasks may use all of them
    assert set().union(*map(os.sched_getaffinity, workers)) == cores
    bench.feed(range(count, 2 * count), first=count)
    bench.finish()
    assert sorted(bench.outcomes[task][0] for task in range(count, 2 * count)) == sorted(workers)
    assert [used for _, used in bench.outcomes.values()] == [cores] * (2 * count)


def test_a_task_that_forgets_which_cores_there_are_harms_no_later_one(make_bench: MakeBench) -> None:
    # Given a task that has libraries count the processors in another way
    cores = os.sched_getaffinity(0)
    bench = make_bench(workers=len(cores))

    def forget(number: int) -> int:
        vars(os).pop("sched_getaffinity", None)
        return os.getpid()

    def look(number: int) -> tuple[int, str]:
        with open("/proc/self/status") as file:
            return os.getpid(), next(line for line in file if line.startswith("Cpus_allowed:"))

    (worker,) = bench.run(forget, range(1)).values()

    # When it has waited, and has work again
    wait_until(lambda: len(os.sched_getaffinity(worker)) == 1, "it waits on its core")
    bench.define(look, "look")
    bench.feed([1], "look", first=1)
    bench.finish()

    # Then it is still there, and may use all cores
    assert bench.statuses[1] == Status.ok
    mask = sum(1 << core for core in cores)
    assert (bench.outcomes[1][0], int(bench.outcomes[1][1].split()[1].replace(",", ""), 16)) == (worker, mask)
