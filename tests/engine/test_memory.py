"""Whoever takes too much memory ends as `oom`, alone: by its own limit, by its share, or by the kernel's hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import Bench, is_alive, nap, wait_until
from tests.engine.conftest import MakeBench
from vmrun.agent.runner.processes import marked
from vmrun.core.blocks import Status

LIMIT = 300 * 1024 * 1024


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with little memory, of whichever version is there."""
    name = f"vmrun-test-{os.getpid()}"
    for root, limit in (
        (Path("/sys/fs/cgroup"), "memory.max"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    ):
        made = root / name
        try:
            made.mkdir()
            (made / limit).write_text(str(LIMIT))
        except OSError:
            if made.exists():
                made.rmdir()
            continue
        break
    else:
        pytest.skip("no control group for memory can be made here")
    yield made
    wait_until(lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


@pytest.mark.catalogue(44)
def test_a_task_that_needs_too_much_memory_fails_alone_and_says_so(group: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    try:
        bench.define(lambda _: os.getppid())
        bench.feed([0])
        bench.finish()
        for pid in marked(f"VMRUN_ENGINE={bench.engine._mark}"):
            (group / "cgroup.procs").write_text(str(pid))

        def work(number: int) -> int:
            return sum(len(bytes([1]) * 1_000_000) for _ in range(number)) if number < 50 else len(b"x" * LIMIT * 2)

        bench.define(work, "work")
        bench.feed([1, 2, 99, 3, 4, 5], "work", first=1)
        bench.finish()
        assert {bench.statuses[task] for task in (1, 2, 4, 5, 6)} == {Status.ok}
        assert bench.statuses[3] is Status.oom
        assert "out of memory" in bench.outcomes[3]["message"]
        assert bench.facts[3]["attempt"] == 2
    finally:
        bench.close()


# --- the limit of a task ---

MB = 10**6


def grow(size: int) -> None:
    """Take `size` bytes more, in pieces, and keep them until the end."""
    kept = []
    for _ in range(0, size, 20 * MB):
        kept.append(bytes([1]) * (20 * MB))
        nap(0.005)
    nap(600)


def grow_at_once(size: int) -> None:
    kept = bytes([1]) * size
    nap(600)
    del kept


def grow_in_a_child(size: int) -> None:
    program = f"import time; kept = bytes([1]) * {size}; time.sleep(600)"
    subprocess.run([sys.executable, "-c", program], check=True)


def grow_in_a_hidden_child(size: int) -> None:
    program = f"import time; kept = bytes([1]) * {size}; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], start_new_session=True):
        nap(600)


@pytest.mark.catalogue(44)
@pytest.mark.parametrize("take", [grow, grow_at_once, grow_in_a_child, grow_in_a_hidden_child])
def test_a_task_that_takes_more_than_its_limit_ends_alone(make_bench: MakeBench, take: Any) -> None:
    bench = make_bench(task_memory=150 * MB)

    def work(number: int) -> int:
        if number == 5:
            take(300 * MB)
        return number

    outcomes = bench.run(work, range(30))
    said = outcomes.pop(5)
    assert said["kind"] == "oom"
    assert "150 MB is the limit (--task-memory)" in said["message"]
    assert float(said["message"].split()[3]) >= 150
    assert bench.facts[5]["attempt"] == 0
    assert outcomes == {number: number for number in range(30) if number != 5}


def test_a_task_within_its_limit_is_left_alone_and_its_forks_do_not_count_twice(make_bench: MakeBench) -> None:
    bench = make_bench(task_memory=250 * MB)

    def work(number: int) -> int:
        kept = bytes([1]) * (120 * MB)
        children = [os.fork() for _ in range(3)]
        if 0 in children:
            nap(1.5)
            os._exit(0)
        for child in children:
            os.waitpid(child, 0)
        return len(kept) + number

    assert bench.run(work, range(2)) == {0: 120 * MB, 1: 120 * MB + 1}


def test_a_task_over_its_limit_gets_the_jobs_retries(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(task_memory=150 * MB, retries=1)

    def work(number: int) -> str:
        if number == 0 or not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch() if number else None
            grow_at_once(400 * MB)
        return "second time"

    bench.run(work, range(2))
    assert bench.outcomes[0]["kind"] == "oom"
    assert bench.outcomes[1] == "second time"
    assert [bench.facts[task]["attempt"] for task in (0, 1)] == [1, 1]


def test_what_a_worker_inherits_is_not_held_against_its_tasks(make_bench: MakeBench) -> None:
    bench = make_bench(task_memory=40 * MB)
    assert bench.run(lambda x: nap(0.3) or x, range(3)) == {0: 0, 1: 1, 2: 2}


# --- the share of the machine ---


@pytest.mark.catalogue(45)
def test_whoever_takes_most_ends_before_the_kernel_has_to_choose(group: Path, tmp_path: Path) -> None:
    """In a group of 300 MB of which tasks may use 200: the one above its half goes, the small one stays."""
    program = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text("0")
from tests.engine.bench import Bench, nap
bench = Bench(Path(sys.argv[2]), memory=200_000_000, memory_spare=80_000_000)
def work(number):
    if number == 3:
        kept = []
        while True:
            kept.append(bytes([1]) * 1_000_000)
            # Beyond what is too much slowly: the kernel is not to end it while whoever looks has no time.
            nap(0.02 if len(kept) < 150 else 0.25)
    nap(0.1)
    return number
try:
    outcomes = bench.run(work, range(12))
    print(outcomes.pop(3)["message"], bench.statuses[3].name, bench.facts[3]["attempt"], sep=chr(10))
    print(outcomes == {number: number for number in range(12) if number != 3})
finally:
    bench.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(group), str(tmp_path / "bench")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    message, kind, attempt, others = done.stdout.splitlines()
    assert kind == "oom"
    assert "the machine was short of memory" in message
    assert "100 MB was its fair share" in message
    assert (attempt, others) == ("0", "True")


# --- the kernel's own limit ---


@pytest.fixture
def grouped(make_bench: MakeBench) -> Bench:
    """An engine with a control group of its own, and a warden that looks away."""
    bench = make_bench(memory=200 * MB, memory_spare=0)
    if not bench.engine._group._folders:
        pytest.skip("no control group can be made here")
    return bench


def test_a_job_has_a_group_of_its_own_with_a_limit(grouped: Bench) -> None:
    grouped.run(lambda _: (os.getpid(), os.getppid()), [0])
    assert set(grouped.outcomes[0]) <= grouped.engine._group.members()
    assert os.getpid() not in grouped.engine._group.members()
    folders = [Path(folder) for folder in grouped.engine._group._folders]
    assert any("vmrun-job-" in str(folder) for folder in folders)
    grouped.close()
    assert not any(folder.exists() for folder in folders)


@pytest.mark.catalogue(44)
def test_a_task_that_is_too_fast_to_be_watched_is_ended_by_the_kernel_and_says_so(grouped: Bench) -> None:
    outcomes = grouped.run(lambda number: len(bytes([1]) * 400 * MB) if number == 3 else number, range(12))
    said = outcomes.pop(3)
    assert said["kind"] == "oom"
    assert "out of memory" in said["message"]
    assert outcomes == {number: number for number in range(12) if number != 3}


def test_who_is_killed_while_another_runs_out_of_memory_was_not_out_of_memory(grouped: Bench, tmp_path: Path) -> None:
    def work(number: int) -> int:
        if number == 0:
            (tmp_path / "large").touch()
            return len(bytes([1]) * 400 * MB)
        if number == 1:
            while not (tmp_path / "large").exists():
                nap(0.001)
            nap(0.5)
            os.kill(os.getpid(), 9)
        return number

    outcomes = grouped.run(work, range(4))
    assert [grouped.statuses[number].name for number in range(4)] == ["oom", "signalled", "ok", "ok"], outcomes


def test_nothing_of_a_group_survives_though_it_hid_from_everybody(grouped: Bench, tmp_path: Path) -> None:
    """The runner is killed first, and its worker with it; the child has neither parents nor the engine's mark."""

    def work(_: int) -> None:
        child = subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
        (tmp_path / "new").write_text(f"{os.getppid()} {child.pid}")
        (tmp_path / "new").rename(tmp_path / "pids")
        nap(600)

    grouped.define(work)
    grouped.feed([0])
    runner, hidden = map(
        int, wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().split())
    )
    os.kill(runner, 9)
    grouped.until(lambda: grouped.died)
    assert not is_alive(hidden)
