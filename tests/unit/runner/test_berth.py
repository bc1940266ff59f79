"""Where a worker waits for work: on its own core after a while, and what it may use afterwards."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from vmrun.agent.runner import berth
from vmrun.agent.runner.berth import Berth, own_core

CORES = os.sched_getaffinity(0)
CORE = max(CORES)


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The cores that a berth asks for, one after the other; they are really set."""
    asked: list[set[int]] = []

    def move(pid: int, cores: set[int]) -> None:
        os.sched_setaffinity(pid, cores)
        asked.append(set(cores))

    monkeypatch.setattr(berth, "_move", move)
    return asked


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What a worker reads from, and what its runner writes to."""
    both = socket.socketpair()
    yield both
    for end in both:
        end.close()


@pytest.mark.parametrize(
    ("workers", "cores", "own"),
    [
        (3, {8, 2, 5}, [2, 5, 8]),
        # As many as there are cores, or it is not known which of them are others'.
        (2, {0, 1, 2}, [-1, -1]),
        (3, {0, 1}, [-1, -1, -1]),
    ],
)
def test_there_is_a_core_for_each_worker_or_for_none(workers: int, cores: set[int], own: list[int]) -> None:
    assert [own_core(number, workers, cores) for number in range(workers)] == own
    assert own_core(-1, workers, cores) == -1


def test_who_waits_long_waits_on_its_core_and_may_use_all_of_them_afterwards(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that nobody gives work for a while
    worker, runner = ends
    seen: list[set[int]] = []
    there, done = threading.Event(), threading.Event()

    def move(pid: int, cores: set[int]) -> None:
        os.sched_setaffinity(pid, cores)
        seen.append(os.sched_getaffinity(0))
        there.set()

    monkeypatch.setattr(berth, "_move", move)

    def wait() -> None:
        Berth(worker.fileno(), CORE).wait()
        seen.append(os.sched_getaffinity(0))
        done.set()

    # When it has gone to its core, and work comes
    thread = threading.Thread(target=wait)
    thread.start()
    assert there.wait(60)
    assert not done.is_set()
    runner.send(b"x")
    thread.join(60)

    # Then it was there, and has all of them again
    assert seen == [{CORE}, CORES, CORES]


def test_who_has_work_at_once_stays_where_it_is(
    ends: tuple[socket.socket, socket.socket], moves: list[set[int]]
) -> None:
    worker, runner = ends
    runner.send(b"x")
    Berth(worker.fileno(), CORE).wait()
    assert moves == []


def test_without_a_core_of_its_own_it_does_not_wait(
    ends: tuple[socket.socket, socket.socket], moves: list[set[int]]
) -> None:
    Berth(ends[0].fileno(), -1).wait()
    assert moves == []


def test_a_core_that_was_taken_away_is_forgotten(
    ends: tuple[socket.socket, socket.socket], moves: list[set[int]]
) -> None:
    lost = Berth(ends[0].fileno(), 1_000_000)
    for _ in range(2):
        lost.wait()
    assert moves == []
    assert os.sched_getaffinity(0) == CORES


def test_it_ends_when_the_runner_is_gone(ends: tuple[socket.socket, socket.socket], moves: list[set[int]]) -> None:
    worker, runner = ends
    runner.close()
    Berth(worker.fileno(), CORE).wait()
    assert moves == []
