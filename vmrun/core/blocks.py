"""Blocks: contiguous tasks, or their outcomes, as one run of bytes that no one needs to unpickle to pass on.

A block is ``magic, u32 header length, header (JSON), columns, payloads``. Each column holds one number per task
(native little-endian arrays), each payload is one task's pickle; agent and runner cut and join them blindly, and
only a worker, or the client, opens a payload. The header names the Python ``major.minor`` that pickled, in clear:
unpickling code of another minor version can crash the process, so it is compared before anything is opened.

Imported by the runner too, therefore standard library only.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from typing import Any

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_TASKS, _RESULTS = b"VMT1", b"VMR1"
_HEADER = struct.Struct("<4sI")
#: A header is small; a larger one is damage, not data.
_HEADER_MAX = 64 * 1024
Bytes = bytes | bytearray | memoryview


class BlockError(ValueError):
    """The bytes are not a block."""


class Status(IntEnum):
    """How a task ended. The names are the `kind` that users see."""

    ok = 0
    raised = 1
    exited = 2
    signalled = 3
    timeout = 4
    oom = 5
    unpicklable = 6
    cancelled = 7
    lost = 8


#: By code: a lookup is much faster than a call of the class, and there is one for each task.
_STATUSES = tuple(Status)


@dataclass(slots=True)
class TaskBlock:
    """Arguments of tasks `first` … `first + count - 1`."""

    first: int
    #: Bytes of each task's payload.
    lengths: array[int]
    #: All payloads, one after the other.
    payload: Bytes
    #: `one`: the payload is the single argument; `call`: it is `(args, kwargs)`.
    call: str = "one"
    python: str = PYTHON

    @property
    def count(self) -> int:
        """Number of tasks."""
        return len(self.lengths)

    def encode(self) -> bytes:
        """The block as bytes."""
        head = {"first": self.first, "count": self.count, "call": self.call, "python": self.python}
        return b"".join((_pack(_TASKS, head), _raw(self.lengths), self.payload))

    @classmethod
    def decode(cls, data: Bytes) -> TaskBlock:
        """The block in `data`; payloads stay views into it. Raises BlockError."""
        head, view = _unpack(_TASKS, data, "call")
        lengths, view = _column("Q", head["count"], view)
        _check_lengths(lengths, view)
        return cls(head["first"], lengths, view, head["call"], head["python"])

    def items(self) -> Iterator[tuple[int, Bytes]]:
        """(task number, payload), in order."""
        return _cut(self.first, self.lengths, self.payload)

    def slice(self, first: int, count: int) -> TaskBlock:
        """The block of `count` tasks from task number `first` on, sharing these bytes."""
        low = first - self.first
        if low < 0 or count < 0 or low + count > self.count:
            raise BlockError(f"tasks {first}+{count} are not in {self.first}+{self.count}")
        start = sum(self.lengths[:low])
        lengths = self.lengths[low : low + count]
        payload = memoryview(self.payload)[start : start + sum(lengths)]
        return TaskBlock(first, lengths, payload, self.call, self.python)


@dataclass(slots=True)
class ResultBlock:
    """Outcomes of tasks `first` … `first + count - 1`.

    The payload of an `ok` task is its pickled result; of any other, a JSON text (see `failure`).
    """

    first: int
    status: bytes | bytearray
    lengths: array[int]
    payload: Bytes
    #: Seconds since the epoch, on the VM's clock, when each task started.
    started: array[float]
    #: Wall seconds that each task ran.
    seconds: array[float]
    python: str = PYTHON
    #: What all tasks of the block share: worker, attempt.
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of tasks."""
        return len(self.lengths)

    def encode(self) -> bytes:
        """The block as bytes."""
        head = {"first": self.first, "count": self.count, "python": self.python, "facts": self.facts}
        columns = (_raw(self.lengths), _raw(self.started), _raw(self.seconds), bytes(self.status))
        return b"".join((_pack(_RESULTS, head), *columns, self.payload))

    @classmethod
    def decode(cls, data: Bytes) -> ResultBlock:
        """The block in `data`; payloads stay views into it. Raises BlockError."""
        head, view = _unpack(_RESULTS, data)
        count = head["count"]
        lengths, view = _column("Q", count, view)
        started, view = _column("d", count, view)
        seconds, view = _column("f", count, view)
        status, view = bytes(view[:count]), view[count:]
        if len(status) != count or max(status, default=0) > Status.lost:
            raise BlockError("a block's statuses are damaged")
        _check_lengths(lengths, view)
        facts = head.get("facts", {})
        if not isinstance(facts, dict):
            raise BlockError("a block's facts are not an object")
        return cls(head["first"], status, lengths, view, started, seconds, head["python"], facts)

    def items(self) -> Iterator[tuple[int, Status, Bytes]]:
        """(task number, status, payload), in order."""
        for (number, payload), code in zip(_cut(self.first, self.lengths, self.payload), self.status, strict=True):
            yield number, _STATUSES[code], payload

    def slice(self, first: int, count: int) -> ResultBlock:
        """The outcomes of `count` tasks from task number `first` on, sharing these bytes."""
        low, high = first - self.first, first - self.first + count
        if low < 0 or count < 0 or high > self.count:
            raise BlockError(f"tasks {first}+{count} are not in {self.first}+{self.count}")
        if count == self.count:
            return self
        start = sum(self.lengths[:low])
        lengths = self.lengths[low:high]
        payload = memoryview(self.payload)[start : start + sum(lengths)]
        started, seconds, status = self.started[low:high], self.seconds[low:high], self.status[low:high]
        return ResultBlock(first, status, lengths, payload, started, seconds, self.python, self.facts)

    def failed(self) -> list[int]:
        """Numbers of the tasks that did not end `ok`."""
        if not any(self.status):
            return []
        return [self.first + at for at, code in enumerate(self.status) if code]


