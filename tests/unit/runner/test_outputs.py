"""Output files are cut by task; nothing is lost below the cap, and what is beyond it is counted."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmrun.agent.runner.outputs import RECORD, STDERR, STDOUT, Outputs, omitted, records

MEBIBYTE = 1024 * 1024


class Collected:
    """A sink that puts the pieces together again."""

    def __init__(self) -> None:
        self.texts: defaultdict[tuple[int, int, int], bytes] = defaultdict(bytes)
        self.pieces = 0

    def __call__(self, record: bytes, data: bytes | bytearray | memoryview) -> None:
        for task, attempt, stream, text in records(memoryview(record + bytes(data))):
            self.texts[task, attempt, stream] += bytes(text)
            self.pieces += 1


@pytest.fixture
def sink() -> Collected:
    return Collected()


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[Outputs]:
    made = Outputs(str(tmp_path), 1, cap=3 * MEBIBYTE)
    yield made
    made.close()


def write(outputs: Outputs, stream: int, data: bytes) -> None:
    os.write(outputs.streams[stream - 1].fd, data)


def ends(outputs: Outputs) -> tuple[int, int]:
    out, err = (stream.size() for stream in outputs.streams)
    return out, err


def test_files_have_no_name_and_are_never_empty(outputs: Outputs, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []
    assert ends(outputs) == (1, 1)


def test_each_task_gets_its_own_bytes(outputs: Outputs, sink: Collected) -> None:
    write(outputs, STDOUT, b"one\xff\0\n")
    outputs.pass_on((1, 0), ends(outputs), sink)
    write(outputs, STDERR, b"two's trouble")
    write(outputs, STDOUT, b"two")
    outputs.pass_on((2, 3), ends(outputs), sink)
    outputs.pass_on((3, 0), ends(outputs), sink)
    assert sink.texts == {(1, 0, STDOUT): b"one\xff\0\n", (2, 3, STDOUT): b"two", (2, 3, STDERR): b"two's trouble"}


def test_a_running_task_is_followed_and_its_end_completes_it(outputs: Outputs, sink: Collected) -> None:
    write(outputs, STDOUT, b"so far ")
    outputs.follow((7, 0), lambda: True, sink)
    assert sink.texts[7, 0, STDOUT] == b"so far "
    outputs.follow((7, 0), lambda: True, sink)
    write(outputs, STDOUT, b"so good")
    outputs.pass_on((7, 0), ends(outputs), sink)
    assert sink.texts == {(7, 0, STDOUT): b"so far so good"}
    assert sink.pieces == 2


def test_what_may_belong_to_the_next_task_is_left_for_later(outputs: Outputs, sink: Collected) -> None:
    """The worker moved on between the look at the file's size and the look at its task."""
    write(outputs, STDOUT, b"whose?")
    outputs.follow((7, 0), lambda: False, sink)
    assert sink.pieces == 0
    outputs.pass_on((8, 0), ends(outputs), sink)
    assert sink.texts == {(8, 0, STDOUT): b"whose?"}


def test_last_words_are_returned_and_passed_on(outputs: Outputs, sink: Collected) -> None:
    write(outputs, STDERR, b"an earlier task's")
    outputs.pass_on((1, 0), ends(outputs), sink)
    write(outputs, STDERR, b"Segmentation ")
    outputs.follow((2, 0), lambda: True, sink)
    write(outputs, STDERR, b"fault")
    assert outputs.finish((2, 0), sink) == "Segmentation fault"
    assert sink.texts[2, 0, STDERR] == b"Segmentation fault"


HEAD, TAIL = 9 * MEBIBYTE // 4, 3 * MEBIBYTE // 4


