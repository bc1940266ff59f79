"""What tasks write to stdout and stderr, cut by task.

Each worker writes into two regular files, already unlinked, that the runner reads: user code never waits for a slow
reader, a crashed worker's last words are there, and every byte belongs to the task during which the file grew.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

from . import system
from .frames import Buffer

STDOUT, STDERR = 1, 2
#: task, attempt, stream, bytes that follow
RECORD = struct.Struct("<QIBxxxI")
#: Bytes read, and sent, in one piece.
PIECE = 256 * 1024
#: Read bytes after which the space that they took is given back to the file system.
_HOLE = 4 * 1024 * 1024
#: The part of the cap that is kept for the end of what a task writes.
_TAIL_PART = 4
#: Bytes of an idle worker's file from which it is emptied.
_WORTH_EMPTYING = 1024 * 1024

#: Takes one record: its header and its bytes.
Sink = Callable[[bytes, Buffer], None]


def records(data: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """(task, attempt, stream, bytes) of each record in an output frame's body."""
    start = 0
    while start < len(data):
        task, attempt, stream, size = RECORD.unpack_from(data, start)
        start += RECORD.size
        yield task, attempt, stream, data[start : start + size]
        start += size


def omitted(count: int) -> bytes:
    """The line that stands for `count` bytes which are not there."""
    return f"\n[vmrun: {count} bytes of output omitted]\n".encode()


class Stream:
    """One output file of one worker, as the runner reads it.

    Of each task at most `cap` bytes are passed on: its first ones as they come, and from where that is used up the last
    ones, when the task has ended. What is in between leaves the disk while the task runs.
    """

    def __init__(self, path: str, number: int, cap: int) -> None:
        #: For the worker, opened for appending; the file has no name any more.
        self.fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        # With a byte in it, the file's end is never where /dev/null's is: a task that puts that in place is found out.
        os.write(self.fd, b"\n")
        self._number = number
        self._tail = cap // _TAIL_PART
        self._head = cap - self._tail
        #: Bytes that are passed on, or given up.
        self.position = 1
        #: Up to where the disk has nothing any more: of what was passed on, and of what lies behind the head.
        self._freed = self._punched = 1
        self._owner = (-1, 0)
        #: Bytes of the head that may still come, and bytes after it that were given up.
        self._left = self._head
        self._dropped = 0

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self.fd).st_size

    def pass_on(self, owner: tuple[int, int], end: int, sink: Sink) -> None:
        """Give `sink` what was written up to `end`; it is `owner`'s, a (task, attempt)."""
        self._begin(owner, end)
        self._left -= self._read(min(end, self.position + self._left), sink)
        if self._left == 0 and end - self.position > self._tail:
            self._dropped += end - self._tail - self.position
            self.position = end - self._tail
        self._free()

    def finish(self, owner: tuple[int, int], end: int, sink: Sink) -> None:
        """The owner's task ended at `end`: say how much of its output is missing, and give the last of it."""
        if owner == self._owner:
            if self._dropped:
                self._give(omitted(self._dropped), sink)
            self._read(end, sink)
            self._dropped = 0
        self._free()

    def relieve(self, owner: tuple[int, int], end: int) -> None:
        """Take off the disk what nobody will read of the owner's output, though nothing can be passed on now."""
        self._begin(owner, end)
        low, high = max(self.position + self._left, self._punched), end - self._tail
        if high - low > _HOLE:
            system.give_back(self.fd, low, high)
            self._punched = high

    def _begin(self, owner: tuple[int, int], end: int) -> None:
        if owner != self._owner:
            self._owner, self._left, self._dropped = owner, self._head, 0
        if end < self.position:
            # Someone opened the file by its name below /dev and emptied it.
            self.position = self._freed = self._punched = 0

    def _read(self, end: int, sink: Sink) -> int:
        """Pass on what is there up to `end`; its bytes."""
        start = self.position
        while self.position < end:
            data = os.pread(self.fd, min(PIECE, end - self.position), self.position)
            if not data:
                break
            self._give(data, sink)
            self.position += len(data)
        return self.position - start

    def _free(self) -> None:
        """Take what is dealt with off the disk."""
        if self.position - self._freed > _HOLE:
            system.give_back(self.fd, self._freed, self.position)
            self._freed = self.position

    def last(self, start: int, limit: int) -> bytes:
        """At most `limit` bytes at the end of the file, none from before `start`."""
        end = self.size()
        return os.pread(self.fd, limit, max(start, end - limit, 0))

    def empty(self) -> None:
        """Start over, if the file is large. Only for a worker that has no task."""
        if self.position > _WORTH_EMPTYING and self.size() == self.position:
            os.ftruncate(self.fd, 1)
            self.position = self._freed = self._punched = 1

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)

    def _give(self, data: Buffer, sink: Sink) -> None:
        sink(RECORD.pack(*self._owner, self._number, len(data)), data)


class Outputs:
    """The two files of one worker."""

    def __init__(self, directory: str, serial: int, cap: int) -> None:
        path = os.path.join(directory, f".output-{serial}")
        self.streams = tuple(Stream(f"{path}.{number}", number, cap) for number in (STDOUT, STDERR))
        #: Where the running task's stderr began, as far as known.
        self._began = 1

    def pass_on(self, owner: tuple[int, int], ends: tuple[int, int], sink: Sink) -> None:
        """A task ended when its files ended at `ends`."""
        for stream, end in zip(self.streams, ends, strict=True):
            stream.pass_on(owner, end, sink)
            stream.finish(owner, end, sink)
        self._began = self.streams[1].position

    def follow(self, owner: tuple[int, int], still: Callable[[], bool], sink: Sink | None) -> None:
        """Pass on what the running task has written so far, if it is still running when that is known.

        Without a `sink` nothing is passed on, and the disk is relieved all the same.
        """
        ends = [stream.size() for stream in self.streams]
        if still():
            for stream, end in zip(self.streams, ends, strict=True):
                if end == stream.position:
                    continue
                stream.relieve(owner, end)
                if sink is not None:
                    stream.pass_on(owner, end, sink)

    def finish(self, owner: tuple[int, int], sink: Sink) -> str:
        """The worker died in this task: pass on the rest; the end of its stderr, as text."""
        text = self.streams[1].last(self._began, 4096).decode(errors="replace")
        self.pass_on(owner, (self.streams[0].size(), self.streams[1].size()), sink)
        return text

    def empty(self) -> None:
        """The worker has no task, and all is read."""
        for stream in self.streams:
            stream.empty()

    def close(self) -> None:
        """Let go of the files."""
        for stream in self.streams:
            stream.close()