def failure(
    kind: Status,
    message: str,
    *,
    type_name: str = "",
    traceback: str = "",
    exception: str = "",
    code: int | None = None,
) -> bytes:
    """The payload of a failed task: JSON, so that reading it never runs code.

    `exception` is the base64 of the pickled exception, `code` the exit code or signal number.
    """
    document = {"kind": kind.name, "type": type_name, "message": message, "traceback": traceback}
    if exception:
        document["exception"] = exception
    if code is not None:
        return json.dumps({**document, "code": code}).encode()
    return json.dumps(document).encode()


def read_failure(payload: Bytes) -> dict[str, Any]:
    """The document that `failure` made. Raises BlockError."""
    try:
        document = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise BlockError("a failed task's payload is not JSON") from error
    if not isinstance(document, dict):
        raise BlockError("a failed task's payload is not an object")
    return document


def lengths_of(payloads: Sequence[Bytes]) -> array[int]:
    """The lengths column of `payloads`."""
    return array("Q", map(len, payloads))


def _pack(magic: bytes, head: dict[str, Any]) -> bytes:
    text = json.dumps(head, separators=(",", ":")).encode()
    if len(text) > _HEADER_MAX:
        raise BlockError(f"a block's header of {len(text)} bytes is too long")
    return _HEADER.pack(magic, len(text)) + text


def _unpack(magic: bytes, data: Bytes, *words: str) -> tuple[dict[str, Any], memoryview]:
    """The header, its numbers and its `words` checked, and what follows it."""
    view = memoryview(data)
    try:
        found, size = _HEADER.unpack_from(view)
        if found != magic or size > _HEADER_MAX:
            raise BlockError("not a block of this kind")
        head = json.loads(bytes(view[_HEADER.size : _HEADER.size + size]))
        for name in ("first", "count"):
            if type(head[name]) is not int or head[name] < 0:
                raise BlockError(f"a block's {name} is {head[name]!r}")
        for name in ("python", *words):
            if not isinstance(head[name], str):
                raise BlockError(f"a block's {name} is {head[name]!r}")
        return head, view[_HEADER.size + size :]
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BlockError(f"not a block: {error}") from error


def _column(code: str, count: int, view: memoryview) -> tuple[array[Any], memoryview]:
    column: array[Any] = array(code)
    size = count * column.itemsize
    if size > len(view):
        raise BlockError("a block is cut short")
    column.frombytes(view[:size])
    if sys.byteorder == "big":
        column.byteswap()
    return column, view[size:]


def _raw(column: array[Any]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


def _check_lengths(lengths: array[int], view: memoryview) -> None:
    if sum(lengths) != len(view):
        raise BlockError(f"a block's payloads are {len(view)} bytes, not {sum(lengths)}")


def _cut(first: int, lengths: array[int], payload: Bytes) -> Iterator[tuple[int, Bytes]]:
    view = memoryview(payload)
    start = 0
    for number, end in enumerate(accumulate(lengths), first):
        yield number, view[start:end]
        start = end
