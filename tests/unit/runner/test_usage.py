"""What processes take, read from the kernel, of processes that are there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.bench import wait_until
from vmrun.agent.runner.processes import children, descendants, has_children
from vmrun.agent.runner.usage import Machine, Probe, anonymous, proportional, threads

MB = 10**6


@contextmanager
def running(program: str) -> Iterator[int]:
    """A Python process that says "ready" once it has done what `program` says, and then waits."""
    source = f"import os, sys, threading, time\n{program}\nprint('ready', flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()


def test_memory_that_a_process_made_its_own() -> None:
    with running("pass") as small, running("kept = bytes([1]) * 100_000_000") as large:
        assert 95 * MB < anonymous(large) - anonymous(small) < 110 * MB
        assert 95 * MB < proportional(large) - proportional(small) < 110 * MB
        probe = Probe(large, base=anonymous(small))
        assert 95 * MB < probe.own() < 110 * MB
        assert probe.exact() == probe.total() == probe.own()
    assert probe.own() == 0
    probe.close()
    probe.close()


def test_what_forks_share_counts_once() -> None:
    program = "kept = bytes([1]) * 100_000_000\nfor _ in range(3):\n    if not os.fork():\n        time.sleep(600)"
    with running(program) as pid:
        probe = Probe(pid, base=0)
        assert probe.crowd() == 4
        assert probe.total() > 400 * MB
        assert 95 * MB < probe.exact() < 150 * MB
        below = list(probe.below)
        probe.close()
        for child in below:
            os.kill(child, signal.SIGKILL)


def test_threads_and_descendants_are_counted() -> None:
    program = """
for _ in range(7):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
def deep():
    if not os.fork():
        os.setsid()
        if not os.fork():
            pass
        time.sleep(600)
thread = threading.Thread(target=deep)
thread.start()
thread.join()
"""
    with running(program) as pid:
        wait_until(lambda: threads(pid) == 8)  # the kernel may know the joined one a little longer
        # Made by a thread that has ended: the kernel gives them to another of the process.
        found = wait_until(lambda: len(below := descendants(pid)) == 2 and below)
        assert set(children(pid)) < set(found)
        assert Probe(pid, 0).crowd() == 10
        for child in found:
            os.kill(child, signal.SIGKILL)
    assert threads(pid) == 0


def test_whether_this_process_has_children() -> None:
    def alone() -> bool:
        return not has_children()

    # In a process of its own: what runs these tests may have some.
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        before = alone()
        other = os.fork()
        if other == 0:
            os._exit(0)
        during = alone()
        os.waitpid(other, 0)
        os.write(tell, repr((before, during, alone())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(told, 100) == b"(True, False, True)"
    os.close(told)
    os.close(tell)


def test_the_machine() -> None:
    machine = Machine()
    assert 0 < machine.available() < 1 << 50
    whole = machine.crowds[0]
    assert whole.name == "the machine"
    assert threading.active_count() < whole.taken() < whole.limit
    assert machine.crowd_max() <= whole.limit


@pytest.mark.parametrize(
    ("own", "service"),
    [
        ("0::/system.slice/job.service/vmrun-agent\n", "system.slice/job.service"),
        ("9:name=systemd:/\n8:pids,cpu:/box/deep\n4:memory:/other\n0::/\n", "pids/box"),
        # As a container sees it whose groups are named from outside, and mounted from its own on.
        ("8:pids:/docker/0123\n", "pids"),
    ],
)
def test_a_control_group_above_bounds_processes_and_threads(tmp_path: Path, own: str, service: str) -> None:
    (tmp_path / "own").write_text(own)
    group = tmp_path / service
    group.mkdir(parents=True)
    (group / "pids.current").write_text("17\n")
    (group / "pids.max").write_text("max\n")
    assert [crowd.name for crowd in Machine(str(tmp_path), str(tmp_path / "own")).crowds] == ["the machine"]
    (group / "pids.max").write_text("400\n")
    machine = Machine(str(tmp_path), str(tmp_path / "own"))
    bound = machine.crowds[1]
    assert len(machine.crowds) == 2
    assert (bound.name, bound.limit, bound.taken(), machine.crowd_max()) == ("its control group", 400, 17, 400)


def test_a_limit_above_that_of_the_machine_bounds_nothing(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "pids.max").write_text(str(1 << 40))
    assert len(Machine(str(tmp_path), str(tmp_path / "own")).crowds) == 1
