"""How blocks are laid out: ``magic, u32 header length, header (JSON), columns, payloads``.

A column holds one number per task, in native little-endian arrays. Imported by the runner too, therefore standard
library only.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, TypeAlias

Bytes = bytes | bytearray | memoryview
#: A number per task: an array, or a view of where it came from.
Column: TypeAlias = "array[Any] | memoryview"
_HEADER = struct.Struct("<4sI")
#: A header is small; a larger one is damage, not data.
_HEADER_MAX = 64 * 1024
#: Whether bytes begin with a view is found out much faster than whether the view equals them.
_ZEROS = bytes(64 * 1024)


#: Made once: `json.dumps` makes an encoder for each call that asks for other separators.
_encode = json.JSONEncoder(separators=(",", ":")).encode
#: `json.loads` first finds out which encoding bytes have.
_decode = json.JSONDecoder().decode


class BlockError(ValueError):
    """The bytes are not a block."""


def pack(magic: bytes, head: dict[str, Any]) -> bytes:
    """Magic and header as bytes. Raises BlockError for a header that no reader would take."""
    text = _encode(head).encode()
    if len(text) > _HEADER_MAX:
        raise BlockError(f"a block's header of {len(text)} bytes is too long")
    return _HEADER.pack(magic, len(text)) + text


def unpack(magic: bytes, data: Bytes, *words: str) -> tuple[dict[str, Any], memoryview]:
    """The header, its numbers and its `words` checked, and what follows it. Raises BlockError."""
    view = memoryview(data)
    try:
        found, size = _HEADER.unpack_from(view)
        if found != magic or size > _HEADER_MAX:
            raise BlockError("not a block of this kind")
        head = _decode(str(view[_HEADER.size : _HEADER.size + size], "utf-8"))
        for name in ("first", "count"):
            if type(head[name]) is not int or head[name] < 0:
                raise BlockError(f"a block's {name} is {head[name]!r}")
        for name in ("python", *words):
            if not isinstance(head[name], str):
                raise BlockError(f"a block's {name} is {head[name]!r}")
        return head, view[_HEADER.size + size :]
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BlockError(f"not a block: {error}") from error


def column(code: str, count: int, view: memoryview) -> tuple[array[Any], memoryview]:
    """The first `count` numbers in `view`, and what follows them. Raises BlockError."""
    found: array[Any] = array(code)
    size = _size(found.itemsize, count, view)
    found.frombytes(view[:size])
    if sys.byteorder == "big":
        found.byteswap()
    return found, view[size:]


def column_view(code: str, count: int, view: memoryview) -> tuple[Column, memoryview]:
    """As `column`, but no copy: for columns that are mostly handed on as they are."""
    if sys.byteorder == "big":
        return column(code, count, view)
    size = _size(struct.calcsize(code), count, view)
    return view[:size].cast(code), view[size:]  # type: ignore[call-overload]


def _size(item: int, count: int, view: memoryview) -> int:
    size = count * item
    if size > len(view):
        raise BlockError("a block is cut short")
    return size


def raw(numbers: Column) -> Bytes:
    """A column as bytes: on most machines a view of it, during whose life an array cannot be made longer or shorter."""
    if sys.byteorder == "little":
        return memoryview(numbers).cast("B")
    swapped = array(numbers.typecode if isinstance(numbers, array) else numbers.format, numbers)
    swapped.byteswap()
    return swapped.tobytes()


def zeros(code: str, count: int) -> array[Any]:
    """A column of `count` zeros."""
    return array(code, [0]) * count


def is_zero(data: Bytes | Column) -> bool:
    """Whether there is nothing but zeros."""
    view = memoryview(data)
    if view.nbytes <= len(_ZEROS):
        return _ZEROS.startswith(view)
    view = view.cast("B")
    return all(_ZEROS.startswith(view[at : at + len(_ZEROS)]) for at in range(0, len(view), len(_ZEROS)))


def check_lengths(lengths: array[int], view: memoryview) -> None:
    """Raises BlockError unless payloads of these lengths fill `view`."""
    if sum(lengths) != len(view):
        raise BlockError(f"a block's payloads are {len(view)} bytes, not {sum(lengths)}")


def cut(first: int, lengths: array[int], payload: Bytes) -> Iterator[tuple[int, memoryview]]:
    """(number, bytes) of each payload; the first one is number `first`."""
    view = memoryview(payload)
    start = 0
    for number, end in enumerate(accumulate(lengths), first):
        yield number, view[start:end]
        start = end
