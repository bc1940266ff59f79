"""A store that fails on purpose: requests that never arrive, lost replies, writes that land late, latency."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from vmrun.core.clock import Clock, Rng
from vmrun.core.errors import KeyExists, StoreError, StoreUnavailable
from vmrun.core.storage import BlobStore, Listed

from .files import FilePieces

T = TypeVar("T")

#: Entries of a listing between two chances to fail, as between two pages of a real one.
_PAGE = 1000


class When(Enum):
    """At which point of a request it fails."""

    #: Not at all (for a fault that is only latency).
    NEVER = "never"
    #: Before the store has seen it: nothing happened.
    BEFORE = "before"
    #: After the store has done it: only the reply is lost.
    AFTER = "after"
    #: The caller is told at once; a write lands some requests later (a read just fails).
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request."""

    when: When
    #: For LATE: the write lands right before this many further requests are served.
    requests_late: int = 3
    #: What the caller gets to see.
    error: type[StoreError] = StoreUnavailable
    #: Latency, whether or not it fails.
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a plan sees it."""

    #: Counted from 0, over all verbs.
    number: int
    #: get, create, replace, list (each page), delete, write, read (each piece).
    verb: str
    key: str


class FaultPlan(Protocol):
    """Decides the fate of each request."""

    def fault(self, request: Request, rng: Rng) -> Fault | None:
        """What goes wrong with `request`; None: nothing."""
        ...


class NoFaults:
    """Nothing goes wrong."""

    def fault(self, request: Request, rng: Rng) -> Fault | None:  # noqa: ARG002
        return None


@dataclass(frozen=True)
class FaultsAt:
    """Given faults at given requests, by number: to walk through every point of a run."""

    faults: Mapping[int, Fault]

    def fault(self, request: Request, rng: Rng) -> Fault | None:  # noqa: ARG002
        return self.faults.get(request.number)


@dataclass(frozen=True)
class RandomFaults:
    """Each request fails with these probabilities and takes up to so long."""

    before: float = 0.0
    after: float = 0.0
    late: float = 0.0
    #: A late write lands within this many further requests.
    requests_late: int = 10
    seconds: float = 0.0

    def fault(self, request: Request, rng: Rng) -> Fault | None:  # noqa: ARG002
        draw = rng.uniform(0, 1)
        requests_late = 1 + int(rng.uniform(0, self.requests_late))
        seconds = rng.uniform(0, self.seconds)
        for when, probability in ((When.BEFORE, self.before), (When.AFTER, self.after), (When.LATE, self.late)):
            if draw < probability:
                return Fault(when, requests_late=requests_late, seconds=seconds)
            draw -= probability
        return Fault(When.NEVER, seconds=seconds) if seconds else None


@dataclass(slots=True)
class _Pending:
    due: int
    land: Callable[[], None]


class FaultyStore:
    """Passes requests on to `inner`, except for what `plan` lets go wrong. Safe to share between threads.

    Latency is spent on `clock`; without one it is skipped.
    """

    def __init__(self, inner: BlobStore, plan: FaultPlan, rng: Rng, *, clock: Clock | None = None) -> None:
        self._inner = inner
        self._plan = plan
        self._rng = rng
        self._clock = clock
        self._lock = threading.RLock()
        self._number = 0
        self._pending: list[_Pending] = []
        #: How many requests were made to fail, by point.
        self.failed: dict[When, int] = dict.fromkeys(When, 0)

    @property
    def requests(self) -> int:
        """Requests seen so far; the number that the next one gets."""
        return self._number

    def deliver(self) -> None:
        """Let every write that is still under way land now."""
        with self._lock:
            pending, self._pending = self._pending, []
            for write in pending:
                write.land()

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._read("get", key, lambda: self._inner.get(key, start, end))

    def create(self, key: str, body: bytes) -> None:
        self._write("create", key, lambda: self._inner.create(key, body))

    def replace(self, key: str, body: bytes) -> None:
        self._write("replace", key, lambda: self._inner.replace(key, body))

    def delete(self, key: str) -> None:
        self._write("delete", key, lambda: self._inner.delete(key))

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        entries = self._inner.list(prefix, after)
        return self._paced("list", prefix, entries, _PAGE)

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        self._write("write", key, lambda: self._inner.write(key, chunks), keep=lambda: self._kept(key, chunks))

    def write_file(self, key: str, path: str) -> None:
        pieces = FilePieces(path)
        self._write("write", key, lambda: self._inner.write_file(key, path), keep=lambda: self._kept(key, pieces))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return self._paced("read", key, self._inner.read(key, start, end), 1)

    def _kept(self, key: str, chunks: Iterable[bytes]) -> Callable[[], None]:
        pieces = tuple(bytes(chunk) for chunk in chunks)
        return lambda: self._inner.write(key, pieces)

    def _paced(self, verb: str, key: str, items: Iterator[T], every: int) -> Iterator[T]:
        fault = self._begin(verb, key)
        self._fail_if(fault, verb, key, (When.BEFORE, When.LATE))
        for number, item in enumerate(items):
            if number and number % every == 0:
                self._fail_if(self._begin(verb, key), verb, key, (When.BEFORE, When.AFTER, When.LATE))
            yield item
        self._fail_if(fault, verb, key, (When.AFTER,))

    def _read(self, verb: str, key: str, request: Callable[[], T]) -> T:
        fault = self._begin(verb, key)
        self._fail_if(fault, verb, key, (When.BEFORE, When.LATE))
        answer = request()
        self._fail_if(fault, verb, key, (When.AFTER,))
        return answer

    def _write(
        self,
        verb: str,
        key: str,
        request: Callable[[], None],
        *,
        keep: Callable[[], Callable[[], None]] | None = None,
    ) -> None:
        fault = self._begin(verb, key)
        self._fail_if(fault, verb, key, (When.BEFORE,))
        if fault is not None and fault.when is When.LATE:
            self._hold(keep() if keep else request, fault)
            self._fail_if(fault, verb, key, (When.LATE,))
        try:
            request()
        except KeyExists:
            self._fail_if(fault, verb, key, (When.AFTER,))
            raise
        self._fail_if(fault, verb, key, (When.AFTER,))

    def _hold(self, request: Callable[[], None], fault: Fault) -> None:
        def land() -> None:
            try:
                request()
            except KeyExists:
                pass  # another create was faster; nobody waits for this answer

        with self._lock:
            self._pending.append(_Pending(self._number + fault.requests_late, land))

    def _begin(self, verb: str, key: str) -> Fault | None:
        with self._lock:
            request = Request(self._number, verb, key)
            self._number += 1
            due = [write for write in self._pending if write.due <= request.number]
            self._pending = [write for write in self._pending if write.due > request.number]
            for write in due:
                write.land()
            fault = self._plan.fault(request, self._rng)
        if fault is not None and fault.seconds and self._clock is not None:
            self._clock.sleep(fault.seconds)
        return fault

    def _fail_if(self, fault: Fault | None, verb: str, key: str, points: tuple[When, ...]) -> None:
        if fault is None or fault.when not in points:
            return
        with self._lock:
            self.failed[fault.when] += 1
        raise fault.error(f"{verb} {key}: made to fail {fault.when.value}")
