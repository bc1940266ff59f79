"""From URLs and options to stores, and no further than that: nothing is sent."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from vmrun.core.errors import ConfigError, StoreDenied
from vmrun.core.secret import Secret
from vmrun.store.directory import DirectoryStore
from vmrun.store.opening import open_store
from vmrun.store.options import StoreOptions

# --- URLs ---


def test_a_directory_is_named_by_path_or_url(tmp_path: Path, isolated: Path) -> None:
    for url in (f"{tmp_path}/a b", f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a%20b/"):
        store = open_store(url)
        assert isinstance(store, DirectoryStore)
        assert store.root == f"{tmp_path}/a b"
    store = open_store("~/store")
    assert isinstance(store, DirectoryStore)
    assert store.root == f"{isolated}/store"


def test_a_store_in_memory_is_one_per_name() -> None:
    open_store("memory://opening-one").create("a", b"")
    assert open_store("memory://opening-one").get("a") == b""
    assert list(open_store("memory://opening-two").list("")) == []


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3://bucket/", "s3://my.bucket-1/team/vm_run", "gs://bucket/x", "az://c0n/x"]
)
def test_remote_stores_open_without_a_request(url: str) -> None:
    options = StoreOptions(access_key_id="account0", secret_access_key=Secret("c2VjcmV0"))
    assert type(open_store(url, options)).__name__ == "ObjectStore"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store",
        "./store",
        "ftp://host/path",
        "http://bucket",
        "s3:bucket",
        "s3://",
        "s3:///prefix",
        "s3://b",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/a b",
        "s3://bucket/a?versions",
        "s3://bucket#x",
        "s3://[bucket",
        "s3://key:secret@bucket/x",
        "file://host/path",
        "file:path",
        "file:///a%00b",
        "memory://a/b",
    ],
)
def test_what_is_no_store_is_refused_with_what_is_one(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert caught.value.exit_code == 2
    assert "s3://" in caught.value.hint or "store.access_key_id" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (StoreOptions(endpoint="minio.example"), "https://HOST"),
        (StoreOptions(access_key_id="only-the-id"), "both or neither"),
        (StoreOptions(secret_access_key=Secret("only-the-secret")), "both or neither"),
        (StoreOptions(ca_file="/nowhere/ca.pem"), "PEM"),
        (StoreOptions(profile="nobody"), "profiles found: none"),
    ],
)
def test_options_that_cannot_be_right_are_refused_at_once(options: StoreOptions, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("s3://bucket", options).get("a")
    assert told in caught.value.hint


def test_an_unusable_directory_is_denied(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreDenied):
        open_store(f"{tmp_path}/file")


def test_a_directory_does_not_load_the_client_of_remote_stores(tmp_path: Path) -> None:
    program = (
        "import sys; from vmrun.store.opening import open_store; import vmrun.store.deployment, vmrun.crypto;"
        f"open_store({str(tmp_path)!r}).create('a', b'');"
        "print([name for name in ('obstore', 'cryptography', 'boto3', 'configparser') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"


# --- options ---

FULL = StoreOptions(
    endpoint="https://minio.example:9000",
    region="eu-west-1",
    profile="team",
    access_key_id="KEY",
    secret_access_key=Secret("s3cret"),
    session_token=Secret("t0ken"),
    ca_file="/etc/ca.pem",
    path_style=False,
    anonymous=True,
    fsync=False,
)


def test_options_survive_a_journey_as_json_with_their_secrets_apart() -> None:
    assert {field.name for field in fields(FULL) if getattr(FULL, field.name) == field.default} == set()
    data, secrets = json.loads(json.dumps([FULL.to_data(), FULL.secrets_to_data()]))
    assert "s3cret" not in json.dumps(data)
    assert "t0ken" not in json.dumps(data)
    assert secrets == {"secret_access_key": "s3cret", "session_token": "t0ken"}
    assert StoreOptions.from_data(data, secrets) == FULL
    assert StoreOptions.from_data(data) != FULL
    assert StoreOptions().to_data() == StoreOptions().secrets_to_data() == {}
    assert StoreOptions.from_data({}) == StoreOptions()


@pytest.mark.parametrize(
    ("data", "secrets"),
    [
        ({"endpiont": "x"}, {}),
        ({"fsync": "yes"}, {}),
        ({"region": None}, {}),
        ({"secret_access_key": "s3cret"}, {}),
        ({}, {"region": "x"}),
        ({}, {"password": "x"}),
    ],
)
def test_what_does_not_belong_among_the_options_is_refused(data: dict[str, object], secrets: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="store option") as caught:
        StoreOptions.from_data(data, secrets)
    assert "s3cret" not in str(caught.value)


def test_secrets_show_nowhere() -> None:
    secret = Secret("s3cret")
    for shown in (repr(FULL), str(FULL), f"{secret} {secret!r} {secret:>8} {secret!s}", f"{[secret]}"):
        assert "s3cret" not in shown
        assert "***" in shown
    assert secret.reveal() == "s3cret"
    assert secret == Secret("s3cret") != Secret("other")
    assert secret != "s3cret"
    assert bool(secret)
    assert not Secret("")
    assert len({secret, Secret("s3cret")}) == 1
    with pytest.raises(TypeError):
        pickle.dumps(FULL)
    with pytest.raises(TypeError):
        json.dumps(secret)
