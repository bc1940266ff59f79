"""Finds out whether a store keeps the promises that journals rest on, before anything is entrusted to it.

Several servers that speak S3 answer 200 to a conditional write and ignore the condition, and others check it and
write in two steps; so the probe does not believe a status, it races.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from vmrun.core.clock import Clock, Rng, backoff
from vmrun.core.errors import KeyExists, KeyNotFound, StoreError, StoreUnavailable, StoreUnsafe
from vmrun.core.ids import new_id
from vmrun.core.storage import BlobStore

#: Where the probe's objects lie while it runs.
PREFIX = "probe/"
#: Threads that race for one key, and how often; a store that lets through one race in two is caught by 99.6 %.
WRITERS = 8
ROUNDS = 8
#: Attempts at a request, or a round, that got no deciding answer.
_ATTEMPTS = 5
_BUDGET_SECONDS = 120.0

_HINT = (
    "set store.url (VMRUN_STORE) to a store that passes: a local directory, AWS S3, Google Cloud Storage, Azure Blob "
    "Storage, IBM Cloud Object Storage, or a current version of MinIO or Ceph"
)


def probe(store: BlobStore, clock: Clock, rng: Rng) -> None:
    """Raises StoreUnsafe, saying which promise is broken, unless `store` keeps all of them.

    Writes some small objects under `probe/` and removes them: about 170 requests, and no new one after two minutes.
    Raises StoreUnavailable when the store answers too badly to tell, StoreDenied when it may not be used.
    """
    bench = _Bench(store, clock, rng)
    try:
        for check in (_creates_once, _keeps_what_it_took, _lists_in_order, _cuts_ranges, _races):
            check(bench)
    finally:
        bench.clear()


class _Answer(StrEnum):
    WRITTEN = "written"
    EXISTS = "exists"
    UNDECIDED = "undecided"


class _Bench:
    """The store under test, and what has to be cleaned up."""

    def __init__(self, store: BlobStore, clock: Clock, rng: Rng) -> None:
        self.store = store
        self._clock = clock
        self._rng = rng
        self._base = f"{PREFIX}{new_id(clock, rng)}/"
        self._deadline = clock.monotonic() + _BUDGET_SECONDS
        self._keys: list[str] = []

    def key(self, name: str) -> str:
        """A key of this probe's own; it is deleted at the end."""
        if self._clock.monotonic() > self._deadline:
            raise StoreUnavailable(
                f"probing the store took more than {_BUDGET_SECONDS:.0f} s", hint="check the network and try again"
            )
        key = self._base + name
        self._keys.append(key)
        return key

    def attempt(self, key: str, body: bytes) -> _Answer:
        """One create, without any second thought."""
        try:
            self.store.create(key, body)
        except KeyExists:
            return _Answer.EXISTS
        except StoreUnavailable:
            return _Answer.UNDECIDED
        return _Answer.WRITTEN

    def create(self, key: str, body: bytes) -> _Answer:
        """What became of a create, repeated until it is decided."""
        for attempt in range(_ATTEMPTS):
            answer = self.attempt(key, body)
            if answer is _Answer.WRITTEN or (answer is _Answer.EXISTS and attempt == 0):
                return answer
            # Now or before there was no reply: what is there may be our own.
            found = self.found(key)
            if found is not None:
                return _Answer.WRITTEN if found == body else _Answer.EXISTS
            self.pause(attempt)
        raise _undecided()

    def pause(self, attempt: int) -> None:
        """Let the store recover."""
        self._clock.sleep(backoff(attempt, self._rng))

    def found(self, key: str) -> bytes | None:
        """What a get finds."""
        try:
            return self.store.get(key)
        except KeyNotFound:
            return None

    def clear(self) -> None:
        """Remove what was written, as far as the store lets us."""
        for key in self._keys:
            with contextlib.suppress(StoreError):
                self.store.delete(key)


def _undecided() -> StoreUnavailable:
    return StoreUnavailable(
        "the store gave no deciding answer to a create-only write", hint="it is busy or unreachable; try again"
    )


