"""A store in this process's memory: for tests, simulation and trying things out."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Iterator

from vmrun.core.errors import KeyExists, KeyNotFound
from vmrun.core.storage import PIECE, Listed

from .checks import check_key, check_prefix, check_range
from .files import FilePieces

_PAGE = 1000


class MemoryStore:
    """Objects in a dictionary. Safe to share between threads; gone with the process."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._keys: list[str] = []
        self._lock = threading.Lock()

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_key(key)
        check_range(start, end)
        return self._body(key)[start:end]

    def create(self, key: str, body: bytes) -> None:
        check_key(key)
        with self._lock:
            if key in self._objects:
                raise KeyExists(f"{key} exists")
            self._put(key, bytes(body))

    def replace(self, key: str, body: bytes) -> None:
        check_key(key)
        with self._lock:
            self._put(key, bytes(body))

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        check_prefix(prefix)
        check_prefix(after, "position in a listing")
        return self._listing(prefix, after)

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            if self._objects.pop(key, None) is not None:
                del self._keys[bisect.bisect_left(self._keys, key)]

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        check_key(key)
        body = b"".join(chunks)
        with self._lock:
            self._put(key, body)

    def write_file(self, key: str, path: str) -> None:
        self.write(key, FilePieces(path))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        check_key(key)
        check_range(start, end)
        return self._pieces(key, start, end)

    def _pieces(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        body = self._body(key)
        stop = len(body) if end is None else min(end, len(body))
        for at in range(start, stop, PIECE):
            yield body[at : min(at + PIECE, stop)]

    def _body(self, key: str) -> bytes:
        with self._lock:
            body = self._objects.get(key)
        if body is None:
            raise KeyNotFound(f"there is no object {key}")
        return body

    def _put(self, key: str, body: bytes) -> None:
        if key not in self._objects:
            bisect.insort(self._keys, key)
        self._objects[key] = body

    def _listing(self, prefix: str, after: str) -> Iterator[Listed]:
        page = self._page(prefix, after)
        while page:
            yield from page
            page = self._page(prefix, page[-1].key)

    def _page(self, prefix: str, after: str) -> tuple[Listed, ...]:
        with self._lock:
            first = max(bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, after))
            keys = [key for key in self._keys[first : first + _PAGE] if key.startswith(prefix)]
            return tuple(Listed(key, len(self._objects[key])) for key in keys)