@pytest.mark.parametrize("deaf", [False, True], ids=["followed", "read late"])
def test_of_output_beyond_the_cap_both_ends_are_kept(
    outputs: Outputs, sink: Collected, rng: random.Random, deaf: bool
) -> None:
    data = rng.randbytes(8 * MEBIBYTE)
    for part in range(0, len(data), MEBIBYTE):
        write(outputs, STDOUT, data[part : part + MEBIBYTE])
        outputs.follow((1, 0), lambda: True, None if deaf else sink)
    write(outputs, STDERR, b"short")
    outputs.pass_on((1, 0), ends(outputs), sink)
    write(outputs, STDOUT, b"the next has its own cap")
    outputs.pass_on((2, 0), ends(outputs), sink)
    assert sink.texts[1, 0, STDOUT] == data[:HEAD] + omitted(5 * MEBIBYTE) + data[-TAIL:]
    assert sink.texts[1, 0, STDERR] == b"short"
    assert sink.texts[2, 0, STDOUT] == b"the next has its own cap"


def test_another_attempt_starts_with_a_cap_of_its_own(outputs: Outputs, sink: Collected) -> None:
    for attempt in range(2):
        write(outputs, STDOUT, bytes(4 * MEBIBYTE))
        outputs.pass_on((1, attempt), ends(outputs), sink)
    assert sink.texts[1, 0, STDOUT] == sink.texts[1, 1, STDOUT] == bytes(HEAD) + omitted(MEBIBYTE) + bytes(TAIL)


@pytest.mark.parametrize("size", [HEAD - 1, HEAD, HEAD + 1, HEAD + TAIL])
@pytest.mark.parametrize("pieces", [1, 2])
def test_up_to_the_cap_nothing_is_missing(
    outputs: Outputs, sink: Collected, rng: random.Random, size: int, pieces: int
) -> None:
    data = rng.randbytes(size)
    for part in range(pieces):
        write(outputs, STDOUT, data[size * part // pieces : size * (part + 1) // pieces])
        outputs.follow((1, 0), lambda: True, sink)
    outputs.pass_on((1, 0), ends(outputs), sink)
    assert sink.texts[1, 0, STDOUT] == data


@pytest.mark.parametrize("deaf", [False, True], ids=["followed", "nobody listens"])
def test_space_is_given_back_while_a_task_still_writes(
    outputs: Outputs, sink: Collected, rng: random.Random, deaf: bool
) -> None:
    data = rng.randbytes(MEBIBYTE)
    for _ in range(20):
        write(outputs, STDOUT, data)
        outputs.follow((1, 0), lambda: True, None if deaf else sink)
    state = os.fstat(outputs.streams[0].fd)
    assert state.st_size == 20 * MEBIBYTE + 1
    if state.st_blocks * 512 >= state.st_size:
        pytest.skip("this file system cannot make holes in files")
    assert state.st_blocks * 512 < 8 * MEBIBYTE


def test_an_idle_workers_large_file_is_emptied(outputs: Outputs, sink: Collected) -> None:
    write(outputs, STDOUT, bytes(2 * MEBIBYTE))
    outputs.empty()
    assert ends(outputs)[0] == 2 * MEBIBYTE + 1  # not all is read
    outputs.pass_on((1, 0), ends(outputs), sink)
    outputs.empty()
    assert ends(outputs)[0] == 1
    write(outputs, STDOUT, b"fresh")
    outputs.pass_on((2, 0), ends(outputs), sink)
    assert sink.texts[2, 0, STDOUT] == b"fresh"


def test_a_file_that_a_task_emptied_is_read_from_its_start(outputs: Outputs, sink: Collected) -> None:
    """As `echo text > /dev/stdout` does when stdout is a file."""
    write(outputs, STDOUT, b"a first line\n")
    outputs.pass_on((1, 0), ends(outputs), sink)
    os.ftruncate(outputs.streams[0].fd, 0)
    write(outputs, STDOUT, b"text\n")
    outputs.pass_on((2, 0), ends(outputs), sink)
    assert sink.texts[2, 0, STDOUT] == b"text\n"


def test_many_records_in_one_body() -> None:
    data = b"".join(RECORD.pack(task, 1, STDERR, 3) + b"abc" for task in range(5))
    found = [(task, attempt, stream, bytes(text)) for task, attempt, stream, text in records(memoryview(data))]
    assert found == [(task, 1, STDERR, b"abc") for task in range(5)]
