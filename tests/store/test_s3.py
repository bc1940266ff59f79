"""The S3 store against moto, over real HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.store.conftest import KEY_ID, Moto
from tests.suites.store import StoreSuite
from vmrun.core.errors import KeyExists, StoreDenied
from vmrun.core.secret import Secret
from vmrun.core.storage import BlobStore, Listed
from vmrun.store.opening import open_store


class TestS3Store(StoreSuite):
    @pytest.fixture
    def store(self, moto: Moto) -> BlobStore:
        return open_store(f"s3://{moto.bucket()}/team/vm-run", moto.options)


def test_a_whole_bucket_is_a_store_too(moto: Moto) -> None:
    suite = StoreSuite()
    suite.test_a_listing_is_in_order_of_keys(open_store(f"s3://{moto.bucket()}", moto.options))
    suite.test_a_prefix_is_any_beginning_of_keys(open_store(f"s3://{moto.bucket()}/", moto.options))


@pytest.fixture
def store(moto: Moto) -> BlobStore:
    return open_store(f"s3://{moto.bucket()}", moto.options)


def test_two_prefixes_of_a_bucket_do_not_see_each_other(moto: Moto) -> None:
    bucket = moto.bucket()
    whole, one, other = (open_store(f"s3://{bucket}{prefix}", moto.options) for prefix in ("", "/one", "/one-b"))
    for store in (one, other):
        store.create("a/b", b"")
    assert list(one.list("")) == [Listed("a/b", 0)] == list(other.list("a"))
    assert [entry.key for entry in whole.list("")] == ["one-b/a/b", "one/a/b"]
    one.delete("a/b")
    assert [entry.key for entry in whole.list("")] == ["one-b/a/b"]


def test_a_listing_asks_for_a_page_only_when_it_gets_there(moto: Moto, store: BlobStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.replace(f"many/{number:06d}", b""), range(1050)))
    del moto.requests[:]
    listing = store.list("many/")
    assert moto.requests == []
    for number, _ in enumerate(listing, 1):
        assert len(moto.requests) == (number + 999) // 1000
    del moto.requests[:]
    assert next(store.list("many/", "many/000999")).key == "many/001000"
    assert next(store.list("many/0010", "many/000000")).key == "many/001000"
    assert next(store.list("many/00100", "")).key == "many/001000"
    assert len(moto.requests) == 3


def test_what_is_no_object_of_ours_is_not_listed(moto: Moto, store: BlobStore) -> None:
    bucket = moto.bucket()
    store = open_store(f"s3://{bucket}", moto.options)
    moto.call("PUT", f"/{bucket}/a%20b", b"x")
    store.create("a", b"")
    assert list(store.list("")) == [Listed("a", 0)]


def test_a_small_write_is_one_request_and_a_create_too(moto: Moto, store: BlobStore) -> None:
    del moto.requests[:]
    store.write("payloads/1", [b"a" * 100_000] * 50)
    assert len(moto.requests) == 1
    store.create("created", b"b" * 8_000_000)
    assert len(moto.requests) == 2
    with pytest.raises(KeyExists):
        store.create("created", b"c" * 8_000_000)
    assert len(moto.requests) == 3


def test_a_broken_upload_leaves_no_parts_behind(moto: Moto) -> None:
    bucket = moto.bucket()

    def chunks() -> Iterator[bytes]:
        yield from [bytes(1 << 20)] * 40
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        open_store(f"s3://{bucket}", moto.options).write("payloads/1", chunks())
    assert b"<Upload>" not in moto.call("GET", f"/{bucket}?uploads")


TRANSFER = """
import json, sys
from vmrun.core.secret import Secret
from vmrun.store.opening import open_store
from vmrun.store.options import StoreOptions

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024

url, data, secrets, megabytes = json.loads(sys.argv[1])
store = open_store(url, StoreOptions.from_data(data, secrets))
store.write("small", [bytes(1 << 20)])
assert sum(map(len, store.read("small"))) == 1 << 20
before = peak()
store.write("large", (bytes([number % 256]) * (1 << 20) for number in range(megabytes)))
written = peak()
size = 0
for piece in store.read("large"):
    assert piece[0] == size // (1 << 20) % 256
    size += len(piece)
assert size == megabytes << 20
print(json.dumps({"write": written - before, "both": peak() - before}))
"""


def test_large_objects_travel_in_bounded_memory(moto: Moto) -> None:
    secrets = moto.options.secrets_to_data()
    arguments = json.dumps([f"s3://{moto.bucket()}", moto.options.to_data(), secrets, 224])
    done = subprocess.run(
        [sys.executable, "-c", TRANSFER, arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    grown = json.loads(done.stdout)
    assert grown["write"] < 128, grown
    assert grown["both"] < 128, grown


def test_a_bucket_that_is_not_there_is_denied_with_a_hint(moto: Moto) -> None:
    store = open_store("s3://no-such-bucket-here", moto.options)
    for request in (
        lambda: store.get("a"),
        lambda: store.create("a", b""),
        lambda: store.replace("a", b""),
        lambda: store.delete("a"),
        lambda: list(store.list("")),
        lambda: store.write("a", [bytes(20 << 20)]),
        lambda: next(store.read("a")),
    ):
        with pytest.raises(StoreDenied, match="NoSuchBucket") as caught:
            request()
        assert "make the bucket" in caught.value.hint


@pytest.fixture
def strict_moto(moto: Moto) -> Iterator[Moto]:
    """The server, checking credentials."""
    moto.call("POST", "/moto-api/reset-auth", b"0")
    yield moto
    moto.call("POST", "/moto-api/reset-auth", b"inf")


def test_wrong_credentials_are_denied_and_not_shown(moto: Moto, strict_moto: Moto) -> None:
    wrong = replace(strict_moto.options, secret_access_key=Secret("wr0ng-Secret"), session_token=Secret("t0ken"))
    store = open_store("s3://vmrun-denied", wrong)
    for request in (lambda: store.get("a"), lambda: store.create("a", b""), lambda: list(store.list(""))):
        with pytest.raises(StoreDenied, match="HTTP 403 InvalidAccessKeyId") as caught:
            request()
        shown = f"{caught.value} {caught.value.hint} {caught.value.__cause__} {wrong!r} {store!r}"
        assert "AWS_ACCESS_KEY_ID" in caught.value.hint
        assert re.search("wr0ng|t0ken", shown) is None


def test_keys_come_from_the_environment_and_the_profile(
    moto: Moto, monkeypatch: pytest.MonkeyPatch, isolated: object
) -> None:
    plain = replace(moto.options, access_key_id="", secret_access_key=Secret(""))
    bucket = moto.bucket()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    open_store(f"s3://{bucket}", plain).create("a", b"")