def _expect(promise: str, expected: object, found: object) -> None:
    if expected != found:
        raise StoreUnsafe(f"the store does not keep a promise that vmrun rests on: {promise}", hint=_HINT)


def _creates_once(bench: _Bench) -> None:
    key = bench.key("created")
    _expect("a create-only write succeeds when there is no object", _Answer.WRITTEN, bench.create(key, b"first"))
    _expect("a create-only write fails when the object exists", _Answer.EXISTS, bench.create(key, b"second"))
    _expect("a create-only write leaves an existing object alone", b"first", bench.found(key))
    key = bench.key("replaced")
    bench.store.replace(key, b"first")
    _expect("a create-only write fails when the object exists", _Answer.EXISTS, bench.create(key, b"second"))


def _keeps_what_it_took(bench: _Bench) -> None:
    key = bench.key("kept")
    _expect("a get of an absent object says so", None, bench.found(key))
    for body in (b"a" * 100, b"b", b""):
        bench.store.replace(key, body)
        _expect("a get sees the write before it", body, bench.found(key))
        listed = [(entry.key, entry.size) for entry in bench.store.list(key)]
        _expect("a listing sees the write before it", [(key, len(body))], listed)
    bench.store.delete(key)
    _expect("a get sees the delete before it", None, bench.found(key))
    _expect("a listing sees the delete before it", [], list(bench.store.list(key)))


def _lists_in_order(bench: _Bench) -> None:
    # Each of - . / 0 A _ a at the place where an order by segments or by locale would differ.
    names = ["a-b", "a.b", "a/b", "a0", "aB", "a_b", "ab", "b"]
    keys = [bench.key(f"ordered/{name}") for name in names]
    for key in reversed(keys):
        bench.store.replace(key, b"")
    prefix = keys[0].removesuffix(names[0])
    for first, after in enumerate(["", *keys]):
        listed = [entry.key for entry in bench.store.list(prefix, after)]
        _expect("a listing is in order of keys and starts after the key asked for", keys[first:], listed)
    _expect("a listing takes any prefix", keys[:-1], [entry.key for entry in bench.store.list(prefix + "a")])


def _cuts_ranges(bench: _Bench) -> None:
    key = bench.key("ranges")
    body = bytes(range(250)) * 4
    bench.store.write(key, (body[:300], body[300:]))
    for start, end in ((0, None), (0, 1), (100, 200), (900, 5000), (999, None), (1000, None), (5000, 6000), (7, 7)):
        _expect("a get of a range gives just that range", body[start:end], bench.store.get(key, start, end))
        _expect("a read of a range gives just that range", body[start:end], b"".join(bench.store.read(key, start, end)))


def _races(bench: _Bench) -> None:
    undecided = number = 0
    with ThreadPoolExecutor(WRITERS, "vmrun-probe") as pool:
        while number < ROUNDS:
            if _race(bench, pool, bench.key(f"race-{number}-{undecided}")):
                number += 1
                continue
            undecided += 1
            if undecided == _ATTEMPTS:
                raise _undecided()
            bench.pause(undecided)


def _race(bench: _Bench, pool: ThreadPoolExecutor, key: str) -> bool:
    """Let all writers create one object at once; whether one of them did."""
    bodies = [f"writer {writer} of {key}".encode() * 10 for writer in range(WRITERS)]
    start = threading.Barrier(WRITERS)

    def run(body: bytes) -> _Answer:
        start.wait()
        return bench.attempt(key, body)

    answers = list(pool.map(run, bodies))
    found = bench.found(key)
    winners = [body for body, answer in zip(bodies, answers, strict=True) if answer is _Answer.WRITTEN]
    if len(winners) > 1:
        _expect("of racing create-only writes one succeeds", 1, len(winners))
    if winners:
        _expect("an object holds the bytes of the write that succeeded", winners[0], found)
    elif found is None:
        _expect(
            "a create-only write fails only when the object exists", expected=False, found=_Answer.EXISTS in answers
        )
    else:
        _expect("an object holds the bytes of one write", expected=True, found=found in bodies)
    return found is not None
