"""Parcels: one pickled object with its large buffers beside it, as one run of bytes that can be mapped.

A parcel is ``magic, u32 header length, header (JSON)``, the pickle, and then the buffers that pickle protocol 5 keeps
out of it; each part begins on a page. Whoever opens a parcel gets arrays that lie in its very bytes: nothing is
copied. The header names the Python ``major.minor`` that pickled, in clear, as a block's does.

Imported by the runner too, therefore standard library only.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .blocks import PYTHON, BlockError

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


@dataclass(frozen=True, slots=True)
class Parcel:
    """An object that was not opened yet."""

    #: Python `major.minor` that pickled it.
    python: str
    pickle: memoryview
    buffers: list[memoryview]

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Parcel:
        """The parcel in `data`, of which all parts stay views. Raises BlockError."""
        view = memoryview(data)
        try:
            magic, size = _HEADER.unpack_from(view)
            if magic != _MAGIC or size > _HEADER_MAX:
                raise BlockError("not a parcel")
            head = json.loads(bytes(view[_HEADER.size : _HEADER.size + size]))
            python, sizes = str(head["python"]), [int(head["pickle"]), *(int(size) for size, _ in head["buffers"])]
            fixed = [bool(readonly) for _, readonly in head["buffers"]]
        except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BlockError(f"not a parcel: {error}") from error
        parts, at = [], _HEADER.size + size
        for size in sizes:
            at = _page(at)
            if size < 0 or at + size > len(view):
                raise BlockError("a parcel is cut short")
            parts.append(view[at : at + size])
            at += size
        buffers = [part.toreadonly() if readonly else part for part, readonly in zip(parts[1:], fixed, strict=True)]
        return cls(python, parts[0], buffers)

    def load(self) -> Any:
        """The object; whatever its own code raises comes through. Check `python` and where the bytes are from first."""
        return pickle.loads(self.pickle, buffers=self.buffers)


def load(data: bytes | bytearray | memoryview) -> Any:
    """The object in a parcel; see `Parcel.load`."""
    return Parcel.decode(data).load()


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
