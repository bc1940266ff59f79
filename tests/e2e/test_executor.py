"""`vmrun.Executor` is a true `concurrent.futures.Executor`."""

from __future__ import annotations

import concurrent.futures
import operator
import os
import threading
import time

import pytest

import vmrun
from vmrun.watch.results import RemoteTraceback

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def double(x: int) -> int:
    return 2 * x


def fail(x: int) -> None:
    raise KeyError(x)


def test_calls_maps_and_failures(isolated: object) -> None:
    with vmrun.Executor(workers=2) as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        assert pool.submit(double, 21).result(240) == 42
        assert list(pool.map(double, range(100), timeout=240)) == [2 * x for x in range(100)]
        assert list(pool.map(operator.add, range(10), range(10), chunksize=3)) == [2 * x for x in range(10)]
        assert pool.submit(lambda: os.getpid()).result(240) != os.getpid()
        with pytest.raises(KeyError) as caught:
            pool.submit(fail, 7).result(240)
        assert caught.value.args == (7,)
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "raise KeyError(x)" in str(caught.value.__cause__)
        with pytest.raises(vmrun.TaskError, match=r"SIGKILL|killed"):
            pool.submit(os.kill, 0, 9).result(240)
        with pytest.raises(TypeError):
            pool.submit(double, threading.Lock()).result(240)
        assert pool.submit(double, 1).result(240) == 2
    with pytest.raises(RuntimeError):
        pool.submit(double, 1)


def test_a_chunksize_is_honoured(isolated: object) -> None:
    """So many calls are one task, as whoever asks for it wants."""

    def where(x: int) -> tuple[int, str]:
        return x, os.environ["VMRUN_TASK"]

    with vmrun.Executor(workers=2) as pool:
        found = list(pool.map(where, range(8), chunksize=3, timeout=240))
        assert [x for x, _ in found] == list(range(8))
        tasks = [task for _, task in found]
        assert [tasks.count(task) for task in dict.fromkeys(tasks)] == [3, 3, 2]
        alone = list(pool.map(where, (x for x in range(8)), timeout=240))
        assert len({task for _, task in alone}) == 8
        assert list(pool.map(where, [], chunksize=3)) == []
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(where, range(8), chunksize=0)


def test_as_completed_and_cancel(isolated: object) -> None:
    with vmrun.Executor(workers=1) as pool:
        futures = {pool.submit(double, x): x for x in range(20)}
        for future in concurrent.futures.as_completed(futures, timeout=240):
            assert future.result() == 2 * futures[future]
        pool.shutdown(wait=False, cancel_futures=True)


def test_a_timeout_of_map_is_raised(isolated: object) -> None:
    pool = vmrun.Executor(workers=1)
    with pytest.raises(TimeoutError):
        list(pool.map(time.sleep, [2], timeout=0.2))  # noqa: TID251 - it is the task that sleeps
    pool.shutdown()
