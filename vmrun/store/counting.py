"""A store that counts what is asked of it: request budgets in tests, request rates in benchmarks."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

from vmrun.core.storage import BlobStore, Listed

#: Objects in one page of a listing; each page is one request.
_PAGE = 1000
_WRITES = ("create", "replace", "write", "delete")


class CountingStore:
    """Passes everything on to `inner` and counts requests and bytes by verb; failed requests count too.

    A listing counts once per page that is really fetched, a read or write of a large object once.
    """

    def __init__(self, inner: BlobStore) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        #: Requests by verb: get, create, replace, list, delete, write, read.
        self.requests: Counter[str] = Counter()
        #: Bytes of bodies by verb.
        self.bytes: Counter[str] = Counter()

    @property
    def writes(self) -> int:
        """Requests that change the store."""
        with self._lock:
            return sum(self.requests[verb] for verb in _WRITES)

    @property
    def total(self) -> int:
        """All requests."""
        with self._lock:
            return self.requests.total()

    def reset(self) -> Counter[str]:
        """Start from nought; gives the requests counted so far."""
        with self._lock:
            counted = Counter(self.requests)
            self.requests.clear()
            self.bytes.clear()
            return counted

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._count("get")
        body = self._inner.get(key, start, end)
        self._add("get", len(body))
        return body

    def create(self, key: str, body: bytes) -> None:
        self._count("create")
        self._add("create", len(body))
        self._inner.create(key, body)

    def replace(self, key: str, body: bytes) -> None:
        self._count("replace")
        self._add("replace", len(body))
        self._inner.replace(key, body)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        return self._listing(self._inner.list(prefix, after))

    def delete(self, key: str) -> None:
        self._count("delete")
        self._inner.delete(key)

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        self._count("write")
        self._inner.write(key, self._measured("write", chunks))

    def write_file(self, key: str, path: str) -> None:
        self._count("write")
        self._add("write", os.stat(path).st_size)
        self._inner.write_file(key, path)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return self._reading(self._inner.read(key, start, end))

    def _listing(self, entries: Iterator[Listed]) -> Iterator[Listed]:
        self._count("list")
        for number, entry in enumerate(entries):
            if number and number % _PAGE == 0:
                self._count("list")
            yield entry

    def _reading(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        self._count("read")
        yield from self._measured("read", pieces)

    def _measured(self, verb: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._add(verb, len(chunk))
            yield chunk

    def _count(self, verb: str) -> None:
        with self._lock:
            self.requests[verb] += 1

    def _add(self, verb: str, size: int) -> None:
        with self._lock:
            self.bytes[verb] += size
