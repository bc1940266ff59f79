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
from typing import Any

Bytes = bytes | bytearray | memoryview
_HEADER = struct.Struct("<4sI")
#: A header is small; a larger one is damage, not data.
_HEADER_MAX = 64 * 1024


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
    size = count * found.itemsize
    if size > len(view):
        raise BlockError("a block is cut short")
    found.frombytes(view[:size])
    if sys.byteorder == "big":
        found.byteswap()
    return found, view[size:]


def raw(numbers: array[Any]) -> bytes:
    """A column as bytes."""
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def zeros(code: str, count: int) -> array[Any]:
    """A column of `count` zeros."""
    found: array[Any] = array(code)
    found.frombytes(bytes(count * found.itemsize))
    return found


def is_zero(data: bytes | bytearray) -> bool:
    """Whether there is nothing but zeros."""
    return data == bytes(len(data))


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
