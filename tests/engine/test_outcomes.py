"""Each task has one outcome, and a task that fails, in whichever way, fails alone."""

from __future__ import annotations

import base64
import ctypes
import math
import os
import pickle
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.bench import PATIENCE, Bench, block, is_alive, nap, wait_until
from tests.engine.conftest import MakeBench
from vmrun.agent.engine import Load, Results
from vmrun.core.blocks import PYTHON, ResultBlock, Status
from vmrun.core.clock import SystemClock

OTHERS = 40


def run_one_bad(bench: Bench, misbehave: Any) -> dict[str, Any]:
    """Run one task that misbehaves among many that do not; the document of its failure."""
    bad = 7

    def task(number: int) -> int:
        if number == bad:
            return misbehave()
        return number * number

    outcomes = bench.run(task, range(OTHERS))
    assert {number: outcomes[number] for number in range(OTHERS) if number != bad} == {
        number: number * number for number in range(OTHERS) if number != bad
    }
    assert bench.statuses[bad].name == outcomes[bad]["kind"]
    return outcomes[bad]


@pytest.mark.catalogue(60)
def test_tasks_return_what_the_function_returns(bench: Bench) -> None:
    values: list[object] = [None, float("inf"), 10**400, "ä\0", b"\xff", (1, [2, {3: {4}}]), lambda: 5, float("nan")]
    outcomes = bench.run(lambda value: value, values)
    assert [outcomes[at] for at in range(6)] == values[:6]
    assert outcomes[6]() == 5
    assert math.isnan(outcomes[7])
    assert set(bench.statuses.values()) == {Status.ok}


@pytest.mark.catalogue(60)
def test_a_result_that_contains_itself_comes_back_as_such(bench: Bench) -> None:
    def knot(_: int) -> list[Any]:
        loop: list[Any] = []
        loop.append(loop)
        return loop

    (loop,) = bench.run(knot, [0]).values()
    assert loop[0] is loop


def test_blocks_in_any_order_and_arguments_as_calls(bench: Bench) -> None:
    bench.define(lambda a, b=0: a * 100 + b)
    bench.engine.feed(block(50, [((1,), {"b": 2}), ((3,), {})], "call"), "f")
    bench.engine.feed(block(0, [4]), "f")
    bench.finish()
    assert bench.outcomes == {50: 102, 51: 300, 0: 400}


def test_what_each_task_was_is_on_record(bench: Bench) -> None:
    def work(_: int) -> int:
        nap(0.05)
        sum(range(200_000))
        return os.getpid()

    bench.run(work, range(3))
    for task in range(3):
        facts = bench.facts[task]
        assert (facts["pid"], facts["attempt"]) == (bench.outcomes[task], 0)
        assert facts["worker"] in (0, 1)
        assert facts["cpu_seconds"] > 0
        assert facts["peak_bytes"] > 1_000_000
        assert 0.05 <= bench.seconds[task] < PATIENCE
    starts = [start for event in bench.events if isinstance(event, Results) for start in event.block.started]
    assert all(0 <= SystemClock().now() - start < PATIENCE for start in starts)


# --- ways to fail ---


@pytest.mark.catalogue(35)
def test_a_task_that_raises(bench: Bench) -> None:
    def fail() -> None:
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("no such thing") from error

    said = run_one_bad(bench, fail)
    assert (said["kind"], said["type"], said["message"]) == ("raised", "ValueError", "no such thing")
    assert "KeyError" in said["traceback"]
    assert "in fail" in said["traceback"]
    assert "vmrun/agent" not in said["traceback"]
    assert isinstance(pickle.loads(base64.b64decode(said["exception"])), ValueError)


@pytest.mark.catalogue(36)
def test_an_exception_that_cannot_be_unpickled(bench: Bench) -> None:
    def fail() -> None:
        class TwoArguments(Exception):
            def __init__(self, code: int, text: str) -> None:
                super().__init__(f"{code} {text}")

        raise TwoArguments(1, "two")

    said = run_one_bad(bench, fail)
    assert (said["kind"], said["message"]) == ("raised", "1 two")
    assert said["type"].endswith("TwoArguments")
    assert "exception" not in said


