"""Bytes that come in pieces, read as from a file.

Imported by the runner too, therefore standard library only.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Protocol

from .columns import Bytes


class Source(Protocol):
    """What is read from the front to the back: a file, or a `PieceReader`."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes; fewer at the end."""
        ...

    def readinto(self, into: memoryview, /) -> int:
        """Fill `into` with the next bytes; how many there were."""
        ...


class PieceReader:
    """Pieces, one after the other, in whatever amounts are asked for. What asking for a piece raises comes through."""

    def __init__(self, pieces: Iterable[Bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes, or as many as there are, without a second copy of them."""
        if size <= 0:
            return b""
        # Of the size that it will have, it gives away its very memory in the end.
        file = io.BytesIO()
        file.seek(size - 1)
        file.write(b"\0")
        with file.getbuffer() as view:
            count = self.readinto(view)
        file.truncate(count)
        return file.getvalue()

    def readinto(self, into: memoryview, /) -> int:
        """Fill `into` with the next bytes; how many there were."""
        at = 0
        while at < len(into) and self._more():
            count = min(len(into) - at, len(self._left))
            into[at : at + count] = self._left[:count]
            self._left = self._left[count:]
            at += count
        return at

    def skip(self) -> int:
        """Pass over all that is left; how many bytes it was."""
        size = 0
        while self._more():
            size += len(self._left)
            self._left = memoryview(b"")
        return size

    def _more(self) -> bool:
        """Whether there is another byte."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._left = memoryview(piece)
        return True
