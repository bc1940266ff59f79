"""Patience: repeats what may be repeated when the store gives no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vmrun.core.clock import Clock, Rng, backoff
from vmrun.core.errors import StoreUnavailable
from vmrun.core.storage import BlobStore, Listed

T = TypeVar("T")

#: Most attempts at one request, however short the waits turn out.
_ATTEMPTS = 50


class RetryingStore:
    """Repeats gets, listings, replaces, deletes, reads and writes after StoreUnavailable, with jittered back-off.

    One call waits at most `budget_seconds` in all between its attempts; then the last StoreUnavailable is raised.
    A listing or a read goes on where it broke off, and its budget starts anew with each entry or piece.
    A create is passed on once: its repetition would take its own success for another's. A write is repeated
    only when its chunks can be walked again (a sequence, not an iterator).
    """

    def __init__(self, inner: BlobStore, clock: Clock, rng: Rng, budget_seconds: float) -> None:
        self._inner = inner
        self._clock = clock
        self._rng = rng
        self._budget = budget_seconds

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._repeat(lambda: self._inner.get(key, start, end))

    def create(self, key: str, body: bytes) -> None:
        self._inner.create(key, body)

    def replace(self, key: str, body: bytes) -> None:
        self._repeat(lambda: self._inner.replace(key, body))

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        patience = self._patience()
        while True:
            try:
                for entry in self._inner.list(prefix, after):
                    after = entry.key
                    patience = self._patience()
                    yield entry
                return
            except StoreUnavailable as error:
                patience.wait(error)

    def delete(self, key: str) -> None:
        self._repeat(lambda: self._inner.delete(key))

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        if isinstance(chunks, Iterator):
            self._inner.write(key, chunks)
        else:
            self._repeat(lambda: self._inner.write(key, chunks))

    def write_file(self, key: str, path: str) -> None:
        self._repeat(lambda: self._inner.write_file(key, path))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        patience = self._patience()
        while True:
            try:
                for piece in self._inner.read(key, start, end):
                    start += len(piece)
                    patience = self._patience()
                    yield piece
                return
            except StoreUnavailable as error:
                patience.wait(error)

    def _repeat(self, request: Callable[[], T]) -> T:
        patience = self._patience()
        while True:
            try:
                return request()
            except StoreUnavailable as error:
                patience.wait(error)

    def _patience(self) -> _Patience:
        return _Patience(self._clock, self._rng, self._budget)


class _Patience:
    """What is left of one request's budget."""

    def __init__(self, clock: Clock, rng: Rng, budget_seconds: float) -> None:
        self._clock = clock
        self._rng = rng
        self._deadline = clock.monotonic() + budget_seconds
        self._attempts = 1

    def wait(self, error: StoreUnavailable) -> None:
        """Let the back-off pass; raises `error` when it would outlast the budget."""
        pause = backoff(self._attempts, self._rng)
        if self._attempts >= _ATTEMPTS or self._clock.monotonic() + pause > self._deadline:
            raise error
        self._attempts += 1
        self._clock.sleep(pause)
