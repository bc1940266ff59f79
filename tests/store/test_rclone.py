"""A real server that answers 200 to conditional writes and ignores the condition."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.store.conftest import options
from vmrun.core.clock import SystemClock
from vmrun.core.errors import KeyNotFound, StoreDenied, StoreUnsafe
from vmrun.core.secret import Secret
from vmrun.crypto import new_private_key, public_key
from vmrun.store.deployment import ensure_deployment, read_deployment
from vmrun.store.opening import open_store
from vmrun.store.probe import probe


def test_the_probe_refuses_it_and_nothing_is_set_up(rclone: str, rng: random.Random) -> None:
    store = open_store("s3://bucket", options(rclone))
    with pytest.raises(StoreUnsafe, match="a create-only write fails when the object exists") as caught:
        probe(store, SystemClock(), rng)
    assert "store.url" in caught.value.hint
    with pytest.raises(StoreUnsafe):
        ensure_deployment(store, public_key(new_private_key()), SystemClock(), rng)
    assert read_deployment(store) is None
    assert list(store.list("")) == []


def test_it_checks_credentials_and_the_bucket(rclone: str) -> None:
    good = options(rclone)
    with pytest.raises(KeyNotFound):
        open_store("s3://bucket", good).get("absent")
    for store in (
        open_store("s3://bucket", replace(good, secret_access_key=Secret("wrong"))),
        open_store("s3://bucket", replace(good, access_key_id="WRONGKEY00000001")),
        open_store("s3://no-such-bucket", good),
    ):
        with pytest.raises(StoreDenied):
            store.get("a")
        with pytest.raises(StoreDenied):
            store.create("a", b"")
