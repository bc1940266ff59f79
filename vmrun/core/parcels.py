"""Parcels: one pickled object with its large buffers beside it, as one run of bytes that can be mapped.

A parcel is ``magic, u32 header length, header (JSON)``, the pickle, and then the buffers that pickle protocol 5 keeps
out of it; each part begins on a page. Whoever decodes a parcel gets arrays that lie in its very bytes: nothing is
copied. Whoever reads one from a file or a store gets its buffers one by one, each in memory of its own, so that one
array can be kept without the others. The header names the Python ``major.minor`` that pickled, in clear, as a block's
does.

Imported by the runner too, therefore standard library only.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .blocks import PYTHON, BlockError
from .columns import Bytes
from .pieces import Source

_MAGIC = b"VMP1"
_HEADER = struct.Struct("<4sI")
#: Eight million buffers of the smallest kind, half a terabyte.
_HEADER_MAX = 256 * 1024 * 1024
#: Where parts may begin: at multiples of this.
PAGE = 4096
#: Bytes from which on a buffer lies beside the pickle; a smaller one is cheaper in it.
APART = 64 * 1024
#: Forms of arguments (`TaskBlock.call`), and how they are called where the payload is not a pickle but a parcel.
PARCELS = {"one": "parcel", "call": "parcel-call"}
_SHORT = "a parcel is cut short"


@dataclass(frozen=True, slots=True)
class Parcel:
    """An object that was not opened yet."""

    #: Python `major.minor` that pickled it.
    python: str
    pickle: Bytes
    buffers: Sequence[Bytes]

    @classmethod
    def decode(cls, data: Bytes) -> Parcel:
        """The parcel in `data`, of which all parts stay views. Raises BlockError."""
        layout, pickled, parts = _cut(data)
        buffers = zip(parts, layout.fixed, strict=True)
        return cls(layout.python, pickled, [part.toreadonly() if fixed else part for part, fixed in buffers])

    @classmethod
    def read(cls, source: Source, length: int) -> Parcel:
        """The parcel in the next `length` bytes of `source`; no part of it is copied once more.

        Each buffer becomes what it would be if it were in the pickle: a `bytearray`, or `bytes` if nobody could write
        to it. Raises BlockError, without having asked for more memory than `length`.
        """
        layout = _Layout.of(source.read(min(_HEADER.size, length)), source.read, length)
        parts: list[Bytes] = []
        at = layout.end
        for size, fixed in zip(layout.sizes, (True, *layout.fixed), strict=True):
            source.read(_page(at) - at)
            at = _page(at) + size
            if fixed:
                parts.append(source.read(size))
                count = len(parts[-1])
            else:
                parts.append(bytearray(size))
                count = source.readinto(memoryview(parts[-1]))
            if count < size:
                raise BlockError(_SHORT)
        return cls(layout.python, parts[0], parts[1:])

    def load(self) -> Any:
        """The object; whatever its own code raises comes through. Check `python` and where the bytes are from first."""
        return pickle.loads(self.pickle, buffers=self.buffers)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the header of a parcel says."""

    python: str
    #: Where the header ends.
    end: int
    #: Bytes of the pickle, and of each buffer.
    sizes: list[int]
    #: Of each buffer, whether nobody could write to it.
    fixed: list[bool]

    @classmethod
    def of(cls, start: Bytes, read: Callable[[int], Bytes], length: int) -> _Layout:
        """The layout of a parcel of at most `length` bytes, the text of its header from `read`. Raises BlockError."""
        try:
            magic, size = _HEADER.unpack(start)
            if magic != _MAGIC or size > min(_HEADER_MAX, length):
                raise BlockError("not a parcel")
            head = json.loads(bytes(read(size)))
            python, sizes = str(head["python"]), [int(head["pickle"]), *(int(size) for size, _ in head["buffers"])]
            fixed = [bool(readonly) for _, readonly in head["buffers"]]
        except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BlockError(f"not a parcel: {error}") from error
        at = end = _HEADER.size + size
        for size in sizes:
            at = _page(at) + size
            if size < 0 or at > length:
                raise BlockError(_SHORT)
        return cls(python, end, sizes, fixed)


def load(data: Bytes) -> Any:
    """The object in a parcel, on its very bytes; see `Parcel.load`."""
    return Parcel.decode(data).load()


def apart(data: Bytes) -> Parcel:
    """The parcel in `data`, each of its buffers copied out of that. Raises BlockError."""
    layout, pickled, parts = _cut(data)
    buffers = zip(parts, layout.fixed, strict=True)
    return Parcel(layout.python, pickled, [bytes(part) if fixed else bytearray(part) for part, fixed in buffers])


def _cut(data: Bytes) -> tuple[_Layout, memoryview, list[memoryview]]:
    """What a parcel's header says, its pickle, and its buffers, all as views. Raises BlockError."""
    view = memoryview(data)
    layout = _Layout.of(view[: _HEADER.size], lambda size: view[_HEADER.size : _HEADER.size + size], len(view))
    parts, at = [], layout.end
    for size in layout.sizes:
        at = _page(at)
        parts.append(view[at : at + size])
        at += size
    return layout, parts[0], parts[1:]


def collector(found: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """What a pickler is to do with buffers: it puts the large ones into `found`; true for those to be pickled."""

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not in one piece
            return True
        if view.nbytes < APART:
            return True
        found.append(view)
        return False

    return stays_inside


def lead(pickled: int, buffers: Sequence[memoryview]) -> list[bytes | memoryview]:
    """What makes a parcel of a pickle of `pickled` bytes and its `buffers`: header with padding, and what follows.

    The pickle itself belongs between the first piece and the second.
    """
    document = {"python": PYTHON, "pickle": pickled, "buffers": [(view.nbytes, int(view.readonly)) for view in buffers]}
    text = json.dumps(document, separators=(",", ":")).encode()
    if len(text) > _HEADER_MAX:
        raise BlockError("too many buffers in one object")
    at = _HEADER.size + len(text)
    pieces: list[bytes | memoryview] = [_HEADER.pack(_MAGIC, len(text)) + text + bytes(_page(at) - at)]
    at = pickled
    for view in buffers:
        pieces += [bytes(_page(at) - at), view]
        at = view.nbytes
    return pieces


def _page(offset: int) -> int:
    return -(-offset // PAGE) * PAGE