@pytest.mark.catalogue(38)
@pytest.mark.parametrize(
    ("leave", "code"),
    [(lambda: sys.exit(0), 0), (lambda: sys.exit("bye"), 1), (lambda: os._exit(0), 0), (lambda: os._exit(41), 41)],
)
def test_a_task_that_leaves_has_not_succeeded(bench: Bench, leave: Any, code: int) -> None:
    said = run_one_bad(bench, leave)
    assert (said["kind"], said["code"]) == ("exited", code)


@pytest.mark.catalogue(39)
def test_a_segmentation_fault_tells_where(bench: Bench) -> None:
    said = run_one_bad(bench, lambda: ctypes.string_at(0))
    assert (said["kind"], said["code"], said["message"]) == ("signalled", signal.SIGSEGV, "killed by SIGSEGV")
    assert "Segmentation fault" in said["traceback"]
    assert "string_at" in said["traceback"]


@pytest.mark.catalogue(39)
def test_an_abort(bench: Bench) -> None:
    said = run_one_bad(bench, os.abort)
    assert (said["kind"], said["code"]) == ("signalled", signal.SIGABRT)


@pytest.mark.catalogue(37)
@pytest.mark.parametrize("make", [threading.Lock, lambda: {"deep": [1], "gen": (x for x in "ab")}])
def test_a_result_that_cannot_be_pickled(bench: Bench, make: Any) -> None:
    said = run_one_bad(bench, make)
    assert said["kind"] == "unpicklable"
    assert "result" in said["message"]
    assert "_thread.lock" in said["message"] or "result['gen'] is a generator" in said["message"]


@pytest.mark.catalogue(37)
def test_a_result_that_leaves_when_it_is_pickled(bench: Bench) -> None:
    class Leaving:
        def __reduce__(self) -> Any:
            sys.exit(3)

    said = run_one_bad(bench, lambda: [1, Leaving()])
    assert said["kind"] == "unpicklable"
    assert "result[1] is a " in said["message"]
    assert bench.facts[7]["attempt"] == 0


@pytest.mark.catalogue(36)
def test_an_exception_that_leaves_when_it_is_asked_for_words(bench: Bench) -> None:
    def fail() -> None:
        class Leaving(Exception):
            def __str__(self) -> str:
                raise SystemExit(3)

        raise Leaving

    said = run_one_bad(bench, fail)
    assert (said["kind"], bench.facts[7]["attempt"]) == ("raised", 0)
    assert said["type"].endswith("Leaving")


