"""The probe refuses every way in which a store can break its promises, and says which."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator

import pytest

from tests.unit.store.clocks import ManualClock
from vmrun.core.errors import KeyExists, KeyNotFound, StoreDenied, StoreUnavailable, StoreUnsafe
from vmrun.core.storage import Listed
from vmrun.store.counting import CountingStore
from vmrun.store.faulty import Fault, FaultsAt, FaultyStore, RandomFaults, When
from vmrun.store.memory import MemoryStore
from vmrun.store.probe import PREFIX, WRITERS, probe


class IgnoresConditions(MemoryStore):
    def create(self, key: str, body: bytes) -> None:
        self.replace(key, body)


class SaysExistsAndOverwrites(MemoryStore):
    def create(self, key: str, body: bytes) -> None:
        try:
            super().create(key, body)
        except KeyExists:
            self.replace(key, body)
            raise


class RefusesAllCreates(MemoryStore):
    def create(self, key: str, body: bytes) -> None:
        raise KeyExists(key)


class ChecksThenWrites(MemoryStore):
    """Honours the condition, but not at once: racing creates all find nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.checked = threading.Barrier(WRITERS)

    def create(self, key: str, body: bytes) -> None:
        try:
            self.get(key)
        except KeyNotFound:
            if "race" in key:
                self.checked.wait(60)
            self.replace(key, body)
        else:
            raise KeyExists(key)


class KeepsTheLoser(MemoryStore):
    """One of racing creates is told that it won, and another one's bytes are kept."""

    def create(self, key: str, body: bytes) -> None:
        super().create(key, b"writer 99" if "race" in key else body)


class ReadsFromAReplica(MemoryStore):
    """A get may still see what was there before the latest replace."""

    def __init__(self) -> None:
        super().__init__()
        self.stale: dict[str, bytes] = {}

    def replace(self, key: str, body: bytes) -> None:
        try:
            self.stale[key] = super().get(key)
        except KeyNotFound:
            self.stale.pop(key, None)
        super().replace(key, body)

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self.stale[key][start:end] if key in self.stale else super().get(key, start, end)


class ListsLater(MemoryStore):
    """A listing misses the latest object."""

    latest = ""

    def replace(self, key: str, body: bytes) -> None:
        super().replace(key, body)
        self.latest = key

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        return (entry for entry in super().list(prefix, after) if entry.key != self.latest)


class ListsDeleted(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.ghosts: list[Listed] = []

    def delete(self, key: str) -> None:
        self.ghosts = [*self.ghosts, *super().list(key)]
        super().delete(key)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        yield from super().list(prefix, after)
        yield from (ghost for ghost in self.ghosts if ghost.key.startswith(prefix))


class ListsBySegments(MemoryStore):
    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        yield from sorted(super().list(prefix, after), key=lambda entry: entry.key.split("/"))


class IgnoresAfter(MemoryStore):
    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        return super().list(prefix)


class TakesPrefixesForDirectories(MemoryStore):
    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        whole = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        return (entry for entry in super().list(prefix, after) if (entry.key + "/").startswith(whole))


class IgnoresRanges(MemoryStore):
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return super().get(key)


class ReadsWhole(MemoryStore):
    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return super().read(key)


class LosesTheTail(MemoryStore):
    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        super().write(key, list(chunks)[:1])


class CannotOverwrite(MemoryStore):
    def replace(self, key: str, body: bytes) -> None:
        try:
            super().create(key, body)
        except KeyExists:
            return


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (IgnoresConditions, "a create-only write fails when the object exists"),
        (SaysExistsAndOverwrites, "a create-only write leaves an existing object alone"),
        (RefusesAllCreates, "a create-only write succeeds when there is no object"),
        (ChecksThenWrites, "of racing create-only writes one succeeds"),
        (KeepsTheLoser, "an object holds the bytes of the write that succeeded"),
        (ReadsFromAReplica, "a get sees the write before it"),
        (CannotOverwrite, "a get sees the write before it"),
        (ListsLater, "a listing sees the write before it"),
        (ListsDeleted, "a listing sees the delete before it"),
        (ListsBySegments, "a listing is in order of keys"),
        (IgnoresAfter, "starts after the key asked for"),
        (TakesPrefixesForDirectories, "a listing takes any prefix"),
        (IgnoresRanges, "a get of a range gives just that range"),
        (ReadsWhole, "a read of a range gives just that range"),
        (LosesTheTail, "a get of a range gives just that range"),
    ],
)
def test_a_broken_promise_is_found_and_named(kind: type[MemoryStore], promise: str, rng: random.Random) -> None:
    store = kind()
    with pytest.raises(StoreUnsafe, match=promise) as caught:
        probe(store, ManualClock(), rng)
    assert "store.url" in caught.value.hint
    assert list(MemoryStore.list(store, PREFIX)) == []


def test_it_costs_a_bounded_number_of_requests_and_leaves_nothing(rng: random.Random) -> None:
    store = CountingStore(MemoryStore())
    probe(store, ManualClock(), rng)
    assert store.total < 200
    assert list(store.list("")) == []


def test_it_touches_nothing_but_its_own(rng: random.Random) -> None:
    store = MemoryStore()
    for key in ("probe/other", "deployment.json", "jobs/1"):
        store.create(key, b"")
    probe(store, ManualClock(), rng)
    assert [entry.key for entry in store.list("")] == ["deployment.json", "jobs/1", "probe/other"]


@pytest.mark.parametrize("seed", range(12))
def test_a_sound_store_with_bad_replies_is_never_called_unsafe(seed: int) -> None:
    store = FaultyStore(MemoryStore(), RandomFaults(before=0.01, after=0.02, late=0.01), random.Random(seed))
    try:
        probe(store, ManualClock(), random.Random(seed))
    except StoreUnavailable:
        assert sum(store.failed.values()) > 0


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER, When.LATE])
def test_creates_without_a_reply_are_resolved(when: When, rng: random.Random) -> None:
    class Creates:
        """About every third create gets no reply."""

        def fault(self, request: object, rng: object) -> Fault | None:
            verb, number = request.verb, request.number  # type: ignore[attr-defined]
            return Fault(when, requests_late=1) if verb == "create" and number % 3 == 0 else None

    store = FaultyStore(MemoryStore(), Creates(), rng)
    probe(store, ManualClock(), rng)
    assert store.failed[when] > 10


def test_a_store_that_never_answers_creates_is_unavailable(rng: random.Random) -> None:
    class NoCreates:
        def fault(self, request: object, rng: object) -> Fault | None:
            return Fault(When.BEFORE) if request.verb == "create" else None  # type: ignore[attr-defined]

    with pytest.raises(StoreUnavailable, match="no deciding answer"):
        probe(FaultyStore(MemoryStore(), NoCreates(), rng), ManualClock(), rng)


def test_a_store_that_denies_is_denied(rng: random.Random) -> None:
    store = FaultyStore(MemoryStore(), FaultsAt({0: Fault(When.BEFORE, error=StoreDenied)}), rng)
    with pytest.raises(StoreDenied):
        probe(store, ManualClock(), rng)


def test_it_ends_in_bounded_time(rng: random.Random) -> None:
    clock = ManualClock()
    slow = FaultyStore(MemoryStore(), RandomFaults(seconds=40.0), rng, clock=clock)
    with pytest.raises(StoreUnavailable, match="120 s"):
        probe(slow, clock, rng)
    assert list(slow.list("")) == []
