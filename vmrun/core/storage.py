"""What vmrun asks of object storage: five verbs for small objects, two for large ones.

Every implementation passes the same behaviour suite (`tests/suites/store.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Listed:
    """One object in a listing."""

    key: str
    #: Bytes.
    size: int


class Store(Protocol):
    """A flat map from keys to bytes. Reads see every write that was acknowledged before them, listings included.

    Keys are non-empty segments of `[A-Za-z0-9._-]` joined by `/`. All methods raise StoreUnavailable when there
    was no answer or one that decides nothing (after a bounded wait), StoreDenied when trying again is pointless.
    """

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """The object's bytes from `start` up to, not including, `end` (None: to its end).

        A range past the end gives what is there, possibly nothing. Raises KeyNotFound.
        """
        ...

    def create(self, key: str, body: bytes) -> None:
        """Write the object if, and only if, there is none under `key`: of any number of racing calls one succeeds.

        Raises KeyExists. Never retried inside: a resent create would take its own success for another's
        (StoreUnavailable leaves it open whether the object was written; the caller reads back).
        """
        ...

    def replace(self, key: str, body: bytes) -> None:
        """Write the object, whether or not there is one. A reader sees the old bytes or the new, never a mixture."""
        ...

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Objects whose key starts with `prefix` and sorts after `after`, in ascending order of key.

        Lazy: asks for a further page (of at most 1,000) only when the caller gets there.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; that there is none is success."""
        ...


class BlobStore(Store, Protocol):
    """A store that also moves large objects in bounded memory."""

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        """Write an object of any size from its pieces; it appears whole or not at all.

        For content-addressed keys only: that an object is there already is success, whoever wrote it.
        """
        ...

    def write_file(self, key: str, path: str) -> None:
        """Write an object from a file, as `write` does. Nobody may write to the file from then on.

        The store may take the file's very bytes for its own; the name that they had is the caller's to remove.
        """
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The object's bytes in pieces of at most a few MiB. Raises KeyNotFound at the first piece."""
        ...


#: Most bytes that a large-object transfer holds in memory at once.
PIECE = 4 * 1024 * 1024
