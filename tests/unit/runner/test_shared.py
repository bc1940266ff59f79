"""What one process writes into the shared memory, another reads: finished rows whole, and the running task."""

from __future__ import annotations

import os
import pickle

import pytest

from vmrun.agent.runner.shared import BEGUN, CAPACITY, DONE, MOVES, PAYLOAD_FLUSH, PAYLOAD_LARGE, Shared
from vmrun.core.blocks import ResultBlock, Status


def finish(shared: Shared, payload: bytes, status: int = 0) -> None:
    row = shared.words[DONE]
    shared.memory.write(payload)
    shared.lengths[row] = len(payload)
    shared.started[row], shared.seconds[row], shared.status[row] = 1000.5 + row, 0.25, status
    shared.words[DONE] = row + 1


def test_a_dead_writer_leaves_its_finished_rows_and_the_task_it_was_in() -> None:
    shared = Shared()
    pid = os.fork()
    if pid == 0:
        shared.restart(70, 3)
        finish(shared, b"first")
        finish(shared, b"oops", Status.raised)
        shared.words[BEGUN] = 12345
        shared.memory.write(b"half a resu")
        os._exit(0)
    os.waitpid(pid, 0)
    block = ResultBlock.decode(shared.results().encode())
    assert [(number, status, bytes(payload)) for number, status, payload in block.items()] == [
        (70, Status.ok, b"first"),
        (71, Status.raised, b"oops"),
    ]
    assert list(block.started) == [1000.5, 1001.5]
    assert list(block.seconds) == [0.25, 0.25]
    assert shared.running() == (72, 12345)


def test_restarting_forgets_all_rows() -> None:
    shared = Shared()
    shared.restart(0, 1)
    finish(shared, b"x")
    shared.moves[0], shared.moves[1], shared.moves[2], shared.words[MOVES] = 0, 5, 6, 1
    assert shared.moved() != b""
    shared.restart(1, 1)
    assert (shared.results().count, shared.moved(), shared.running()) == (0, b"", (1, 0))
    finish(shared, b"again")
    assert bytes(shared.results().payload) == b"again"


def test_every_row_can_be_used() -> None:
    shared = Shared()
    shared.restart(0, 1)
    for _ in range(CAPACITY):
        finish(shared, b"ab")
    block = shared.results()
    assert block.count == CAPACITY
    assert len(block.payload) == 2 * CAPACITY


def test_what_is_too_large_for_the_memory_is_a_value_error_of_the_pickler() -> None:
    shared = Shared()
    shared.restart(0, 1)
    shared.memory.write(bytes(PAYLOAD_FLUSH))
    pickle.Pickler(shared.memory, 5).dump(bytes(PAYLOAD_LARGE))
    with pytest.raises(ValueError, match="out of range"):
        pickle.Pickler(shared.memory, 5).dump(bytes(PAYLOAD_LARGE))
