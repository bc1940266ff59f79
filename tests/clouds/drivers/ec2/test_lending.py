"""What a machine is given for its way to a store on AWS."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from tests.clouds.drivers.ec2.conftest import Account
from vmrun.core.errors import ConfigError
from vmrun.lending import LOAN_REUSED, Way
from vmrun.registry import lend_store_access
from vmrun.settings import load_settings
from vmrun.wiring import Wiring

STORE = "s3://bucket/jobs"


def wiring(account: Account, folder: Path, **values: str) -> Wiring:
    settings = load_settings({"store.url": STORE, **values}, cwd=folder)
    return Wiring(settings, account.clock, account.rng)


def test_a_machine_on_ec2_is_lent_keys_that_are_not_the_callers(account: Account, tmp_path: Path) -> None:
    access = wiring(account, tmp_path).store_access("ec2", 3600.0)

    assert access.url == STORE
    assert set(access.secrets) == {"secret_access_key", "session_token"}
    assert access.secrets["secret_access_key"] != os.environ["AWS_SECRET_ACCESS_KEY"]
    assert access.options["access_key_id"] not in ("", os.environ["AWS_ACCESS_KEY_ID"])
    assert access.secrets["session_token"] not in repr(access)


def test_a_machine_with_an_instance_profile_is_given_nothing(account: Account, tmp_path: Path) -> None:
    access = wiring(account, tmp_path, **{"ec2.instance_profile": "jobs"}).store_access("ec2", 3600.0)

    assert access.secrets == {}
    assert "access_key_id" not in access.options


def test_keys_of_a_store_elsewhere_are_those_of_the_caller_and_that_is_said(account: Account, tmp_path: Path) -> None:
    own = {"secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
    elsewhere = wiring(account, tmp_path, **{"store.endpoint": "https://minio.example"})
    given = wiring(account, tmp_path, **{"store.access_key_id": "mine", "store.secret_access_key": "given"})

    for on in ("ec2", "gce", "docker"):
        assert elsewhere.store_access(on, 3600.0).secrets == own
        assert "your own keys are placed" in elsewhere.lender.warning(on)
        assert "https://minio.example lends none" in elsewhere.lender.warning(on)
        assert given.store_access(on, 3600.0).secrets["secret_access_key"] == "given"
        assert "the keys in [store] are placed as they are" in given.lender.warning(on)
    assert elsewhere.lender.warning("local") == given.lender.warning("local") == ""


@pytest.mark.parametrize("on", ["gce", "ibm", "docker", "ssh"])
def test_machines_elsewhere_are_lent_keys_for_a_store_on_aws(account: Account, tmp_path: Path, on: str) -> None:
    # An instance profile is nothing that they could have
    made = wiring(account, tmp_path, **{"ec2.instance_profile": "jobs"})

    access = made.store_access(on, 3600.0)

    assert set(access.secrets) == {"secret_access_key", "session_token"}
    assert access.secrets["secret_access_key"] != os.environ["AWS_SECRET_ACCESS_KEY"]
    assert access.options["access_key_id"] not in ("", os.environ["AWS_ACCESS_KEY_ID"])
    assert made.lender.warning(on) == ""


def test_a_machine_that_is_this_computer_is_lent_nothing(account: Account, tmp_path: Path) -> None:
    access = wiring(account, tmp_path).store_access("local", 3600.0)

    assert access.secrets == {"secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"]}


def test_who_works_with_borrowed_keys_hands_them_on(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "for-an-hour")

    made = wiring(account, tmp_path)

    assert made.lender.way("gce") is Way.session
    assert made.store_access("gce", 3600.0).secrets["session_token"] == "for-an-hour"
    assert made.lender.warning("gce") == ""
    assert made.lender.way("ec2") is Way.lent
    with_role = wiring(account, tmp_path, **{"ec2.store_role": "arn:aws:iam::123456789012:role/store"})
    assert with_role.lender.way("gce") is Way.lent


def test_what_was_just_lent_is_given_to_the_next_machine_and_not_for_long(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, float]] = []

    def lend(on: str, _: object, __: str, lifetime: float, **___: str) -> dict[str, str]:
        asked.append((on, lifetime))
        return {"access_key_id": "lent", "secret_access_key": f"{len(asked)}", "session_token": "x"}

    monkeypatch.setattr("vmrun.lending.lend_store_access", lend)
    made = wiring(account, tmp_path)

    assert made.store_access("ec2", 3600.0) == made.store_access("ec2", 3599.0)
    # A job that may live longer than those last gets its own
    assert made.store_access("ec2", 7200.0).secrets["secret_access_key"] == "2"
    account.clock.sleep(200)
    # The same machine, a little later: its keys last to its end. Those of another one would not
    assert made.store_access("ec2", 7000.0).secrets["secret_access_key"] == "2"
    assert made.store_access("ec2", 7200.0).secrets["secret_access_key"] == "3"
    account.clock.sleep(LOAN_REUSED + 1)

    assert made.store_access("ec2", 60.0).secrets["secret_access_key"] == "4"
    assert asked == [("ec2", 3600.0), ("ec2", 7200.0), ("ec2", 7200.0), ("ec2", 60.0)]


def test_without_the_sdk_other_clouds_get_the_callers_keys_and_that_is_said(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str) -> object:
        if name.endswith("ec2.store_credentials"):
            raise ModuleNotFoundError("No module named 'boto3'", name="boto3")
        return real(name)

    monkeypatch.setattr("vmrun.registry.importlib.import_module", without)
    made = wiring(account, tmp_path)
    told: list[str] = []
    made.on_stage = told.append

    assert made.store_access("gce", 60.0).secrets == {"secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
    assert any("pip install 'vmrun[ec2]'" in text for text in told)
    with pytest.raises(ConfigError, match="boto3"):
        made.store_access("ec2", 60.0)


def test_a_url_that_is_none_of_aws_is_not_lent_for(account: Account) -> None:
    with pytest.raises(ConfigError):
        lend_store_access("gce", account.context(), "gs://bucket", 60.0)
