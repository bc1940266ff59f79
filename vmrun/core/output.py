"""Captured output in the store: objects made of frames, each a line of JSON and the bytes it announces.

Output is data: it is never unpickled, and it is not signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import codec
from .errors import Corrupt
from .views import OutputChunk

#: Objects larger than this are not written, so that a reader needs no more memory than this.
OBJECT_MAX = 4 * 1024 * 1024


def encode(chunk: OutputChunk) -> bytes:
    """One frame."""
    head: dict[str, Any] = {"task": chunk.task, "attempt": chunk.attempt, "stream": chunk.stream}
    if chunk.reduce:
        head["reduce"] = True
    head["size"] = len(chunk.data)
    return codec.canonical(head) + b"\n" + chunk.data


def decode(data: bytes) -> Iterator[OutputChunk]:
    """The frames of one object. Raises Corrupt."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        head = codec.parse(data[at:end]) if end >= 0 else None
        if not isinstance(head, dict) or not isinstance(head.get("size"), int):
            raise Corrupt("an output object is damaged")
        start = end + 1
        at = start + head["size"]
        if at > len(data):
            raise Corrupt("an output object is cut short")
        yield OutputChunk(
            int(head.get("task", 0)),
            int(head.get("attempt", 1)),
            str(head.get("stream", "stdout")),
            data[start:at],
            reduce=bool(head.get("reduce", False)),
        )
