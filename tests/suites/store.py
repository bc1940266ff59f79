"""What every store does: subclass `StoreSuite` beside a fixture `store` that gives a fresh, empty one."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from vmrun.core.clock import SystemClock
from vmrun.core.errors import KeyExists, KeyNotFound, StoreUnavailable, UsageError
from vmrun.core.storage import PIECE, BlobStore, Listed
from vmrun.store.faulty import Fault, FaultsAt, FaultyStore, When
from vmrun.store.probe import PREFIX, probe

#: In the order of a plain comparison, which is neither that of path segments nor that of a dictionary.
ORDERED = ("a-b", "a-b/c", "a.b", "a/b", "a/b-c", "a/b.c", "a/c/d", "a0", "aB", "a_b", "ab", "b")

#: What is no key: nothing of it may reach a path, and not even a get may answer it.
NOT_KEYS = (
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a/..",
    "a b",
    "a\n",
    "a\0b",
    "a\\b",
    "a%2fb",
    "å",
    "a/" * 512 + "ab",
    "n" * 256,
    ".tmp~/x",
)


def keys_of(entries: Iterator[Listed]) -> list[str]:
    return [entry.key for entry in entries]


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """What `work` gives in `count` threads that start together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> object:
        barrier.wait(timeout=120)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class StoreSuite:
    """The contract of `vmrun.core.storage`."""

    # --- create ---

    def test_a_create_writes_and_a_second_one_changes_nothing(self, store: BlobStore) -> None:
        store.create("jobs/1/000000", b"first")
        with pytest.raises(KeyExists):
            store.create("jobs/1/000000", b"second")
        assert store.get("jobs/1/000000") == b"first"

    def test_a_create_fails_over_whatever_wrote_the_object(self, store: BlobStore) -> None:
        store.replace("replaced", b"first")
        store.write("written", [b"fir", b"st"])
        for key in ("replaced", "written"):
            with pytest.raises(KeyExists):
                store.create(key, b"second")
            assert store.get(key) == b"first"

    def test_of_racing_creates_one_succeeds_and_its_bytes_are_there(self, store: BlobStore) -> None:
        for number in range(25):
            key = f"race/{number}/000000"

            def create(writer: int, key: str = key) -> bool:
                try:
                    store.create(key, f"{writer}".encode() * 50)
                except KeyExists:
                    return False
                return True

            won = in_threads(8, create)
            assert won.count(True) == 1
            assert store.get(key) == f"{won.index(True)}".encode() * 50

    def test_after_a_lost_reply_a_get_tells_whose_create_it_was(self, store: BlobStore) -> None:
        shaky = FaultyStore(store, FaultsAt({0: Fault(When.AFTER), 1: Fault(When.BEFORE)}), random.Random(1))
        with pytest.raises(StoreUnavailable):
            shaky.create("journal/0", b"mine")
        with pytest.raises(StoreUnavailable):
            shaky.create("journal/1", b"mine")
        assert store.get("journal/0") == b"mine"
        with pytest.raises(KeyExists):
            store.create("journal/0", b"mine")
        with pytest.raises(KeyNotFound):
            store.get("journal/1")
        store.create("journal/1", b"mine")

    # --- get and read ---

    def test_an_absent_object_is_not_found(self, store: BlobStore) -> None:
        store.create("there/000000", b"")
        for key in ("absent", "there", "there/000001", "there/000000/below"):
            with pytest.raises(KeyNotFound):
                store.get(key)
            with pytest.raises(KeyNotFound):
                store.get(key, 3, 3)
            pieces = store.read(key)
            with pytest.raises(KeyNotFound):
                next(pieces)
            with pytest.raises(KeyNotFound):
                next(store.read(key, 3, 3))

    def test_all_bytes_come_back(self, store: BlobStore) -> None:
        body = bytes(range(256)) * 300
        store.create("bytes", body)
        assert store.get("bytes") == body
        assert type(store.get("bytes")) is bytes
        assert b"".join(store.read("bytes")) == body
        assert all(type(piece) is bytes for piece in store.read("bytes"))

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            (0, 0),
            (0, 1),
            (0, 10),
            (3, 7),
            (9, 10),
            (9, None),
            (0, 99),
            (5, 99),
            (10, None),
            (10, 20),
            (99, 100),
            (4, 4),
        ],
    )
    def test_a_range_gives_what_is_there(self, store: BlobStore, start: int, end: int | None) -> None:
        store.create("digits", b"0123456789")
        store.create("nothing", b"")
        assert store.get("digits", start, end) == b"0123456789"[start:end]
        assert b"".join(store.read("digits", start, end)) == b"0123456789"[start:end]
        assert store.get("nothing", start, end) == b""
        assert b"".join(store.read("nothing", start, end)) == b""

    @pytest.mark.parametrize(("start", "end"), [(-1, None), (-5, -1), (5, 4)])
    def test_what_is_no_range_is_refused(self, store: BlobStore, start: int, end: int | None) -> None:
        store.create("digits", b"0123456789")
        with pytest.raises(UsageError):
            store.get("digits", start, end)
        with pytest.raises(UsageError):
            next(store.read("digits", start, end))

    # --- replace ---

    def test_a_replace_writes_with_and_without_an_object(self, store: BlobStore) -> None:
        for body in (b"long" * 100, b"short", b"", b"longer again"):
            store.replace("heartbeats/1", body)
            assert store.get("heartbeats/1") == body
            assert list(store.list("heartbeats/")) == [Listed("heartbeats/1", len(body))]

    def test_a_reader_never_sees_a_mixture(self, store: BlobStore) -> None:
        bodies = [bytes([65 + number]) * (1 << (12 + number % 3)) for number in range(6)]
        store.replace("beat", bodies[0])
        done = threading.Event()

        def work(number: int) -> set[bytes]:
            if number:
                seen = {store.get("beat")}
                while not done.is_set():
                    seen.add(store.get("beat"))
                return seen
            try:
                for body in bodies * 8:
                    store.replace("beat", body)
            finally:
                done.set()
            return set()

        for seen in in_threads(4, work):
            assert seen <= set(bodies)

    # --- delete ---

    def test_a_delete_of_nothing_is_success(self, store: BlobStore) -> None:
        store.create("a/b/c", b"x")
        for key in ("a/b/c", "a/b/c", "a/b", "a", "never/there", "a/b/c/d"):
            store.delete(key)
        assert list(store.list("")) == []
        store.create("a/b/c", b"again")
        store.delete("a/b")
        assert store.get("a/b/c") == b"again"

    def test_where_deleted_objects_were_any_key_can_be_written(self, store: BlobStore) -> None:
        store.create("a/b/c", b"x")
        store.delete("a/b/c")
        store.create("a/b", b"y")
        store.delete("a/b")
        store.replace("a", b"z")
        assert keys_of(store.list("")) == ["a"]

    def test_creates_beside_deletes_are_not_lost(self, store: BlobStore) -> None:
        def work(number: int) -> None:
            for turn in range(30):
                store.create(f"index/vms/{number}-{turn}", b"")
                assert store.get(f"index/vms/{number}-{turn}") == b""
                store.delete(f"index/vms/{number}-{turn}")

        in_threads(4, work)
        assert list(store.list("")) == []

    # --- list ---

    def test_a_listing_is_in_order_of_keys(self, store: BlobStore) -> None:
        for key in random.Random(2).sample(ORDERED, len(ORDERED)):
            try:
                store.create(key, key.encode())
            except UsageError:
                assert key.startswith(("a-b", "a/b"))  # a store may refuse one object below another
        kept = [key for key in ORDERED if self.holds(store, key)]
        assert len(kept) >= len(ORDERED) - 1
        assert list(store.list("")) == [Listed(key, len(key)) for key in kept]
        for after in (*ORDERED, "a", "a-", "a/", "a/b-", "aa", "c", "0", "A/b", "a/b/c/d/e"):
            assert keys_of(store.list("", after)) == [key for key in kept if key > after], after

    def test_a_prefix_is_any_beginning_of_keys(self, store: BlobStore) -> None:
        kept = [key for key in ORDERED if key != "a-b"]
        for key in kept:
            store.create(key, b"")
        for prefix in ("", "a", "a-", "a-b", "a-b/", "a.", "a/", "a/b", "a/b-", "a/c", "a/c/", "a/c/d", "a0", "b", "c"):
            for after in ("", "a-z", "a/", "a/b", "a/c/d", "ab", "b"):
                expected = [key for key in kept if key.startswith(prefix) and key > after]
                assert keys_of(store.list(prefix, after)) == expected, (prefix, after)
        for prefix in ("a/.", "a/..", ".", "-", "a/-", "z/y/x"):
            assert list(store.list(prefix)) == []

    def test_a_listing_goes_on_past_a_thousand(self, store: BlobStore) -> None:
        keys = [f"many/{number:06d}" for number in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.create(key, b""), keys))
        assert keys_of(store.list("many/")) == keys
        assert keys_of(store.list("many/", keys[49])) == keys[50:]
        assert keys_of(itertools.islice(store.list("many/", keys[-3]), 2)) == keys[-2:]

    def test_a_listing_survives_deletes_under_way(self, store: BlobStore) -> None:
        keys = [f"gone/{number:03d}/x" for number in range(20)]
        for key in keys:
            store.create(key, b"")
        listing = store.list("gone/")
        first = next(listing).key
        for key in keys[1:]:
            store.delete(key)
        assert first == keys[0]
        assert set(keys_of(listing)) <= set(keys[1:])

    # --- large objects ---

    def test_a_large_object_comes_back_in_pieces(self, store: BlobStore) -> None:
        generator = random.Random(3)
        chunks = [generator.randbytes(size) for size in (1, PIECE, 0, 3 * PIECE + 17, 1 << 20, 1 << 20, 5)]
        body = b"".join(chunks)
        store.write("payloads/large", iter(chunks))
        pieces = list(store.read("payloads/large"))
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= 2 * PIECE
        assert len(pieces) >= len(body) // (2 * PIECE)
        assert b"".join(store.read("payloads/large", PIECE - 3, 2 * PIECE + 5)) == body[PIECE - 3 : 2 * PIECE + 5]
        assert store.get("payloads/large", len(body) - 2) == body[-2:]
        assert list(store.list("payloads/")) == [Listed("payloads/large", len(body))]

    def test_writing_again_what_is_there_is_success(self, store: BlobStore) -> None:
        for chunks in ([b"same"], [b"sa", b"me"], [b"", b"same"]):
            store.write("payloads/1", chunks)
        assert store.get("payloads/1") == b"same"
        store.write("payloads/0", [])
        assert store.get("payloads/0") == b""

    def test_a_file_is_written_as_its_bytes(self, store: BlobStore, tmp_path: Path) -> None:
        for size in (0, 5, 3 * PIECE + 17):
            path, body = tmp_path / str(size), random.Random(size).randbytes(size)
            path.write_bytes(body)
            for _ in range(2):  # what is there already is success
                store.write_file(f"files/{size}", str(path))
                assert b"".join(store.read(f"files/{size}")) == body
            path.unlink()
            assert store.get(f"files/{size}") == body
        store.write("files/5", [b"damaged"])
        path = tmp_path / "again"
        path.write_bytes(b"right")
        store.write_file("files/5", str(path))
        assert store.get("files/5") == b"right"

    @pytest.mark.parametrize("pieces_before", [0, 1, 9])
    @pytest.mark.parametrize("error", [RuntimeError("broken"), FileNotFoundError("no input")])
    def test_an_object_whose_pieces_fail_does_not_appear(
        self, store: BlobStore, pieces_before: int, error: Exception
    ) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(pieces_before):
                yield bytes(PIECE)
            raise error

        with pytest.raises(type(error), match=str(error)):
            store.write("payloads/2", chunks())
        assert list(store.list("")) == []
        with pytest.raises(KeyNotFound):
            store.get("payloads/2")

    # --- keys ---

    @pytest.mark.parametrize("key", NOT_KEYS)
    def test_what_is_no_key_is_refused_by_every_verb(self, store: BlobStore, key: str) -> None:
        for request in (
            lambda: store.get(key),
            lambda: store.create(key, b""),
            lambda: store.replace(key, b""),
            lambda: store.delete(key),
            lambda: store.write(key, [b""]),
            lambda: store.write_file(key, os.devnull),
            lambda: next(store.read(key)),
        ):
            with pytest.raises(UsageError):
                request()
        assert list(store.list("")) == []

    @pytest.mark.parametrize("key", [key for key in NOT_KEYS if key not in {"", "a/", ".", "..", "a/.."}])
    def test_what_begins_no_key_is_refused_by_a_listing(self, store: BlobStore, key: str) -> None:
        with pytest.raises(UsageError):
            list(store.list(key))
        with pytest.raises(UsageError):
            list(store.list("", key))

    @pytest.mark.parametrize("key", ["...", ".hidden", "a/..b/c...", "-", "_", "A.-_z/0", "n" * 255, "a/" * 511 + "ab"])
    def test_unusual_keys_are_keys(self, store: BlobStore, key: str) -> None:
        store.create(key, b"x")
        assert store.get(key) == b"x"
        assert list(store.list("")) == [Listed(key, 1)]

    def test_an_object_below_another_is_served_or_refused(self, store: BlobStore) -> None:
        store.create("a", b"above")
        try:
            store.create("a/b", b"below")
        except UsageError:
            with pytest.raises(KeyNotFound):
                store.get("a/b")
            with pytest.raises(UsageError):
                store.replace("a/b", b"below")
        else:
            assert store.get("a/b") == b"below"
        assert store.get("a") == b"above"
        store.create("c/d", b"below")
        try:
            store.create("c", b"above")
        except UsageError:
            with pytest.raises(KeyNotFound):
                store.get("c")
            with pytest.raises(UsageError):
                store.write("c", [b"above"])
        else:
            assert store.get("c") == b"above"
        assert store.get("c/d") == b"below"

    # --- all together ---

    def test_it_is_a_map(self, store: BlobStore) -> None:
        numbers = itertools.count()
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            lambda: StoreMachine(store, f"model/{next(numbers)}/"),
            settings=settings(
                max_examples=15,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )

    def test_it_passes_the_probe_and_is_left_clean(self, store: BlobStore, rng: random.Random) -> None:
        probe(store, SystemClock(), rng)
        assert list(store.list(PREFIX)) == []

    @staticmethod
    def holds(store: BlobStore, key: str) -> bool:
        try:
            store.get(key)
        except KeyNotFound:
            return False
        return True


