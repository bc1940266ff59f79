"""Frames: what agent, runner and workers say to each other, over stream sockets.

A frame is ``magic, u8 kind, u32 head length, u64 body length, head (JSON object), body (bytes)``. A body is written
straight from the views it is made of and read straight into one buffer, so that a large argument is never joined or
copied on its way. The magic is there because user code shares its process with one end of a socket: bytes that it
scribbles there are noticed, never obeyed.
"""

from __future__ import annotations

import json
import mmap
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Any

Buffer = bytes | bytearray | memoryview
_LEAD = struct.Struct("<3sBIQ")
_MAGIC = b"VMF"
#: Bytes of a head at most: heads are small, a definition's or a result's bulk travels in the body.
HEAD_MAX = 1024 * 1024
#: Bytes of a body at most; one argument is one body, and no VM has more memory than this.
BODY_MAX = 1 << 45
#: Bytes of a body at most on the way back, where all that is large goes into files. Whoever reads it need not trust
#: the sender, which shares its user, if not its process, with the user's code.
REPLY_MAX = 256 * 1024 * 1024
#: Bytes that one read asks for while it collects small frames.
_SCRATCH = 64 * 1024
#: Bytes from which on the last part of a body begins at a multiple of `_ALIGN` bytes, counted from the head: workers
#: make arrays of it where it lies.
_BULK, _ALIGN = 64 * 1024, 64
#: Bytes from which on a frame is read into memory of its own, which begins with a page.
_PAGES = 1024 * 1024
#: Buffers that one `sendmsg` takes (IOV_MAX is 1024 on Linux).
_VECTOR = 256

#: Made once: `json.dumps` makes an encoder for each call that asks for other separators.
_encode = json.JSONEncoder(separators=(",", ":")).encode
#: `json.loads` first finds out which encoding bytes have.
_decode = json.JSONDecoder().decode


class Kind(IntEnum):
    """What a frame is about; the sender is in the comment."""

    # the agent
    configure = 1
    define = 2
    tasks = 3
    cancel = 4
    stop = 5
    # the runner, to a worker (which also gets `define`)
    chunk = 16
    # a worker
    hello = 32
    results = 33
    large = 34
    files = 35
    # the runner, to the agent (which also gets `results`, `large` and `files`)
    output = 48
    load = 49
    fatal = 50


class FrameError(ValueError):
    """The bytes are not a frame; nothing that follows on that socket can be trusted."""


@dataclass(slots=True)
class Frame:
    """One message."""

    kind: Kind
    head: dict[str, Any]
    body: memoryview


def _start(kind: Kind, head: dict[str, Any], parts: Sequence[Buffer]) -> bytes:
    text = _encode(head).encode()
    size = sum(len(part) for part in parts)
    if parts and len(parts[-1]) >= _BULK:
        # Spaces, so that what is large is as well placed in the buffer that it is read into as in a file.
        text += b" " * (-(len(text) + size - len(parts[-1])) % _ALIGN)
    if len(text) > HEAD_MAX or size > BODY_MAX:
        raise FrameError(f"a frame of {len(text)} + {size} bytes is too large")
    return _LEAD.pack(_MAGIC, kind, len(text), size) + text


def _lead(data: Buffer, limit: int = BODY_MAX) -> tuple[Kind, int, int]:
    """Kind, head length, body length. Raises FrameError."""
    magic, code, head_size, body_size = _LEAD.unpack(data)
    if magic != _MAGIC or head_size > HEAD_MAX or body_size > limit:
        raise FrameError("foreign bytes on a protocol socket")
    try:
        return Kind(code), head_size, body_size
    except ValueError as error:
        raise FrameError(f"unknown kind of frame: {code}") from error


def _frame(kind: Kind, data: memoryview, head_size: int) -> Frame:
    try:
        head = _decode(str(data[:head_size], "utf-8"))
    except ValueError as error:
        raise FrameError("a frame's head is not JSON") from error
    if not isinstance(head, dict):
        raise FrameError("a frame's head is not an object")
    return Frame(kind, head, data[head_size:])


