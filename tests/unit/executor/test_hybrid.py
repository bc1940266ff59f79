"""Several executors as one: who gets which call, what comes back, and how it ends."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from vmrun.core.errors import CapacityError, UsageError
from vmrun.hybrid import HybridExecutor


class Noting(Executor):
    """Keeps calls until they are to run, and notes how it is shut down."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.given = 0
        self.shutdowns: list[tuple[bool, bool]] = []
        self._refusal = refusal

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._refusal is not None:
            raise self._refusal
        future: Future[Any] = Future()
        self.calls.append((future, lambda: fn(*args, **kwargs)))
        self.given += 1
        return future

    def run_all(self) -> None:
        for future, call in self.calls:
            future.set_result(call())
        self.calls = []

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.shutdowns.append((wait, cancel_futures))


def test_inputs_are_split_in_halves_and_results_come_in_order() -> None:
    one, two = Noting(), Noting()
    results = HybridExecutor(one, two).map(operator.mul, range(10), range(10))
    assert (one.given, two.given) == (5, 5)
    two.run_all()
    one.run_all()
    assert list(results) == [x * x for x in range(10)]


def test_shares_decide_how_calls_are_split() -> None:
    one, two, three = Noting(), Noting(), Noting()
    pool = HybridExecutor(one, two, three, shares=(1, 2, 0.5))
    for x in range(70):
        pool.submit(abs, x)
    assert (one.given, two.given, three.given) == (20, 40, 10)


def test_later_calls_go_to_whoever_is_done() -> None:
    one, two = Noting(), Noting()
    pool = HybridExecutor(one, two)
    for x in range(10):
        pool.submit(abs, x)
    one.run_all()
    for x in range(5):
        pool.submit(abs, x)
    assert (one.given, two.given) == (10, 5)


def test_chunks_of_calls_are_one_call_of_an_executor() -> None:
    one, two = Noting(), Noting()
    results = HybridExecutor(one, two).map(abs, range(10), chunksize=5)
    assert (one.given, two.given) == (1, 1)
    one.run_all()
    two.run_all()
    assert list(results) == list(range(10))
    with pytest.raises(ValueError, match="chunksize"):
        HybridExecutor(one).map(abs, [1], chunksize=0)


def test_futures_are_those_of_the_executors_and_many_threads_may_submit() -> None:
    with HybridExecutor(ThreadPoolExecutor(1), ThreadPoolExecutor(1)) as pool:
        futures: list[Future[int]] = []
        lock = threading.Lock()

        def submit() -> None:
            for x in range(50):
                future = pool.submit(abs, -x)
                with lock:
                    futures.append(future)

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done, left = wait(futures, timeout=120)
    assert not left
    assert sorted(future.result() for future in done) == sorted(list(range(50)) * 4)


def test_a_refused_call_says_why_and_is_not_counted() -> None:
    good, bad = Noting(), Noting(CapacityError("nothing to be had"))
    pool = HybridExecutor(bad, good)
    with pytest.raises(CapacityError, match="nothing to be had"):
        pool.submit(abs, 1)
    # As nothing waits there, it is asked again.
    with pytest.raises(CapacityError):
        pool.submit(abs, 1)
    assert good.given == 0


def test_all_are_told_to_end_before_one_is_waited_for() -> None:
    one, two = Noting(), Noting()
    with HybridExecutor(one, two) as pool:
        pool.submit(abs, 1)
    assert one.shutdowns == two.shutdowns == [(False, False), (True, False)]
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, 1)
    three = Noting()
    HybridExecutor(three).shutdown(wait=False, cancel_futures=True)
    assert three.shutdowns == [(False, True)]


def test_what_cannot_be_shared_is_refused() -> None:
    one, two = Noting(), Noting()
    for executors, shares in (((), None), ((one, one), None), ((one, two), (1,)), ((one, two), (1, 0))):
        with pytest.raises(UsageError):
            HybridExecutor(*executors, shares=shares)
    with pytest.raises(UsageError):
        HybridExecutor(one, shares=(float("inf"),))
