"""Which cores workers use: each its own while they wait, all of them while they work."""

from __future__ import annotations

import os
from pathlib import Path

from tests.engine.bench import PATIENCE, nap, wait_until
from tests.engine.conftest import MakeBench


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
