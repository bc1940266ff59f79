"""A job's inputs on the VM: payloads fetched and checked, source unpacked, arguments read block by block."""

from __future__ import annotations

import pickle
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from vmrun.core import codec, keys
from vmrun.core.blocks import BlockError, TaskBlock, lengths_of
from vmrun.core.errors import Corrupt, KeyNotFound
from vmrun.core.model import Arguments, Payload
from vmrun.core.ranges import Range
from vmrun.core.storage import Store

#: Tasks of a block that are handed to the engine at once, so that what is queued stays bounded.
FEED_TASKS = 65_536


def fetch(store: Store, payload: Payload, what: str) -> bytes:
    """The payload's bytes. Raises Corrupt when they are missing or not the ones that were signed for."""
    try:
        data = store.get(keys.payload(payload.sha256))
    except KeyNotFound as error:
        raise Corrupt(f"the job's {what} is missing from the store", hint="submit the job again") from error
    if len(data) != payload.size or codec.sha256(data) != payload.sha256:
        raise Corrupt(
            f"the job's {what} in the store is not what was submitted; nothing of it was used", hint=_damaged(payload)
        )
    return data


def _damaged(payload: Payload) -> str:
    # As long as it lies there, the next submission of the same takes it for its own.
    return f"an object was changed or damaged: delete {keys.payload(payload.sha256)}, and submit the job again"


@dataclass(frozen=True, slots=True)
class _Piece:
    """One block in the object of arguments."""

    first: int
    count: int
    offset: int
    size: int
    sha256: str


class ArgumentReader:
    """Task blocks of a job whose tasks are fixed, read by range, each checked by its hash."""

    def __init__(self, store: Store, arguments: Arguments) -> None:
        self._store = store
        self._data = arguments.data
        rows = codec.parse(fetch(store, arguments.index, "index of arguments"))
        try:
            self._pieces = [_Piece(*row) for row in rows]
        except TypeError as error:
            raise Corrupt("the index of arguments is damaged") from error
        self._firsts = [piece.first for piece in self._pieces]

    def blocks(self, first: int, end: int) -> Iterator[TaskBlock]:
        """The arguments of tasks `first` … `end - 1`, in order, in blocks of at most FEED_TASKS."""
        at = max(0, bisect_right(self._firsts, first) - 1)
        for piece in self._pieces[at:]:
            low, high = max(first, piece.first), min(end, piece.first + piece.count)
            if piece.first >= end:
                return
            if low < high:
                block = self._read(piece)
                for start in range(low, high, FEED_TASKS):
                    yield block.slice(start, min(FEED_TASKS, high - start))

    def _read(self, piece: _Piece) -> TaskBlock:
        try:
            data = self._store.get(keys.payload(self._data.sha256), piece.offset, piece.offset + piece.size)
        except KeyNotFound as error:
            raise Corrupt("the job's arguments are missing from the store", hint="submit the job again") from error
        if codec.sha256(data) != piece.sha256:
            raise Corrupt(
                f"the arguments of tasks {piece.first}-{piece.first + piece.count - 1} are not what was submitted; "
                "nothing of them was used",
                hint=_damaged(self._data),
            )
        return decode_tasks(data)


def decode_tasks(data: bytes) -> TaskBlock:
    """The task block in `data`. Raises Corrupt."""
    try:
        return TaskBlock.decode(data)
    except BlockError as error:
        raise Corrupt(f"a block of arguments is damaged: {error}") from error


def without_arguments(first: int, end: int) -> Iterator[TaskBlock]:
    """Blocks for tasks that are called without an argument (scripts, commands, a job over nothing)."""
    empty = pickle.dumps(((), {}), protocol=5)
    for start in range(first, end, FEED_TASKS):
        count = min(FEED_TASKS, end - start)
        yield TaskBlock(start, lengths_of([empty]) * count, empty * count, "call")


def clip(blocks: Iterator[TaskBlock], ranges: list[Range]) -> Iterator[TaskBlock]:
    """The parts of `blocks` that lie in `ranges`."""
    for block in blocks:
        for low, high in ranges:
            first, end = max(low, block.first), min(high, block.first + block.count)
            if first < end:
                yield block.slice(first, end - first)
