"""What a machine is given for its way to a store on AWS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clouds.drivers.ec2.conftest import Account
from vmrun.registry import lend_store_access
from vmrun.settings import load_settings
from vmrun.wiring import LOAN_REUSED, Wiring

STORE = "s3://bucket/jobs"


def wiring(account: Account, folder: Path, **values: str) -> Wiring:
    settings = load_settings({"store.url": STORE, **values}, cwd=folder)
    return Wiring(settings, account.clock, account.rng)


def test_a_machine_on_ec2_is_lent_keys_that_are_not_the_callers(account: Account, tmp_path: Path) -> None:
    access = wiring(account, tmp_path).store_access("ec2")

    assert access.url == STORE
    assert set(access.secrets) == {"secret_access_key", "session_token"}
    assert access.secrets["secret_access_key"] != os.environ["AWS_SECRET_ACCESS_KEY"]
    assert access.options["access_key_id"] not in ("", os.environ["AWS_ACCESS_KEY_ID"])
    assert access.secrets["session_token"] not in repr(access)


def test_a_machine_with_an_instance_profile_is_given_nothing(account: Account, tmp_path: Path) -> None:
    access = wiring(account, tmp_path, **{"ec2.instance_profile": "jobs"}).store_access("ec2")

    assert access.secrets == {}
    assert "access_key_id" not in access.options


def test_keys_of_a_store_elsewhere_are_those_of_the_caller(account: Account, tmp_path: Path) -> None:
    own = {"secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
    elsewhere = wiring(account, tmp_path, **{"store.endpoint": "https://minio.example"}).store_access("ec2")
    other_cloud = wiring(account, tmp_path).store_access("docker")
    given = wiring(
        account, tmp_path, **{"store.access_key_id": "mine", "store.secret_access_key": "given"}
    ).store_access("ec2")

    assert elsewhere.secrets == other_cloud.secrets == own
    assert given.secrets["secret_access_key"] == "given"


def test_what_was_just_lent_is_given_to_the_next_machine_and_not_for_long(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def lend(on: str, *_: object) -> dict[str, str]:
        asked.append(on)
        return {"access_key_id": "lent", "secret_access_key": f"{len(asked)}", "session_token": "x"}

    monkeypatch.setattr("vmrun.wiring.lend_store_access", lend)
    made = wiring(account, tmp_path)

    assert made.store_access("ec2") == made.store_access("ec2")
    account.clock.sleep(LOAN_REUSED + 1)

    assert made.store_access("ec2").secrets["secret_access_key"] == "2"
    assert asked == ["ec2", "ec2"]


def test_only_a_store_of_the_same_cloud_is_lent_for(account: Account) -> None:
    context = account.context()

    for name, url in (("ec2", "gs://bucket"), ("ec2", "file:///x"), ("local", STORE), ("gce", STORE)):
        assert lend_store_access(name, context, url, 60.0) is None