#: None of them lies below another.
KEYS = st.sampled_from(["a-b", "a.b", "a/b", "a/c/d", "a/c/e", "a/c0", "a0", "b"])
BODIES = st.binary(max_size=40)
PREFIXES = st.sampled_from(["", "a", "a/", "a/c", "a/c/", "a/c/e", "b", "x"])


class StoreMachine(RuleBasedStateMachine):
    """A store against a dictionary."""

    def __init__(self, store: BlobStore, base: str) -> None:
        super().__init__()
        self.store = store
        self.base = base
        self.model: dict[str, bytes] = {}

    @rule(key=KEYS, body=BODIES)
    def create(self, key: str, body: bytes) -> None:
        if key in self.model:
            with pytest.raises(KeyExists):
                self.store.create(self.base + key, body)
        else:
            self.store.create(self.base + key, body)
            self.model[key] = body

    @rule(key=KEYS, body=BODIES)
    def replace(self, key: str, body: bytes) -> None:
        self.store.replace(self.base + key, body)
        self.model[key] = body

    @rule(key=KEYS, body=BODIES, cut=st.integers(0, 40))
    def write(self, key: str, body: bytes, cut: int) -> None:
        self.store.write(self.base + key, [body[:cut], body[cut:]])
        self.model[key] = body

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.store.delete(self.base + key)
        self.model.pop(key, None)

    @rule(key=KEYS, start=st.integers(0, 50), length=st.none() | st.integers(0, 50))
    def get(self, key: str, start: int, length: int | None) -> None:
        end = None if length is None else start + length
        if key in self.model:
            assert self.store.get(self.base + key, start, end) == self.model[key][start:end]
            assert b"".join(self.store.read(self.base + key, start, end)) == self.model[key][start:end]
        else:
            with pytest.raises(KeyNotFound):
                self.store.get(self.base + key, start, end)

    @rule(prefix=PREFIXES, after=PREFIXES | KEYS)
    def list(self, prefix: str, after: str) -> None:
        listed = list(self.store.list(self.base + prefix, self.base + after if after else ""))
        assert listed == [
            Listed(self.base + key, len(self.model[key]))
            for key in sorted(self.model)
            if key.startswith(prefix) and key > after
        ]

    @invariant()
    def nothing_else_is_there(self) -> None:
        assert keys_of(self.store.list(self.base)) == [self.base + key for key in sorted(self.model)]