class FrameReader:
    """Collects frames from a non-blocking socket; `limit` is for the bytes of a body."""

    def __init__(self, channel: socket.socket, limit: int = BODY_MAX) -> None:
        self._channel = channel
        self._limit = limit
        self._scratch = memoryview(bytearray(_SCRATCH))
        self._begun = bytearray()
        self._kind = Kind.hello
        self._head_size = 0
        #: Head and body of the frame that is being read, and how much of it is there.
        self._data: memoryview | None = None
        self._filled = 0
        #: The other side has closed its end, or is gone.
        self.closed = False

    def read(self, budget: int) -> Iterator[Frame]:
        """The frames that are complete after reading at most about `budget` bytes, without waiting.

        Raises FrameError, behind the frames that came before what is none.
        """
        frames: list[Frame] = []
        while budget > 0 and not self.closed:
            direct = self._data is not None and len(self._data) - self._filled >= _SCRATCH
            try:
                if direct:
                    assert self._data is not None
                    size = self._channel.recv_into(self._data[self._filled :])
                else:
                    size = self._channel.recv_into(self._scratch)
            except BlockingIOError:
                break
            except OSError:
                size = 0
            if size == 0:
                self.closed = True
            try:
                if direct:
                    self._filled += size
                    self._finish(frames)
                else:
                    self._take(self._scratch[:size], frames)
            except FrameError:
                yield from frames
                raise
            yield from frames
            frames.clear()
            budget -= size

    def _take(self, view: memoryview, frames: list[Frame]) -> None:
        while view:
            if self._data is None:
                missing = _LEAD.size - len(self._begun)
                self._begun += view[:missing]
                view = view[missing:]
                if len(self._begun) < _LEAD.size:
                    return
                self._kind, self._head_size, body_size = _lead(self._begun, self._limit)
                self._begun.clear()
                self._data, self._filled = memoryview(bytearray(self._head_size + body_size)), 0
            size = min(len(view), len(self._data) - self._filled)
            self._data[self._filled : self._filled + size] = view[:size]
            self._filled += size
            view = view[size:]
            self._finish(frames)

    def _finish(self, frames: list[Frame]) -> None:
        if self._data is not None and self._filled == len(self._data):
            frames.append(_frame(self._kind, self._data, self._head_size))
            self._data = None


class FrameWriter:
    """Sends frames over a non-blocking socket, as fast as the other side takes them."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._queue: deque[memoryview] = deque()
        #: Bytes that are not sent yet.
        self.pending = 0

    def push(self, kind: Kind, head: dict[str, Any], *parts: Buffer) -> None:
        """Queue a frame; `parts` are kept, not copied, until they are sent."""
        for part in (_start(kind, head, parts), *parts):
            if len(part):
                self._queue.append(memoryview(part))
                self.pending += len(part)

    def flush(self) -> None:
        """Send what can be sent without waiting. Raises OSError when the other side is gone."""
        while self._queue:
            try:
                sent = self._channel.sendmsg(list(islice(self._queue, _VECTOR)))
            except BlockingIOError:
                return
            self.pending -= sent
            while sent:
                view = self._queue[0]
                if sent < len(view):
                    self._queue[0] = view[sent:]
                    break
                sent -= len(view)
                self._queue.popleft()


def send(channel: socket.socket, kind: Kind, head: dict[str, Any], *parts: Buffer) -> None:
    """Send a frame over a blocking socket. Raises OSError."""
    writer = FrameWriter(channel)
    writer.push(kind, head, *parts)
    # In as few calls as there can be: each wakes the other side, which would look at a frame that is not all there.
    writer.flush()


def receive(channel: socket.socket) -> Frame:
    """Wait for a frame on a blocking socket. Raises EOFError when the other side is gone, OSError, FrameError."""
    kind, head_size, body_size = _lead(_exactly(channel, _LEAD.size))
    return _frame(kind, _exactly(channel, head_size + body_size), head_size)


def _exactly(channel: socket.socket, size: int) -> memoryview:
    view = memoryview(bytearray(size) if size < _PAGES else mmap.mmap(-1, size))
    filled = 0
    while filled < size:
        got = channel.recv_into(view[filled:])
        if got == 0:
            raise EOFError("the other side has closed the socket")
        filled += got
    return view
