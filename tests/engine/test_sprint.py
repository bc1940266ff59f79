"""Tasks of microseconds are called many at a time; nothing of what holds for others may be lost by that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench
from tests.engine.conftest import MakeBench
from vmrun.agent.engine import Results
from vmrun.agent.runner.worker import SPRINT_TASKS
from vmrun.core.blocks import Status

#: Tasks before the one that does something: enough for the function to be known as a quick one.
MANY = 6000
AT = 4321


@pytest.fixture
def alone(make_bench: MakeBench) -> Bench:
    """One worker, so that all tasks share a process."""
    return make_bench(workers=1)


def sprinted(bench: Bench) -> int:
    """Tasks that were called many at a time."""
    return sum(event.block.count for event in bench.events if isinstance(event, Results) and event.block.ended)


def spoil_late(bench: Bench, spoil: Any, look: Any) -> None:
    """A function that has long been quick spoils its process once; the next tasks must see nothing of it."""

    def work(number: int) -> Any:
        if number == AT:
            spoil()
            return None
        return look() if number in (0, AT + 1, AT + 2) else None

    outcomes = bench.run(work, range(MANY))
    assert set(bench.statuses.values()) == {Status.ok}
    assert outcomes[0] == outcomes[AT + 1] == outcomes[AT + 2]
    assert sprinted(bench) > 100


def test_quick_tasks_are_called_many_at_a_time(alone: Bench) -> None:
    assert alone.run(lambda number: number * 2, range(MANY)) == {number: number * 2 for number in range(MANY)}
    assert sprinted(alone) > MANY // 4
    starts = [at for event in alone.events if isinstance(event, Results) for at in event.block.timed().started]
    assert starts == sorted(starts)
    assert all(seconds >= 0 for seconds in alone.seconds.values())


def test_working_directory(alone: Bench) -> None:
    spoil_late(alone, lambda: os.chdir("/"), os.getcwd)


def test_umask(alone: Bench) -> None:
    def look() -> int:
        mask = os.umask(0o77)
        os.umask(mask)
        return mask

    spoil_late(alone, lambda: os.umask(0), look)


def test_environment(alone: Bench) -> None:
    def spoil() -> None:
        os.environ["ADDED"] = "after"
        del os.environ["PATH"]

    spoil_late(alone, spoil, lambda: (os.environ.get("ADDED"), os.environ.get("PATH")))


def test_every_task_knows_its_number_and_so_do_its_children(alone: Bench) -> None:
    def work(number: int) -> Any:
        if number % 1000 == 999:
            if number == 3999:
                child = subprocess.check_output(["printenv", "VMRUN_TASK"], text=True).strip()
                return [os.environ["VMRUN_TASK"], child, os.environb[b"VMRUN_TASK"].decode()]
            return [os.environ["VMRUN_TASK"]]
        return None

    outcomes = alone.run(work, range(MANY))
    assert outcomes[3999] == ["3999"] * 3
    assert [outcomes[number] for number in (999, 1999, 2999, 4999)] == [["999"], ["1999"], ["2999"], ["4999"]]
    assert sprinted(alone) > 100


@pytest.mark.parametrize("out", [True, False], ids=["stdout", "stderr"])
def test_what_is_printed_is_known_to_be_whose(alone: Bench, out: bool) -> None:
    def work(number: int) -> None:
        if number in (AT, AT + 1, AT + 30):
            print("I am", number, file=sys.stdout if out else sys.stderr)

    alone.run(work, range(MANY))
    stream = "stdout" if out else "stderr"
    said = {task: data for (task, _, name), data in alone.output.items() if name == stream}
    assert said == {number: b"I am %d\n" % number for number in (AT, AT + 1, AT + 30)}
    assert sprinted(alone) > 100


def test_a_replaced_stdout_is_put_back(alone: Bench) -> None:
    def work(number: int) -> None:
        if number == AT:
            sys.stdout = None  # type: ignore[assignment]
        if number > AT + SPRINT_TASKS:
            print(number)

    last = AT + SPRINT_TASKS + 5
    alone.run(work, range(last + 1))
    assert set(alone.statuses.values()) == {Status.ok}
    assert alone.printed(last) == f"{last}\n"


def test_files_are_known_to_be_whose(alone: Bench) -> None:
    def work(number: int) -> None:
        if number in (AT, AT + 7):
            Path(os.environ["VMRUN_OUTPUT"], f"{number}.txt").write_text("here")

    alone.run(work, range(MANY))
    found = {task: sorted(os.listdir(path)) for (task, _), path in alone.files.items()}
    assert found == {AT: [f"{AT}.txt"], AT + 7: [f"{AT + 7}.txt"]}
    assert sprinted(alone) > 100


def test_a_task_that_raises_fails_alone(alone: Bench) -> None:
    def work(number: int) -> int:
        return 1 // ((number % 1500) - 700)

    alone.run(work, range(MANY))
    failed = {number for number, status in alone.statuses.items() if status is not Status.ok}
    assert failed == set(range(700, MANY, 1500))
    assert all(alone.outcomes[number]["type"] == "ZeroDivisionError" for number in failed)
    assert sprinted(alone) > 100


@pytest.mark.parametrize(
    "end", [lambda: os.kill(os.getpid(), signal.SIGSEGV), lambda: os._exit(3)], ids=["signal", "exit"]
)
def test_a_task_that_ends_its_process_fails_alone_and_none_is_repeated(alone: Bench, tmp_path: Path, end: Any) -> None:
    trace = tmp_path / "trace"

    def work(number: int) -> int:
        if number == AT:
            end()
        if number > AT - 40:
            fd = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(fd, b"%d\n" % number)
            os.close(fd)
        return number

    alone.run(work, range(AT + 100))
    failed = {number: status for number, status in alone.statuses.items() if status is not Status.ok}
    assert list(failed) == [AT]
    assert failed[AT] in (Status.signalled, Status.exited)
    runs = Counter(trace.read_text().split())
    assert set(runs.values()) == {1}
    assert len(runs) == 39 + 99


def test_a_forked_child_that_comes_back_does_not_answer_for_its_parent(alone: Bench) -> None:
    def work(number: int) -> int:
        if number in (AT, AT + 1):
            child = os.fork()
            if child == 0:
                return -1
            return 1000 + os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return number

    outcomes = alone.run(work, range(MANY))
    for number in (AT, AT + 1):
        assert outcomes.pop(number) in (1000, 1001)
    assert outcomes == {number: number for number in range(MANY) if number not in (AT, AT + 1)}


def test_a_forked_child_is_an_ordinary_process(alone: Bench, tmp_path: Path) -> None:
    """It prints, changes what it likes, starts programs, and knows its task."""

    def work(number: int) -> int:
        if number != AT:
            return number
        child = os.fork()
        if child == 0:
            os.umask(0)
            os.chdir("/")
            print("I am a child of", os.environ["VMRUN_TASK"])
            (tmp_path / "said").write_text(subprocess.check_output(["printenv", "VMRUN_TASK"], text=True))
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    outcomes = alone.run(work, range(MANY))
    assert outcomes[AT] == 7
    assert (tmp_path / "said").read_text() == f"{AT}\n"
    assert alone.printed(AT) == f"I am a child of {AT}\n"


def test_a_task_that_suddenly_takes_long_can_be_ended_and_gives_back_what_waits(make_bench: MakeBench) -> None:
    bench = make_bench(workers=2, task_timeout=4.0)

    def work(number: int) -> int:
        while number == AT:
            pass
        return number

    outcomes = bench.run(work, range(MANY * 5))
    assert bench.statuses[AT] is Status.timeout
    del outcomes[AT]
    assert outcomes == {number: number for number in range(MANY * 5) if number != AT}


VALUES = [None, 0, -1, 2**63 - 1, -(2**63), 2**63, 1.5, -0.0, float("inf"), True, False, "text", [1], (2, None)]


def test_results_of_every_kind_come_back_as_they_were(alone: Bench) -> None:
    def work(number: int) -> Any:
        return VALUES[number % len(VALUES)] if number % 3 == 0 else None

    outcomes = alone.run(work, range(MANY))
    expected = {number: work(number) for number in range(MANY)}
    assert outcomes == expected
    assert all(type(outcomes[number]) is type(expected[number]) for number in range(MANY))
    assert str(outcomes[VALUES.index(-0.0) * 15]) == str(expected[VALUES.index(-0.0) * 15])


@pytest.mark.parametrize("often", [0, None])
def test_results_of_another_kind_than_the_last_ones_come_back_as_they_were(alone: Bench, often: int | None) -> None:
    rare = {41: True, 97: 2**70, 131: -(2**63), 137: "text", 139: 0.5, 149: 2**63 - 1, 151: b"", 157: None, 163: 7}

    def work(number: int) -> Any:
        if number > 2000 and number % 53 == 5:
            raise KeyError(number)
        return rare.get(number % 167, often)

    outcomes = alone.run(work, range(MANY))
    failed = {number for number in range(2001, MANY) if number % 53 == 5}
    assert {number for number, status in alone.statuses.items() if status is Status.raised} == failed
    expected = {number: rare.get(number % 167, often) for number in range(MANY) if number not in failed}
    found = {number: value for number, value in outcomes.items() if number not in failed}
    assert found == expected
    assert {number: type(value) for number, value in found.items()} == {
        number: type(value) for number, value in expected.items()
    }
    assert sprinted(alone) > MANY // 4


def test_large_results_between_quick_tasks(alone: Bench) -> None:
    def work(number: int) -> Any:
        return b"x" * (3 << 20 if number % 2000 == AT % 2000 else 300 if number % 5 == 0 else 0)

    outcomes = alone.run(work, range(MANY))
    assert outcomes == {number: work(number) for number in range(MANY)}
    assert set(alone.large) == set(range(AT % 2000, MANY, 2000))
    assert sprinted(alone) > 100
