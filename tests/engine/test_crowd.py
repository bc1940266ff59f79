"""A task that starts processes or threads without end is ended before the machine has no room for others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bench import PATIENCE, nap, wait_until
from tests.engine.conftest import MakeBench
from tests.engine.crowded import TASKS
from tests.support import benchmarks  # noqa: F401  makes the next one importable
from vmrun.agent.runner.processes import marked

# isort: split
import crowding

LIMIT = 120
#: Processes and threads that there can be in the control group of a test, and half of what is left there for tasks.
ROOM, FAIR = 4_096, 2_048


def start_threads(stop: Path) -> None:
    for _ in range(100_000):
        threading.Thread(target=nap, args=(600,), daemon=True).start()
        assert not stop.exists()


def fork_children(stop: Path) -> None:
    for _ in range(100_000):
        if not os.fork():
            nap(600)
        assert not stop.exists()


def fork_chain(stop: Path) -> None:
    """Each in a session of its own, below the one before."""
    for _ in range(100_000):
        if os.fork():
            nap(600)
        os.setsid()
        assert not stop.exists()


@pytest.mark.catalogue(43)
@pytest.mark.parametrize("start", [start_threads, fork_children, fork_chain])
def test_a_task_that_starts_too_much_ends_alone_and_all_of_it_ends(
    make_bench: MakeBench, tmp_path: Path, start: Any
) -> None:
    """The file that a test would be stopped by is there so that a defect does not cost the machine its life."""
    bench = make_bench(crowd_max=LIMIT)
    stop = tmp_path / "stop"

    def work(number: int) -> int:
        if number == 5:
            start(stop)
        nap(0.01)
        return number

    bench.define(work)
    bench.feed(range(60))
    try:
        bench.finish()
    finally:
        stop.touch()
    outcomes = dict(bench.outcomes)
    said = outcomes.pop(5)
    assert (said["kind"], said["code"]) == ("signalled", signal.SIGKILL)
    assert int(said["message"].split("it had ")[1].split()[0]) > LIMIT // 4
    assert "processes and threads" in said["message"]
    assert bench.facts[5]["attempt"] == 0
    assert outcomes == {number: number for number in range(60) if number != 5}
    wait_until(lambda: len(marked(f"VMRUN_ENGINE={bench.engine._mark}")) <= 3, "all of it to end")


def test_some_hundreds_of_threads_are_no_crime(make_bench: MakeBench) -> None:
    bench = make_bench()

    def work(number: int) -> int:
        go = threading.Event()
        crowd = [threading.Thread(target=go.wait) for _ in range(400)]
        for thread in crowd:
            thread.start()
        nap(0.2)
        go.set()
        for thread in crowd:
            thread.join()
        return number

    assert bench.run(work, range(4)) == {number: number for number in range(4)}


@pytest.mark.catalogue(43)
@pytest.mark.parametrize("memory", [0, 2_000_000_000], ids=["no-group-of-its-own", "group-of-its-own"])
@pytest.mark.parametrize("act", ["threads", "forks"])
def test_in_a_container_a_task_that_takes_all_room_leaves_enough_to_agent_and_neighbours(
    tmp_path: Path, act: str, memory: int
) -> None:
    """The machine could do with more; it is the control group around the agent that has no room for what comes."""
    try:
        with crowding.room_for(ROOM) as group:
            command = [sys.executable, "-m", "tests.engine.crowded", str(group), str(tmp_path), act, str(memory)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=2 * PATIENCE)
            refused = crowding.refusals(group)
    except crowding.NoGroup as reason:
        pytest.skip(f"no control group for processes can be made here: {reason}")
    found = json.loads(done.stdout)
    assert found["died"] == ""
    assert (found["bad"]["kind"], found["bad"]["code"]) == ("signalled", signal.SIGKILL)
    # With memory to hand out, the engine makes the job a group that leaves a quarter to the agent, where it can.
    assert found["bad"]["message"].endswith((f"there can be {ROOM}", f"there can be {ROOM * 3 // 4}"))
    assert "its control group" in found["bad"]["message"]
    assert int(found["bad"]["message"].split("it had ")[1].split()[0]) > FAIR // 4
    assert found["good"] == TASKS - 1
    assert found["started"] > 1
    assert refused == 0
