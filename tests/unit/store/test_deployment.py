"""One record per store: who made it, and that the store passed the probe."""

from __future__ import annotations

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.store.clocks import ManualClock
from vmrun.core.errors import ConfigError, Corrupt, SchemaError, StoreUnavailable, StoreUnsafe
from vmrun.crypto import new_private_key, public_key
from vmrun.store.counting import CountingStore
from vmrun.store.deployment import Deployment, ensure_deployment, read_deployment
from vmrun.store.faulty import Fault, FaultyStore, Request, When
from vmrun.store.memory import MemoryStore

OURS, THEIRS = (public_key(new_private_key()) for _ in range(2))


def test_a_fresh_store_is_probed_and_recorded(rng: random.Random) -> None:
    store, clock = CountingStore(MemoryStore()), ManualClock(1_900_000_000.0)
    assert read_deployment(store) is None
    deployment = ensure_deployment(store, OURS, clock, rng)
    assert re.fullmatch(r"[a-z0-9]{8}", deployment.id)
    assert deployment == Deployment(deployment.id, 1, 1_900_000_000.0, 1_900_000_000.0, OURS.hex())
    assert read_deployment(store) == deployment
    assert [entry.key for entry in store.list("")] == ["deployment.json"]
    assert store.reset()["create"] > 60


def test_a_known_store_costs_one_get(rng: random.Random) -> None:
    memory = MemoryStore()
    first = ensure_deployment(memory, OURS, ManualClock(), rng)
    store = CountingStore(memory)
    assert ensure_deployment(store, OURS, ManualClock(5.0), rng) == first
    assert store.requests == {"get": 1}


def test_ids_differ_and_fit_the_names_of_clouds() -> None:
    ids = {
        ensure_deployment(MemoryStore(), OURS, ManualClock(), random.Random(seed)).id  # the same moment
        for seed in range(8)
    }
    assert len(ids) == 8
    assert all(len(f"vmrun-{one}-{'0' * 26}") <= 63 for one in ids)


def test_another_key_is_turned_away_with_a_hint(rng: random.Random) -> None:
    store = MemoryStore()
    theirs = ensure_deployment(store, THEIRS, ManualClock(), rng)
    with pytest.raises(ConfigError, match=f"belongs to another deployment .{theirs.id}.") as caught:
        ensure_deployment(store, OURS, ManualClock(), rng)
    assert "copy the configuration directory" in caught.value.hint
    assert read_deployment(store) == theirs


def test_racing_clients_agree(rng: random.Random) -> None:
    store = MemoryStore()
    with ThreadPoolExecutor(6) as pool:
        seeds = [random.Random(rng.random()) for _ in range(6)]
        deployments = list(pool.map(lambda seed: ensure_deployment(store, OURS, ManualClock(), seed), seeds))
    assert len(set(deployments)) == 1
    assert [entry.key for entry in store.list("")] == ["deployment.json"]


class LosesTheReply:
    def __init__(self, when: When) -> None:
        self.when = when

    def fault(self, request: Request, rng: object) -> Fault | None:
        return Fault(self.when) if request == Request(request.number, "create", "deployment.json") else None


def test_a_lost_reply_is_resolved_by_reading(rng: random.Random) -> None:
    memory = MemoryStore()
    deployment = ensure_deployment(FaultyStore(memory, LosesTheReply(When.AFTER), rng), OURS, ManualClock(), rng)
    assert read_deployment(memory) == deployment
    memory = MemoryStore()
    with pytest.raises(StoreUnavailable):
        ensure_deployment(FaultyStore(memory, LosesTheReply(When.BEFORE), rng), OURS, ManualClock(), rng)
    assert read_deployment(memory) is None


def test_an_unsafe_store_gets_no_record(rng: random.Random) -> None:
    class IgnoresConditions(MemoryStore):
        def create(self, key: str, body: bytes) -> None:
            self.replace(key, body)

    store = IgnoresConditions()
    with pytest.raises(StoreUnsafe):
        ensure_deployment(store, OURS, ManualClock(), rng)
    assert list(store.list("")) == []


def record(**changes: object) -> bytes:
    data = {"id": "abcd1234", "schema": 1, "created": 1.0, "probed": 1.0, "public_key": OURS.hex()}
    return json.dumps(data | changes).encode()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"not json", Corrupt),
        (b"[]", Corrupt),
        (b"{}", Corrupt),
        (record(id="../../x"), Corrupt),
        (record(id="ABCD1234"), Corrupt),
        (record(id="abcd123"), Corrupt),
        (record(id=5), Corrupt),
        (record(public_key=None), Corrupt),
        (record(schema=2, id={"new": "form"}), SchemaError),
    ],
)
def test_a_record_that_cannot_be_read_is_not_guessed_at(
    body: bytes, error: type[Exception], rng: random.Random
) -> None:
    store = MemoryStore()
    store.create("deployment.json", body)
    for reader in (lambda: read_deployment(store), lambda: ensure_deployment(store, OURS, ManualClock(), rng)):
        with pytest.raises(error):
            reader()
    assert store.get("deployment.json") == body


def test_a_record_with_more_in_it_is_read(rng: random.Random) -> None:
    store = MemoryStore()
    store.create("deployment.json", record(note="from a later version"))
    assert ensure_deployment(store, OURS, ManualClock(), rng).id == "abcd1234"
