"""Where a worker waits for work: on its own core after a while, and what it may use afterwards."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from vmrun.agent.runner import home_core as module
from vmrun.agent.runner.home_core import HomeCore, home_core

CORES = os.sched_getaffinity(0)
CORE = max(CORES)
#: Seconds for a thread to get somewhere, on a busy computer.
PATIENCE = 60.0


class Waiting:
    """One who waits in a thread of its own, which alone is moved."""

    def __init__(self, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moves: list[set[int]] = []
        self.after: set[int] = set()
        self._there = threading.Event()
        monkeypatch.setattr(module, "_move", self._move)
        self._thread = threading.Thread(target=self._wait, args=(fd,), daemon=True)
        self._thread.start()
        assert self._there.wait(PATIENCE), "it does not go to its core"
        assert self._thread.is_alive()

    @property
    def number(self) -> int:
        """Of the thread."""
        assert self._thread.native_id is not None
        return self._thread.native_id

    def end(self) -> None:
        """Wait until it no longer waits."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _wait(self, fd: int) -> None:
        HomeCore(fd, CORE).wait()
        self.after = os.sched_getaffinity(0)

    def _move(self, _: int, cores: set[int]) -> None:
        os.sched_setaffinity(0, cores)
        self.moves.append(os.sched_getaffinity(0))
        self._there.set()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What a worker reads from, and what its runner writes to."""
    both = socket.socketpair()
    yield both
    for end in both:
        end.close()


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The cores that are asked for, none of which is to be had."""
    asked: list[set[int]] = []

    def move(_: int, cores: set[int]) -> None:
        asked.append(cores)
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(module, "_move", move)
    return asked


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
    assert [home_core(number, workers, cores) for number in range(workers)] == own
    assert home_core(-1, workers, cores) == -1


@pytest.mark.parametrize("news", ["work", "the runner is gone"])
def test_who_waits_long_waits_on_its_core_and_may_use_all_of_them_afterwards(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, news: str
) -> None:
    worker, runner = ends
    waiting = Waiting(worker.fileno(), monkeypatch)
    if news == "work":
        runner.send(b"x")
    else:
        runner.close()
    waiting.end()
    assert waiting.moves == [{CORE}, CORES]
    assert waiting.after == CORES


def test_who_was_moved_by_somebody_else_stays_there(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(CORES) < 2:
        pytest.skip("there is only one core")
    other = {min(CORES)}
    waiting = Waiting(ends[0].fileno(), monkeypatch)
    os.sched_setaffinity(waiting.number, other)
    ends[1].send(b"x")
    waiting.end()
    assert waiting.moves == [{CORE}]
    assert waiting.after == other


def test_who_has_chosen_cores_before_is_left_on_them(
    ends: tuple[socket.socket, socket.socket], moves: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = HomeCore(ends[0].fileno(), CORE)
    monkeypatch.setattr(module, "_look", lambda _: {CORE, 1_000})
    one.wait()
    assert moves == []


def test_who_has_work_at_once_stays_where_it_is(
    ends: tuple[socket.socket, socket.socket], moves: list[set[int]]
) -> None:
    ends[1].send(b"x")
    HomeCore(ends[0].fileno(), CORE).wait()
    assert moves == []


def test_without_a_core_of_its_own_it_does_not_wait(
    ends: tuple[socket.socket, socket.socket], moves: list[set[int]]
) -> None:
    HomeCore(ends[0].fileno(), -1).wait()
    assert moves == []


def test_a_core_that_was_taken_away_is_asked_for_once(
    ends: tuple[socket.socket, socket.socket], moves: list[set[int]]
) -> None:
    lost = HomeCore(ends[0].fileno(), CORE)
    for _ in range(2):
        lost.wait()
    assert moves == [{CORE}]
