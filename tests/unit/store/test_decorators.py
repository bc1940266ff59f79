"""What faulty, counting and retrying stores do to a store."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.unit.store.clocks import ManualClock
from vmrun.core.clock import Rng
from vmrun.core.errors import KeyExists, KeyNotFound, StoreDenied, StoreUnavailable
from vmrun.core.storage import PIECE, Listed
from vmrun.store.counting import CountingStore
from vmrun.store.faulty import Fault, FaultsAt, FaultyStore, RandomFaults, Request, When
from vmrun.store.memory import MemoryStore
from vmrun.store.retrying import RetryingStore


def faulty(faults: dict[int, Fault], inner: MemoryStore | None = None) -> FaultyStore:
    return FaultyStore(inner or MemoryStore(), FaultsAt(faults), random.Random(0))


# --- faulty ---


def test_before_means_that_nothing_happened() -> None:
    inner = MemoryStore()
    store = faulty(dict.fromkeys(range(4), Fault(When.BEFORE)), inner)
    for request in (
        lambda: store.create("a", b"1"),
        lambda: store.replace("a", b"1"),
        lambda: store.write("a", [b"1"]),
        lambda: store.delete("a"),
    ):
        with pytest.raises(StoreUnavailable):
            request()
    assert list(inner.list("")) == []
    store.create("a", b"2")
    assert store.requests == 5
    assert store.failed[When.BEFORE] == 4


def test_after_means_that_only_the_reply_is_lost() -> None:
    store = faulty(dict.fromkeys((0, 1, 3, 5, 7), Fault(When.AFTER)))
    with pytest.raises(StoreUnavailable):
        store.create("a", b"1")
    with pytest.raises(StoreUnavailable):  # not KeyExists: that reply is lost as well
        store.create("a", b"2")
    assert store.get("a") == b"1"
    with pytest.raises(StoreUnavailable):
        store.replace("a", b"3")
    assert store.get("a") == b"3"
    with pytest.raises(StoreUnavailable):
        store.get("a")
    assert store.get("a") == b"3"
    with pytest.raises(StoreUnavailable):
        store.delete("a")
    with pytest.raises(KeyNotFound):
        store.get("a")


def test_a_late_write_lands_some_requests_later() -> None:
    inner = MemoryStore()
    store = faulty({0: Fault(When.LATE, requests_late=2), 3: Fault(When.LATE, requests_late=1)}, inner)
    with pytest.raises(StoreUnavailable):
        store.create("a", b"late")
    for _ in range(2):
        with pytest.raises(KeyNotFound):
            store.get("a")
    with pytest.raises(StoreUnavailable):
        store.replace("b", b"late")
    assert store.get("a") == b"late"
    store.replace("b", b"newer")
    assert inner.get("b") == b"newer"


def test_a_late_create_that_comes_too_late_changes_nothing() -> None:
    store = faulty({0: Fault(When.LATE, requests_late=5)})
    with pytest.raises(StoreUnavailable):
        store.create("a", b"late")
    store.create("a", b"first")
    store.deliver()
    assert store.get("a") == b"first"


def test_a_late_write_of_pieces_lands_whole() -> None:
    store = faulty({0: Fault(When.LATE)})
    with pytest.raises(StoreUnavailable):
        store.write("a", iter([b"1", b"2"]))
    store.deliver()
    store.deliver()
    assert store.get("a") == b"12"


def test_listings_and_reads_break_off_between_pages_and_pieces() -> None:
    inner = MemoryStore()
    for number in range(1500):
        inner.create(f"{number:04d}", b"")
    inner.write("large", [bytes(3 * PIECE)])
    store = faulty({1: Fault(When.BEFORE), 4: Fault(When.BEFORE), 5: Fault(When.AFTER)}, inner)
    listed: list[Listed] = []
    with pytest.raises(StoreUnavailable):
        listed.extend(store.list(""))
    entries = faulty({1: Fault(When.BEFORE)}, inner).list("")
    assert [next(entries).key for _ in range(1000)][-1] == "0999"
    with pytest.raises(StoreUnavailable):
        next(entries)
    pieces = store.read("large")  # requests 2, 3, 4
    assert len(next(pieces)) == len(next(pieces)) == PIECE
    with pytest.raises(StoreUnavailable):
        next(pieces)
    with pytest.raises(StoreUnavailable):
        list(store.list("large"))


def test_faults_by_chance_repeat_with_their_seed_and_come_as_often_as_told() -> None:
    def run(seed: int) -> tuple[str, ...]:
        clock = ManualClock()
        plan = RandomFaults(before=0.1, after=0.2, late=0.1, seconds=2.0)
        store = FaultyStore(MemoryStore(), plan, random.Random(seed), clock=clock)
        seen = []
        for number in range(1000):
            try:
                store.replace(f"{number % 7}", b"")
            except StoreUnavailable as error:
                seen.append(str(error).rsplit(" ", 1)[-1])
            else:
                seen.append("ok")
        assert 900 < sum(clock.slept) < 1100
        return tuple(seen)

    assert run(1) == run(1) != run(2)
    counts = Counter(run(1))
    assert 60 < counts["before"] < 140
    assert 150 < counts["after"] < 250
    assert 60 < counts["late"] < 140


def test_a_plan_sees_what_is_asked_and_chooses_the_error() -> None:
    seen: list[Request] = []

    class Plan:
        def fault(self, request: Request, rng: Rng) -> Fault | None:
            seen.append(request)
            return Fault(When.BEFORE, error=StoreDenied) if request.verb == "delete" else None

    store = FaultyStore(MemoryStore(), Plan(), random.Random(0))
    store.create("a", b"")
    with pytest.raises(StoreDenied):
        store.delete("a")
    assert seen == [Request(0, "create", "a"), Request(1, "delete", "a")]


# --- counting ---


def test_requests_are_counted_by_verb_and_bytes_too() -> None:
    store = CountingStore(MemoryStore())
    store.create("a", b"123")
    with pytest.raises(KeyExists):
        store.create("a", b"4")
    store.replace("a", b"12")
    assert store.get("a", 1) == b"2"
    with pytest.raises(KeyNotFound):
        store.get("b")
    store.write("c", [b"1", b"23"])
    assert b"".join(store.read("c")) == b"123"
    store.delete("a")
    assert store.requests == {"create": 2, "replace": 1, "get": 2, "write": 1, "read": 1, "delete": 1}
    assert store.bytes == {"create": 4, "replace": 2, "get": 1, "write": 3, "read": 3}
    assert (store.writes, store.total) == (5, 8)
    assert store.reset().total() == 8
    assert store.total == 0


def test_a_listing_counts_its_pages() -> None:
    inner = MemoryStore()
    for number in range(2500):
        inner.create(f"{number:04d}", b"")
    store = CountingStore(inner)
    listing = store.list("")
    assert store.total == 0
    for _ in range(1000):
        next(listing)
    assert store.requests["list"] == 1
    assert len(list(listing)) == 1500
    assert store.requests["list"] == 3
    assert list(store.list("x")) == []
    assert store.requests["list"] == 4


# --- retrying ---


def retrying(inner: FaultyStore, budget_seconds: float = 60.0) -> tuple[RetryingStore, ManualClock]:
    clock = ManualClock()
    return RetryingStore(inner, clock, random.Random(0), budget_seconds), clock


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_what_may_be_repeated_is_repeated(when: When) -> None:
    inner = faulty(dict.fromkeys((0, 1, 2, 4, 5, 7, 9, 10, 12), Fault(when)))
    store, clock = retrying(inner)
    store.replace("a", b"1")
    assert store.get("a") == b"1"
    store.write("b", [b"2"])
    store.delete("a")
    assert [entry.key for entry in store.list("")] == ["b"]
    assert sum(inner.failed.values()) == len(clock.slept) == 9


def test_a_create_is_passed_on_once() -> None:
    inner = faulty({0: Fault(When.AFTER)})
    store, clock = retrying(inner)
    with pytest.raises(StoreUnavailable):
        store.create("a", b"1")
    assert inner.requests == 1
    assert clock.slept == []
    assert store.get("a") == b"1"


def test_what_was_decided_is_not_repeated() -> None:
    inner = faulty({0: Fault(When.BEFORE, error=StoreDenied)})
    store, _ = retrying(inner)
    with pytest.raises(StoreDenied):
        store.replace("a", b"")
    with pytest.raises(KeyNotFound):
        store.get("a")
    assert inner.requests == 2


def test_patience_has_an_end() -> None:
    inner = faulty(dict.fromkeys(range(10_000), Fault(When.BEFORE)))
    store, clock = retrying(inner, 60.0)
    for request in (lambda: store.get("a"), lambda: list(store.list("")), lambda: next(store.read("a"))):
        begun = clock.time
        with pytest.raises(StoreUnavailable):
            request()
        assert 30 < clock.time - begun <= 60


def test_patience_ends_even_when_no_time_passes() -> None:
    class NoJitter:
        def getrandbits(self, k: int, /) -> int:
            return 0

        def uniform(self, a: float, b: float) -> float:
            return a

    inner = faulty(dict.fromkeys(range(10_000), Fault(When.BEFORE)))
    with pytest.raises(StoreUnavailable):
        RetryingStore(inner, ManualClock(), NoJitter(), 60.0).get("a")
    assert inner.requests < 100


def test_listings_and_reads_go_on_where_they_broke_off() -> None:
    memory = MemoryStore()
    keys = [f"{number:04d}" for number in range(2500)]
    for key in keys:
        memory.create(key, b"")
    body = random.Random(5).randbytes(5 * PIECE + 3)
    memory.write("z", [body])
    inner = faulty(dict.fromkeys((1, 3, 7, 9, 10), Fault(When.BEFORE)), memory)
    store, _ = retrying(inner)
    assert [entry.key for entry in store.list("", "0000")] == [*keys[1:], "z"]
    assert b"".join(store.read("z", 1, 5 * PIECE)) == body[1 : 5 * PIECE]
    assert inner.failed[When.BEFORE] == 5


def test_pieces_that_can_be_walked_once_are_written_once() -> None:
    inner = faulty({0: Fault(When.BEFORE), 1: Fault(When.BEFORE)})
    store, _ = retrying(inner)

    def chunks() -> Iterator[bytes]:
        yield b"1"

    with pytest.raises(StoreUnavailable):
        store.write("a", chunks())
    store.write("a", (b"1", b"2"))
    assert store.get("a") == b"12"
