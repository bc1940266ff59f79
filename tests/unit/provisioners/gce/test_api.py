"""Credentials, endpoints and connections, before anything reaches Google."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import Any

import pytest

from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clouds import CloudError, Fault
from vmrun.core.errors import ConfigError
from vmrun.provisioners.context import ProvisionerContext
from vmrun.provisioners.gce import api as google
from vmrun.provisioners.gce.api import TOKEN_VARIABLE, GoogleApi
from vmrun.provisioners.gce.config import GceConfig, read
from vmrun.provisioners.gce.driver import open_driver
from vmrun.settings.clouds import GceSection

from .world import DONE, ZONE, Google, World, absent

TOKEN = "ya29.canary"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of this computer, and nobody asked for some."""
    for name in (TOKEN_VARIABLE, "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "no-gcloud"))


def api(**settings: Any) -> GoogleApi:
    return GoogleApi(GceConfig(**settings), ManualClock(), random.Random(1))


def authorization(one: GoogleApi) -> str:
    """What the connection would send."""
    headers: dict[str, str] = {}
    one._authenticated()[0].apply(headers)
    return headers.get("authorization", "")


@pytest.mark.parametrize(
    "endpoint", ["http://api.example.com", "ftp://127.0.0.1", "127.0.0.1:80", "http://", "http://8.8.8.8"]
)
def test_an_endpoint_that_would_leak_credentials_or_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api(endpoint=endpoint)
    assert caught.value.hint


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:80", "http://localhost:80", "http://172.17.0.1:80", "http://[::1]:80"]
)
def test_a_local_server_gets_no_credentials_of_the_user(endpoint: str) -> None:
    assert authorization(api(endpoint=endpoint, project="p")) == ""


def test_a_token_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "from-environment")

    one = api()

    assert authorization(one) == f"Bearer {TOKEN}"
    assert one.project == "from-environment"
    assert TOKEN not in repr(one._config)


def test_a_token_without_a_project_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with pytest.raises(ConfigError) as caught:
        _ = api().project
    assert "gce.project" in caught.value.hint


def test_no_credentials_are_a_matter_of_permission_with_the_next_step() -> None:
    with pytest.raises(CloudError) as caught:
        _ = api().project
    assert (caught.value.fault, caught.value.cloud_code) == (Fault.permission, "UNAUTHENTICATED")
    assert "gcloud auth application-default login" in caught.value.hint


@pytest.mark.parametrize("content", [None, "", "{}", '{"type": "service_account", "private_key": "x"}'])
def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CloudError) as caught:
        _ = api(credentials_file=str(path)).project
    assert str(path) in caught.value.message
    assert "gce.credentials_file" in caught.value.hint


def test_opening_the_driver_sends_and_reads_nothing(tmp_path: Path) -> None:
    context = ProvisionerContext(tmp_path / "s", tmp_path / "c", ManualClock(), random.Random(1), {})
    assert open_driver(context).name == "gce"
    assert list(tmp_path.iterdir()) == []


def test_requests_go_below_the_endpoint(tmp_path: Path) -> None:
    world = World(tmp_path, endpoint="http://127.0.0.1:9/base")
    world.answer(DONE)
    world.api.read("cloudresourcemanager.projects.testIamPermissions", resource="p", body={"permissions": ["a"]})
    world.answer(absent("instances/vmrun-x"))
    world.driver.delete(f"{ZONE}/vmrun-x")

    assert world.google.asked[0].path == "/base/v1/projects/p:testIamPermissions"
    assert world.google.asked[1].path.startswith("/base/compute/v1/projects/")


def test_connections_end_with_the_driver() -> None:
    class Closing(Google):
        closed = 0

        def close(self) -> None:
            Closing.closed += 1

    web = Closing(answers=[{"name": "x"}] * 2)
    one = GoogleApi(GceConfig(project="p"), ManualClock(), random.Random(1), connect=lambda: web)  # type: ignore[arg-type]
    one.read("compute.regions.get", region="r")
    one.read("compute.regions.get", region="r")
    del one
    gc.collect()

    assert Closing.closed == 1


def test_an_answer_that_is_no_json_is_no_answer(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.google.otherwise = lambda _: b"<html>login to the hotel</html>"
    with pytest.raises(CloudError) as caught:
        world.api.read("compute.regions.get", region="r")
    assert caught.value.fault is Fault.unavailable
    assert len(world.google.asked) == 3


def test_the_descriptions_of_all_apis_come_with_the_library(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name in google._APIS:
        assert world.api._service(name) is world.api._service(name)


def test_the_table_of_the_settings_is_read_as_it_is() -> None:
    assert read({}) == GceConfig()
    assert read(GceSection().model_dump()) == GceConfig()
    given = GceSection(endpoint="http://127.0.0.1:1/", regions=("us-east1", "us-west1"), public_ip=False, disk=10**12)
    found = read(given.model_dump())
    assert (found.endpoint, found.regions, found.public_ip, found.disk) == (
        "http://127.0.0.1:1",
        ("us-east1", "us-west1"),
        False,
        10**12,
    )
