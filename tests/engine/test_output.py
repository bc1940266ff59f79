"""Every byte that a task writes is known to be its own, soon, and not lost in a crash; so are the files it leaves."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench, nap, wait_until
from tests.engine.conftest import MakeBench
from vmrun.agent.engine import LargeResult, Output, Results
from vmrun.agent.runner.guard import Place, files_of, move_files
from vmrun.agent.runner.outputs import omitted
from vmrun.core.blocks import Status

PLACE = Place(job="testjob", slot=0, serial=1, directory="", code_path="")


def test_many_short_tasks_that_print_are_told_apart(bench: Bench) -> None:
    """Thousands per chunk, some silent, with text, bytes, children and C code, on both streams."""

    def work(number: int) -> None:
        if number % 3 == 0:
            print("task", number)
            print("end of", number, end="")
        if number % 5 == 0:
            sys.stderr.write(f"trouble {number}\n")
        if number % 7 == 0:
            os.write(1, b"\xff\0raw %d" % number)
        if number % 500 == 1:
            subprocess.run(["sh", "-c", f"echo child {number}; echo sorry {number} >&2"], check=True)

    bench.run(work, range(3000))
    assert set(bench.statuses.values()) == {Status.ok}
    for number in range(3000):
        out = f"task {number}\nend of {number}".encode() if number % 3 == 0 else b""
        out += b"\xff\0raw %d" % number if number % 7 == 0 else b""
        out += b"child %d\n" % number if number % 500 == 1 else b""
        err = b"trouble %d\n" % number if number % 5 == 0 else b""
        err += b"sorry %d\n" % number if number % 500 == 1 else b""
        assert bench.output[number, 0, "stdout"] == out
        assert bench.output[number, 0, "stderr"] == err


def test_all_output_of_a_task_comes_before_its_outcome(bench: Bench) -> None:
    bench.run(print, range(2000))
    ended: set[int] = set()
    for event in bench.events:
        if isinstance(event, Output):
            assert event.task not in ended
        elif isinstance(event, Results):
            ended |= set(range(event.block.first, event.block.first + event.block.count))
    assert len(ended) == 2000


def test_a_running_task_is_heard_within_a_second(bench: Bench, tmp_path: Path) -> None:
    def work(_: int) -> None:
        for part in range(5):
            print("part", part, end=" ")
            print("problem", part, file=sys.stderr)
            while not (tmp_path / f"go{part}").exists():
                nap(0.005)

    bench.define(work)
    bench.feed([0])
    took = []
    for part in range(5):
        began = time.monotonic()
        bench.until(lambda part=part: f"part {part}" in bench.printed(0))
        bench.until(lambda part=part: f"problem {part}" in bench.printed(0, "stderr"))
        took.append(time.monotonic() - began)
        (tmp_path / f"go{part}").touch()
    bench.finish()
    assert bench.printed(0) == "part 0 part 1 part 2 part 3 part 4 "
    # The first part waits for the process too; any of the others may meet a computer that has no time.
    assert min(took[1:]) < 1.5, took


def test_what_c_code_prints_is_not_kept_back(bench: Bench) -> None:
    def work(number: int) -> None:
        ctypes.CDLL(None).puts(b"from C %d" % number)

    bench.run(work, range(5))
    assert [bench.printed(number) for number in range(5)] == [f"from C {number}\n" for number in range(5)]


def test_last_words_survive_a_crash(bench: Bench) -> None:
    def work(_: int) -> None:
        print("nearly", end="")
        print("oh", file=sys.stderr, end="")
        os._exit(1)

    bench.run(work, [0])
    assert bench.printed(0) == "nearly"
    assert bench.printed(0, "stderr") == "oh"
    assert bench.outcomes[0]["kind"] == "exited"


@pytest.mark.catalogue(48)
def test_invalid_text_is_kept_as_bytes_and_odd_text_is_no_error(bench: Bench) -> None:
    def work(_: int) -> None:
        sys.stdout.buffer.write(b"\xff\xfe\0")
        print("\ud800 ä €")

    bench.run(work, [0])
    assert bench.statuses[0] is Status.ok
    assert bench.output[0, 0, "stdout"] == b"\xff\xfe\0\\ud800 \xc3\xa4 \xe2\x82\xac\n"


@pytest.mark.catalogue(47)
def test_of_endless_output_both_ends_are_kept_and_the_task_goes_on(make_bench: MakeBench) -> None:
    bench = make_bench(output_cap=1_000_000)

    def work(number: int) -> int:
        for part in range(30):
            sys.stdout.write(f"{part:10}" * 10_000)
            nap(0.01)
        return number

    outcomes = bench.run(work, range(2))
    assert outcomes == {0: 0, 1: 1}
    written = "".join(f"{part:10}" * 10_000 for part in range(30)).encode()
    for task in range(2):
        assert bench.output[task, 0, "stdout"] == written[:750_000] + omitted(2_000_000) + written[-250_000:]


@pytest.mark.catalogue(47)
def test_a_task_that_floods_its_output_holds_no_neighbour_up_and_fills_no_disk(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    """One worker writes hundreds of megabytes a second; meanwhile the other does thousands of tasks, each at once."""
    bench = make_bench(output_cap=16 * 1024 * 1024)
    enough = tmp_path / "enough"

    def work(number: int) -> int:
        if number == 0:
            piece = b"0123456789abcdef" * 65536
            written = 0
            while written < 400 or not enough.exists():
                written += os.write(1, piece) // len(piece)
                nap(0.003)
            # What gives the space back may be a moment behind.
            for _ in range(1200):
                state = os.fstat(1)
                if state.st_blocks * 512 < 250_000_000:
                    break
                nap(0.05)
            return state.st_blocks * 512 if state.st_size > 400_000_000 else -1
        print(number)
        return number

    bench.define(work)
    bench.feed(range(20_000))
    bench.until(lambda: len(bench.outcomes) > 5_000)
    assert 0 not in bench.outcomes
    enough.touch()
    bench.finish()
    assert {number: bench.outcomes[number] for number in range(1, 20_000)} == {n: n for n in range(1, 20_000)}
    assert all(bench.printed(number) == f"{number}\n" for number in range(1, 20_000))
    assert 0 <= bench.outcomes[0] < 250_000_000
    assert len(bench.output[0, 0, "stdout"]) < 17 * 1024 * 1024


def test_an_agent_that_does_not_read_stops_nobody_and_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    """Far more output and results than any buffer holds, while the agent looks away."""

    def work(number: int) -> bytes:
        sys.stdout.write(f"{number:9}" * 100_000)
        (tmp_path / f"at{number}").touch()
        return b"r" * 900_000

    bench.define(work)
    bench.feed(range(60))
    # The workers go on until the buffers are full, and then wait.
    wait_until(lambda: len(list(tmp_path.glob("at*"))) > 10)
    seen, since = 0, time.monotonic()
    while time.monotonic() - since < 2.0:
        if len(list(tmp_path.glob("at*"))) != seen:
            seen, since = len(list(tmp_path.glob("at*"))), time.monotonic()
        nap(0.01)
    assert 10 < seen < 60
    bench.finish()
    assert bench.outcomes == dict.fromkeys(range(60), b"r" * 900_000)
    for task in range(60):
        assert bench.output[task, 0, "stdout"] == b"%9d" % task * 100_000


# --- files ---


def test_files_come_home_by_task_also_from_tasks_that_fail(make_bench: MakeBench) -> None:
    bench = make_bench(retries=1)

    def work(number: int) -> None:
        place = Path(os.environ["VMRUN_OUTPUT"])
        assert list(place.iterdir()) == []
        if number % 10 == 0:
            (place / "deep" / "er").mkdir(parents=True)
            (place / "deep" / "er" / "name.txt").write_text(f"of {number}")
        if number == 20:
            raise ValueError
        if number == 30:
            os._exit(1)
        if number == 15:
            (place / "passing").touch()
            (place / "passing").unlink()

    bench.run(work, range(100))
    attempts = [(number, 0) for number in range(0, 100, 10)] + [(20, 1), (30, 1)]
    assert sorted(bench.files) == sorted(attempts)
    for (number, _), path in bench.files.items():
        assert (path / "deep" / "er" / "name.txt").read_text() == f"of {number}"
        assert path.is_relative_to(bench.directory)
    assert [bench.statuses[number] for number in (20, 30, 40)] == [Status.raised, Status.exited, Status.ok]


def test_an_output_directory_that_a_task_removed_is_there_again(bench: Bench) -> None:
    def work(number: int) -> list[str]:
        os.rmdir(os.environ["VMRUN_OUTPUT"])
        return os.listdir(os.path.dirname(os.environ["VMRUN_OUTPUT"]))

    bench.run(work, range(6))
    assert set(bench.statuses.values()) == {Status.ok}
    assert bench.files == {}


@pytest.mark.parametrize(
    "put",
    [
        # To a directory in which there is something.
        pytest.param(lambda path: os.symlink("/etc", path), id="a link"),
        pytest.param(lambda path: Path(path).write_text("here"), id="a file"),
        pytest.param(os.mkfifo, id="a pipe"),
    ],
)
def test_what_a_task_puts_in_the_place_of_its_output_directory_concerns_nobody(bench: Bench, put: Any) -> None:
    def work(number: int) -> int:
        if number % 5 == 2:
            os.rmdir(os.environ["VMRUN_OUTPUT"])
            put(os.environ["VMRUN_OUTPUT"])
        else:
            Path(os.environ["VMRUN_OUTPUT"], f"{number}.txt").write_text("here")
        return number

    assert bench.run(work, range(20)) == {number: number for number in range(20)}
    found = {task: os.listdir(path) for (task, _), path in bench.files.items()}
    assert found == {number: [f"{number}.txt"] for number in range(20) if number % 5 != 2}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who needs rights")
def test_files_in_a_directory_that_a_task_made_read_only_come_home(tmp_path: Path) -> None:
    place = replace(PLACE, directory=str(tmp_path))
    (tmp_path / "files").mkdir()
    Path(place.output).mkdir(parents=True)
    for path in (tmp_path, tmp_path / "files", tmp_path / "output", place.output):
        os.chown(path, 65534, 65534)
    for path in tmp_path.parents:
        if path.stat().st_uid == os.getuid() and path.is_relative_to(tempfile.gettempdir()):
            path.chmod(path.stat().st_mode | 0o011)
    Path(place.output, "result.txt").write_text("here")
    os.chmod(place.output, 0o555)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit(0 if move_files(place, 3, 0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert Path(files_of(place, 3, 0), "result.txt").read_text() == "here"


# --- large results ---


def test_a_large_result_is_a_file(bench: Bench) -> None:
    def work(number: int) -> object:
        return {"data": bytes([number]) * 3_000_000} if number % 4 == 1 else number

    outcomes = bench.run(work, range(12))
    assert sorted(bench.large) == [1, 5, 9]
    for number in range(12):
        assert outcomes[number] == ({"data": bytes([number]) * 3_000_000} if number % 4 == 1 else number)
        assert bench.facts[number]["attempt"] == 0
    assert all(path.is_relative_to(bench.directory / "taken") for path in bench.large.values())


def test_a_large_result_that_cannot_be_pickled_leaves_no_file(bench: Bench) -> None:
    def work(_: int) -> object:
        return [b"x" * 3_000_000, (x for x in "ab")]

    bench.run(work, [0])
    assert bench.outcomes[0]["kind"] == "unpicklable"
    assert "result[1] is a generator" in bench.outcomes[0]["message"]
    assert list((bench.directory / "run" / "spool").iterdir()) == []


@pytest.mark.parametrize("size", [500_000, 1_000_000, 1_100_000])
def test_results_around_the_limit(bench: Bench, size: int) -> None:
    outcomes = bench.run(lambda number: bytes([number]) * size, range(8))
    assert outcomes == {number: bytes([number]) * size for number in range(8)}


@pytest.mark.catalogue(57)
def test_a_huge_result_passes_through_nobodys_memory(bench: Bench) -> None:
    """It goes from the worker into a file; runner and agent only say where that is."""
    size = 300_000_000

    def peak(pid: int) -> int:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) * 1024

    bench.define(lambda _: bytes(size))
    bench.define(lambda _: os.getppid(), "runner")
    bench.feed([0], "runner")
    bench.finish()
    runner = bench.outcomes[0]
    before = peak(runner), peak(os.getpid())
    bench.feed([0], first=1)
    found: list[LargeResult] = []
    while not found:
        found = [event for event in bench.engine.poll(0.1) if isinstance(event, LargeResult)]
    assert found[0].size > size
    assert peak(runner) - before[0] < 64 << 20
    assert peak(os.getpid()) - before[1] < 64 << 20
    bench.until(bench.engine.idle)


@pytest.mark.catalogue(57)
def test_large_arguments(bench: Bench) -> None:
    outcomes = bench.run(lambda data: (len(data), data[:1]), [bytes([n]) * 8_000_000 for n in range(12)])
    assert outcomes == {n: (8_000_000, bytes([n])) for n in range(12)}
