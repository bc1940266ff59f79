"""Time limits and cancelling: what is to end ends, by force if it must, and takes nobody with it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.engine.bench import PATIENCE, Bench, is_alive, nap, wait_until
from tests.engine.conftest import MakeBench
from vmrun.core.blocks import Status

#: Seconds: a task that is only kept from its processor, or has a word to write first, takes less.
LIMIT = 4.0


@pytest.mark.catalogue(40)
def test_a_task_that_takes_too_long_ends_and_the_others_go_on(make_bench: MakeBench) -> None:
    bench = make_bench(task_timeout=LIMIT)

    def work(number: int) -> int:
        if number == 5:
            print("hanging", flush=True)
            nap(600)
        return number

    outcomes = bench.run(work, range(50))
    assert outcomes.pop(5)["kind"] == "timeout"
    assert outcomes == {number: number for number in range(50) if number != 5}
    assert bench.printed(5) == "hanging\n"


def test_the_message_names_the_limit(make_bench: MakeBench) -> None:
    bench = make_bench(task_timeout=1.5)
    assert "1.5 seconds" in bench.run(lambda _: nap(600), [0])[0]["message"]


@pytest.mark.catalogue(41)
def test_a_task_that_ignores_the_request_is_killed(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(task_timeout=LIMIT, kill_grace=0.3)

    def work(_: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "pid").write_text(str(os.getpid()))
        while True:
            nap(0.01)

    began = time.monotonic()
    bench.run(work, [0])
    assert bench.outcomes[0]["kind"] == "timeout"
    assert time.monotonic() - began >= LIMIT + 0.3
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_task_may_use_the_grace_to_save_and_is_timed_out_all_the_same(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(task_timeout=LIMIT, kill_grace=200.0)

    def work(_: int) -> str:
        done = []
        signal.signal(signal.SIGTERM, lambda *_: done.append(1))
        while not done:
            nap(0.01)
        (tmp_path / "checkpoint").touch()
        print("saved")
        return "late"

    began = time.monotonic()
    bench.run(work, [0])
    assert bench.outcomes[0]["kind"] == "timeout"
    assert bench.printed(0) == "saved\n"
    assert (tmp_path / "checkpoint").exists()
    # Nobody waited for the rest of the grace.
    assert time.monotonic() - began < PATIENCE


@pytest.mark.catalogue(42)
def test_children_of_a_task_end_with_it(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(task_timeout=LIMIT, kill_grace=0.2)

    def work(_: int) -> None:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                nap(0.01)
        (tmp_path / "child").write_text(str(child))
        nap(600)

    bench.run(work, [0])
    assert bench.outcomes[0]["kind"] == "timeout"
    wait_until(lambda: not is_alive(int((tmp_path / "child").read_text())))


def test_a_timed_out_task_gets_its_further_attempts(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(task_timeout=LIMIT, retries=1)

    def work(number: int) -> str:
        mark = tmp_path / f"mark{number}"
        if number == 0 or not mark.exists():
            mark.touch()
            nap(600)
        return "second time"

    bench.run(work, range(2))
    assert bench.outcomes[0]["kind"] == "timeout"
    assert bench.outcomes[1] == "second time"
    assert [bench.facts[task]["attempt"] for task in (0, 1)] == [1, 1]


def test_short_tasks_are_not_stuck_behind_a_long_one(bench: Bench, tmp_path: Path) -> None:
    """All in one chunk: what was finished before the long task is reported, what waits behind it runs elsewhere."""

    def work(number: int) -> int:
        if number == 20_000:
            while not (tmp_path / "enough").exists():
                nap(0.01)
        return number

    bench.define(work)
    bench.feed(range(40_000))
    bench.until(lambda: len(bench.outcomes) == 39_999)
    assert 20_000 not in bench.outcomes
    (tmp_path / "enough").touch()
    bench.finish()
    assert bench.outcomes == {number: number for number in range(40_000)}


def test_one_worker_reports_what_it_finished_before_a_long_task(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(workers=1)

    def work(number: int) -> int:
        print(number)
        if number == 2_000:
            while not (tmp_path / "enough").exists():
                nap(0.01)
        return number

    bench.define(work)
    bench.feed(range(3_000))
    bench.until(lambda: len(bench.outcomes) == 2_000 and bench.printed(2_000) == "2000\n")
    (tmp_path / "enough").touch()
    bench.finish()
    assert bench.outcomes == {number: number for number in range(3_000)}
    assert all(bench.printed(number) == f"{number}\n" for number in range(3_000))


def test_the_tail_is_shared_among_all_workers(bench: Bench, tmp_path: Path) -> None:
    """Tasks that looked short turn out long at the end: no worker keeps a chunk of them while the other is idle.

    They go in pairs: the first of two waits until the second has begun, which only the other worker can do.
    """

    def pair_up() -> None:
        for turn in range(12):
            try:
                os.close(os.open(tmp_path / f"turn{turn}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            while not (tmp_path / f"turn{turn | 1}").exists():
                nap(0.005)
            return

    def work(number: int) -> int:
        if number >= 3_000:
            pair_up()
        return os.getpid()

    bench.run(work, range(3_012))
    tail = [bench.outcomes[number] for number in range(3_000, 3_012)]
    assert tail.count(tail[0]) == 6


# --- cancelling ---


def test_cancelling_ends_what_runs_and_what_waits(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(retries=3)

    def work(number: int) -> int:
        if number >= 10:
            (tmp_path / f"pid{number}").write_text(str(os.getpid()))
            nap(600)
        return number

    bench.define(work)
    bench.feed(range(50_000))
    bench.until(lambda: len([path for path in tmp_path.glob("pid*") if path.read_text()]) == 2)
    bench.engine.cancel()
    bench.finish()
    assert len(bench.outcomes) == 50_000
    assert {task: bench.statuses[task] for task in range(10)} == dict.fromkeys(range(10), Status.ok)
    assert {bench.statuses[task] for task in range(10, 50_000)} == {Status.cancelled}
    for path in tmp_path.glob("pid*"):
        assert not is_alive(int(path.read_text()))


def test_a_cancelled_task_that_does_not_listen_is_killed_and_the_engine_goes_on(make_bench: MakeBench) -> None:
    bench = make_bench(kill_grace=0.2)

    def work(number: int) -> int:
        if number == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("deaf")
            nap(600)
        return number

    bench.define(work)
    bench.feed([0])
    bench.until(lambda: bench.printed(0) == "deaf\n")
    bench.engine.cancel()
    bench.finish()
    assert bench.outcomes[0]["kind"] == "cancelled"
    bench.feed([5], first=1)
    bench.finish()
    assert bench.outcomes[1] == 5


def test_cancelling_in_the_middle_of_thousands_leaves_one_outcome_each(bench: Bench) -> None:
    bench.define(lambda number: number)
    bench.feed(range(100_000))
    bench.until(lambda: len(bench.outcomes) > 1000)
    bench.engine.cancel()
    bench.finish()
    assert len(bench.outcomes) == 100_000
    kinds = set(bench.statuses.values())
    assert kinds <= {Status.ok, Status.cancelled}
    assert all(bench.outcomes[n] == n for n in range(100_000) if bench.statuses[n] is Status.ok)


def test_cancelling_nothing_is_fine(bench: Bench) -> None:
    bench.engine.cancel()
    assert bench.run(lambda x: x, [1]) == {0: 1}