@pytest.mark.catalogue(33)
def test_an_argument_that_cannot_be_loaded(bench: Bench) -> None:
    class Broken:
        def __reduce__(self) -> Any:
            return (lambda: 1 // 0), ()

    outcomes = bench.run(lambda value: value, [1, Broken(), 3])
    assert (outcomes[0], outcomes[2]) == (1, 3)
    assert (outcomes[1]["kind"], outcomes[1]["type"]) == ("raised", "ZeroDivisionError")


@pytest.mark.catalogue(33, 34)
def test_a_function_that_cannot_be_loaded_fails_every_task(bench: Bench) -> None:
    class Broken:
        def __reduce__(self) -> Any:
            return __import__, ("no_such_module_here",)

    outcomes = bench.run(Broken(), range(30))  # type: ignore[arg-type]
    assert {(said["kind"], said["type"], said["message"]) for said in outcomes.values()} == {
        ("raised", "ModuleNotFoundError", "No module named 'no_such_module_here'")
    }


@pytest.mark.catalogue(33)
def test_a_function_that_crashes_the_process_when_it_is_loaded(bench: Bench) -> None:
    class Deadly:
        def __reduce__(self) -> Any:
            return os._exit, (9,)

    outcomes = bench.run(Deadly(), range(3))  # type: ignore[arg-type]
    assert [(said["kind"], said["code"]) for said in outcomes.values()] == [("exited", 9)] * 3


def test_another_pythons_pickles_are_not_opened(bench: Bench, tmp_path: Path) -> None:
    canary = tmp_path / "opened"

    class Canary:
        def __reduce__(self) -> Any:
            return open, (str(canary), "w")

    bench.define(lambda value: value, "ours")
    bench.define(Canary(), "theirs", python="3.99")  # type: ignore[arg-type]
    bench.engine.feed(block(0, [Canary()], python="3.99"), "ours")
    bench.engine.feed(block(1, [Canary()]), "theirs")
    bench.feed([5], "ours", first=2)
    bench.finish()
    assert bench.outcomes[2] == 5
    for task in (0, 1):
        assert bench.outcomes[task]["kind"] == "unpicklable"
        assert "3.99" in bench.outcomes[task]["message"]
        assert PYTHON in bench.outcomes[task]["message"]
    assert not canary.exists()


# --- deaths from outside ---


def test_a_worker_killed_from_outside_is_replaced_and_its_task_repeated(bench: Bench, tmp_path: Path) -> None:
    note = tmp_path / "pids"

    def work(number: int) -> int:
        with note.open("a") as file:
            file.write(f"{number} {os.getpid()}\n")
        while number == 1 and len(note.read_text().split()) < 5 * 2:
            nap(0.005)
        return os.getpid()

    bench.define(work)
    bench.feed([1])
    first = wait_until(lambda: note.exists() and note.read_text().split())[1]
    os.kill(int(first), signal.SIGKILL)
    wait_until(lambda: len(note.read_text().split()) == 4)
    bench.feed([2, 3, 4], first=1)
    bench.finish()
    assert set(bench.statuses.values()) == {Status.ok}
    assert bench.outcomes[0] != int(first)
    assert bench.facts[0]["attempt"] == 1


def test_a_task_whose_worker_is_killed_every_time_fails_as_killed(bench: Bench) -> None:
    said = run_one_bad(bench, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert (said["kind"], said["code"]) == ("signalled", signal.SIGKILL)
    assert "out of memory, or from outside" in said["message"]
    assert bench.facts[7]["attempt"] == 2


def test_an_idle_worker_that_is_killed_is_nobodys_failure(bench: Bench) -> None:
    bench.run(lambda _: os.getpid(), [0])
    os.kill(bench.outcomes[0], signal.SIGKILL)
    wait_until(lambda: not is_alive(bench.outcomes[0]))
    bench.feed([1, 2], first=1)
    bench.finish()
    assert bench.statuses == dict.fromkeys(range(3), Status.ok)
    assert bench.facts[1]["attempt"] == 0


def test_finished_tasks_of_a_dead_worker_are_not_repeated(make_bench: MakeBench, tmp_path: Path) -> None:
    """What was finished in the same chunk is read from the shared memory; what was not begun runs elsewhere, once."""
    bench = make_bench(workers=1)
    note = tmp_path / "calls"

    def work(number: int) -> int:
        with note.open("a") as file:
            file.write(f"{number}\n")
        if number and number % 100 == 0:
            os._exit(1)
        return number

    outcomes = bench.run(work, range(1000))
    assert [outcomes[number] for number in range(1000) if number % 100] == [n for n in range(1000) if n % 100]
    assert {outcomes[number]["kind"] for number in range(100, 1000, 100)} == {"exited"}
    assert sorted(map(int, note.read_text().split())) == list(range(1000))


# --- another attempt ---


def test_a_failing_task_gets_its_attempts_and_only_the_last_one_counts(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(retries=2)

    def work(number: int) -> int:
        marks = tmp_path / f"task{number}"
        marks.open("a").write("x")
        attempt = len(marks.read_text())
        print("attempt", attempt)
        if number == 3 or (number == 5 and attempt < 3):
            raise ValueError(f"attempt {attempt}")
        if number == 8 and attempt == 1:
            os._exit(1)
        return number

    outcomes = bench.run(work, range(20))
    assert outcomes[3]["message"] == "attempt 3"
    assert [outcomes[n] for n in range(20) if n != 3] == [n for n in range(20) if n != 3]
    assert [bench.facts[n]["attempt"] for n in (3, 5, 8, 9)] == [2, 2, 1, 0]
    assert len((tmp_path / "task3").read_text()) == 3
    assert [bench.printed(5, attempt=n) for n in range(4)] == ["attempt 1\n", "attempt 2\n", "attempt 3\n", ""]


# --- reduce ---


def test_a_reduce_gets_all_results_in_order(bench: Bench, tmp_path: Path) -> None:
    bench.define(lambda number: {"n": number})
    bench.feed(range(100))
    bench.finish()
    blocks = sorted((event.block for event in bench.events if hasattr(event, "block")), key=lambda found: found.first)
    with (tmp_path / "results").open("wb") as file:
        for found in blocks:
            data = found.encode()
            file.write(struct.pack("<Q", len(data)) + data)

    class Job:
        fn = staticmethod(len)
        reducer = staticmethod(lambda results: [result["n"] for result in results])

    reduce(bench, Job(), tmp_path / "results")
    assert bench.outcomes[100] == list(range(100))


def test_arrays_in_results_are_kept_beside_the_pickle_and_a_reduce_gets_them(bench: Bench, tmp_path: Path) -> None:
    """Its own result is large as well, and has two buffers; a small array stays in its pickle."""

    def work(number: int) -> Any:
        fixed = np.full(100_000, number)
        fixed.flags.writeable = False
        return {"array": np.full(1000 if number == 3 else 400_000, float(number)), "fixed": fixed, "n": number}

    bench.run(work, range(4))
    assert (set(bench.large), bench.parcels) == ({0, 1, 2}, {0, 1, 2})
    for number, outcome in bench.outcomes.items():
        assert np.array_equal(outcome["array"], work(number)["array"])
        assert (outcome["array"].flags.writeable, outcome["fixed"].flags.writeable) == (True, False)
    with (tmp_path / "results").open("wb") as file:
        for number in range(4):
            data = bench.large[number].read_bytes() if number in bench.large else block_of_last(bench).encode()
            file.write(struct.pack("<Q", len(data)) + data)

    def add(results: list[Any]) -> Any:
        first = results[0]["array"]
        first += results[2]["array"]
        return [result["n"] for result in results], first, results[1]["array"]

    class Job:
        fn = staticmethod(len)
        reducer = staticmethod(add)

    reduce(bench, Job(), tmp_path / "results")
    numbers, total, other = bench.outcomes[100]
    assert 100 in bench.parcels
    assert numbers == [0, 1, 2, 3]
    assert (set(total), set(other)) == ({2.0}, {1.0})


def reduce(bench: Bench, job: object, results: Path) -> None:
    """Run a job's reduce over the results in a file, as task 100."""
    bench.define(job, "total", role="reduce")  # type: ignore[arg-type]
    path = str(results).encode()
    task = block(100, [])
    task.lengths.append(len(path))
    task.payload, task.call = path, "results"
    bench.engine.feed(task, "total")
    bench.finish()


def block_of_last(bench: Bench) -> ResultBlock:
    """The block with the outcome of task 3, and no other."""
    blocks = (event.block for event in bench.events if isinstance(event, Results))
    return next(found for found in blocks if found.first <= 3 < found.first + found.count).slice(3, 1)


# --- the load ---


def test_the_load_is_reported(bench: Bench) -> None:
    bench.define(lambda _: nap(0.6))
    bench.feed(range(12))
    bench.until(lambda: any(isinstance(event, Load) and event.running == 2 and event.queued for event in bench.events))
    bench.until(lambda: bench.events and isinstance(bench.events[-1], Load) and bench.events[-1].done == 12)
    assert bench.events[-1] == Load(0, 0, 12)


def test_a_large_result_that_cannot_be_written_is_not_said_to_be_unpicklable(bench: Bench) -> None:
    """A task that has used up the descriptors of its process, say."""

    def work(number: int) -> bytes:
        if number == 1:
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return b"x" * 3_000_000

    bench.run(work, [1])
    assert bench.statuses[0] is Status.raised
    assert "could not be written to the machine's disk" in bench.outcomes[0]["message"]
    assert "pickled" not in bench.outcomes[0]["message"]
