"""Frames arrive whole, in order and unchanged, however the socket cuts them; foreign bytes are noticed."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from vmrun.agent.runner import frames
from vmrun.agent.runner.frames import FrameError, FrameReader, FrameWriter, Kind


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_frames_of_all_sizes_pass_two_sockets_that_never_wait(
    pair: tuple[socket.socket, socket.socket], rng: random.Random
) -> None:
    ours, theirs = pair
    ours.setblocking(False)
    theirs.setblocking(False)
    sizes = [0, 1, 100, 65_535, 65_536, 300_000, 3_000_000, 7, 0, 0, 5_000_000, 1]
    bodies = [rng.randbytes(size) for size in sizes]
    writer, reader = FrameWriter(ours), FrameReader(theirs)
    for at, body in enumerate(bodies):
        cut = rng.randint(0, len(body))
        writer.push(Kind.results, {"at": at, "text": "ä\n" * at}, body[:cut], memoryview(body)[cut:])
    received = []
    while writer.pending or len(received) < len(bodies):
        writer.flush()
        received += reader.read(rng.randint(1, 200_000))
    assert [frame.head["at"] for frame in received] == list(range(len(bodies)))
    assert [bytes(frame.body) for frame in received] == bodies
    assert received[3].head["text"] == "ä\n" * 3
    assert not reader.closed


@pytest.mark.parametrize("step", [1, 7])
def test_a_frame_may_come_byte_by_byte(pair: tuple[socket.socket, socket.socket], step: int) -> None:
    ours, theirs = pair
    whole, other = socket.socketpair()
    with whole, other:
        frames.send(whole, Kind.large, {"task": 3}, b"body")
        data = other.recv(1000)
    theirs.setblocking(False)
    reader = FrameReader(theirs)
    received = []
    for at in range(0, len(data), step):
        ours.sendall(data[at : at + step])
        received += reader.read(1000)
    assert [(frame.kind, frame.head, bytes(frame.body)) for frame in received] == [(Kind.large, {"task": 3}, b"body")]


def test_blocking_ends_understand_each_other(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    large = bytes(range(256)) * 20_000
    sender = threading.Thread(target=frames.send, args=(ours, Kind.chunk, {"chunk": 1}, b"abc", large))
    sender.start()
    frame = frames.receive(theirs)
    sender.join()
    assert (frame.kind, frame.head, bytes(frame.body)) == (Kind.chunk, {"chunk": 1}, b"abc" + large)


def test_the_end_of_the_other_side_is_no_error(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    frames.send(ours, Kind.stop, {})
    ours.sendall(b"VMF")
    ours.close()
    theirs.setblocking(False)
    reader = FrameReader(theirs)
    assert [frame.kind for frame in reader.read(10_000)] == [Kind.stop]
    assert reader.closed
    assert list(reader.read(10_000)) == []


def test_a_blocking_reader_is_told_of_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(b"VM")
    ours.close()
    with pytest.raises(EOFError):
        frames.receive(theirs)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"hello, this is user code" * 3, id="text"),
        pytest.param(b"\0" * 64, id="zeros"),
        pytest.param(frames._LEAD.pack(b"VMF", 250, 2, 0) + b"{}", id="unknown kind"),
        pytest.param(frames._LEAD.pack(b"VMF", 5, 1 << 30, 0), id="giant head"),
        pytest.param(frames._LEAD.pack(b"VMF", 5, 2, 1 << 60), id="giant body"),
        pytest.param(frames._LEAD.pack(b"VMF", 5, 2, 0) + b"[]", id="head is a list"),
        pytest.param(frames._LEAD.pack(b"VMF", 5, 2, 0) + b"{'", id="head is not JSON"),
    ],
)
def test_foreign_bytes_are_refused(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    ours, theirs = pair
    ours.sendall(data)
    theirs.setblocking(False)
    with pytest.raises(FrameError):
        list(FrameReader(theirs).read(10_000))


def test_a_head_has_a_limit(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(FrameError):
        frames.send(pair[0], Kind.define, {"name": "x" * frames.HEAD_MAX})


def test_a_writer_without_a_reader_keeps_what_it_has(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    ours.setblocking(False)
    writer = FrameWriter(ours)
    writer.push(Kind.output, {}, bytes(10_000_000))
    writer.flush()
    before = writer.pending
    writer.flush()
    assert 0 < writer.pending == before < 10_000_100


def test_a_writer_says_when_nobody_is_there(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    writer = FrameWriter(ours)
    writer.push(Kind.output, {}, b"x")
    with pytest.raises(OSError):
        writer.flush()


@pytest.mark.parametrize("size", [64 * 1024, 1_000_001, 3_000_000])
def test_what_is_large_lies_as_well_as_in_a_file(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, theirs = pair
    for extra in range(3):
        head, start, bulk = {"text": "x" * (7 * extra)}, b"s" * (11 * extra + 1), random.Random(size).randbytes(size)
        sender = threading.Thread(target=frames.send, args=(ours, Kind.chunk, head, start, bulk))
        sender.start()
        received = frames.receive(theirs)
        sender.join()
        assert received.head == head
        assert received.body == start + bulk
        whole = np.frombuffer(received.body.obj, "u1")
        large = np.frombuffer(received.body[len(start) :], "u1")
        assert (large.ctypes.data - whole.ctypes.data) % 64 == 0
        if size > 1024 * 1024:
            assert large.ctypes.data % 64 == 0


def test_what_came_before_foreign_bytes_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.setblocking(False)
    frames.send(ours, Kind.stop, {"at": 1})
    ours.sendall(b"junk" * 64)
    frames.send(ours, Kind.stop, {"at": 2})
    read = FrameReader(theirs).read(100_000)
    assert next(read).head == {"at": 1}
    with pytest.raises(FrameError):
        next(read)
