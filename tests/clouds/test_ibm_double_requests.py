"""What the double of IBM Cloud VPC takes, from whom, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator, IAMAuthenticator, VPCInstanceAuthenticator

from tests.clouds.double import Double
from tests.clouds.ibm import open_double, sdk
from tests.clouds.ibm.app import HANDLERS
from tests.clouds.ibm_worlds import SETTLED, VERSION, World, opened
from tests.clouds.machines import PaperMachines
from tests.clouds.trouble import Script
from tests.unit.provisioners.manual_clock import ManualClock


@pytest.fixture
def world() -> Iterator[World]:
    with opened() as made:
        yield made


# --- what it is made of ---


def test_it_is_a_double() -> None:
    double: Double = open_double(PaperMachines(), "127.0.0.1", Script())
    assert double.settings()["endpoint"] == double.endpoint
    assert set(double.environment()) == {"IBMCLOUD_API_KEY"}
    double.close()


def test_operations_come_from_the_sdk() -> None:
    operations = sdk.operations()

    assert len(operations) > 400
    assert set(HANDLERS) <= set(operations)
    create = operations["create_instance"]
    assert (create.method, create.body, create.answer) == ("POST", sdk.vpc.InstancePrototype, sdk.vpc.Instance)
    assert "resource_group.id" in operations["list_instances"].query


def test_an_answer_that_the_sdk_would_not_understand_is_a_fault_of_the_double(monkeypatch: pytest.MonkeyPatch) -> None:
    double = open_double(PaperMachines(), "127.0.0.1", Script())
    api = World(double, PaperMachines(), double.script, ManualClock()).client()
    monkeypatch.setattr("tests.clouds.ibm.images._region", lambda *_: {"name": "us-south"})

    with pytest.raises(ApiException, match="endpoint is required"):
        api.list_regions()

    with pytest.raises(AssertionError, match="no RegionCollection"):
        double.close()
    api.http_client.close()


def test_what_it_has_not_is_said(world: World) -> None:
    assert world.refusal("list_load_balancers") == (501, "not_implemented")
    answer = requests.get(f"{world.double.endpoint}/v1/nonsense", timeout=60)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "invalid_route")


def test_hands_are_there_over_http(world: World) -> None:
    world.running()

    inventory = requests.get(f"{world.double.endpoint}/_double/inventory", timeout=60).json()

    assert list(inventory["instances"].values()) == ["running"]


# --- requests ---


@pytest.mark.parametrize(
    ("change", "code", "target"),
    [
        (lambda b: b.update(nmae="x"), "invalid_request_field", "nmae"),
        (lambda b: b["boot_volume_attachment"]["volume"].update(size=1), "invalid_request_field", "size"),
        (
            lambda b: b["primary_network_attachment"]["virtual_network_interface"].update(subnets=[]),
            "invalid_request_field",
            "virtual_network_interface.subnets",
        ),
        (lambda b: b.pop("zone"), "validation_required_field", "zone"),
        (lambda b: b.update(user_data=["x"]), "validation_failure", "user_data"),
        (lambda b: b.update(metadata_service={"protocol": "ftp"}), "validation_enum", "metadata_service.protocol"),
        (lambda b: b.update(availability={"class": "cheap"}), "validation_enum", "availability.class"),
        (lambda b: b.update(user_data="x" * 65537), "bad_field", "user_data"),
        (lambda b: b.update(name="Not A Name"), "bad_field", "name"),
        (lambda b: b.update(profile={"name": "bx2-3x7"}), "bad_field", "profile.name"),
        (lambda b: b.update(zone={"name": "us-south-9"}), "bad_field", "zone.name"),
        (lambda b: b.update(zone={"name": "us-south-2"}), "bad_field", "subnet.id"),
        (lambda b: b.update(image={"id": "r006-nothing"}), "bad_field", "image.id"),
        (lambda b: b.update(vpc={"id": "r006-nothing"}), "bad_field", "vpc.id"),
        (lambda b: b.update(resource_group={"id": "nothing"}), "bad_field", "resource_group.id"),
        (lambda b: b["boot_volume_attachment"].update(name="Not_a_name"), "bad_field", "boot_volume_attachment.name"),
        (lambda b: b["primary_network_attachment"].update(name="-"), "bad_field", "primary_network_attachment.name"),
        (lambda b: b["boot_volume_attachment"]["volume"].update(user_tags=["a=b"]), "bad_field", "user_tags"),
        (lambda b: b["boot_volume_attachment"]["volume"].update(capacity=500), "bad_field", "volume.capacity"),
        (lambda b: b["boot_volume_attachment"]["volume"].update(profile={"name": "x"}), "bad_field", "profile.name"),
        (lambda b: b.update(availability={"class": "spot"}), "bad_field", "availability.class"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_its_field(
    world: World, change: Callable[[dict[str, Any]], Any], code: str, target: str
) -> None:
    body = world.body()
    change(body)

    refused, error = world.refused("create_instance", instance_prototype=body)

    assert (refused.status_code, error["code"]) == (400, code)
    assert error["target"]["name"].endswith(target)
    assert world.double.inventory().instances == {}


@pytest.mark.parametrize(
    ("client", "code"),
    [
        ({"version": "June"}, "invalid_version"),
        ({"version": "2099-01-01"}, "invalid_version_range"),
        ({"generation": 1}, "invalid_generation_parameter"),
    ],
)
def test_version_and_generation_are_required(world: World, client: dict[str, Any], code: str) -> None:
    world.clients.insert(0, world.client(**client))

    assert world.refusal("list_regions") == (400, code)


def test_an_unknown_parameter_is_refused(world: World) -> None:
    send = world.api.prepare_request("GET", "/instances", params={"version": VERSION, "generation": 2, "tag": "x"})
    with pytest.raises(ApiException, match="tag is not a parameter of list_instances"):
        world.api.send(send)


def test_every_call_is_recorded_with_its_outcome(world: World) -> None:
    body = world.body()
    world.script.clear()
    world.do("create_instance", instance_prototype=body)
    world.refusal("create_instance", instance_prototype=body)

    made, again = [call for call in world.script.calls if call.operation == "create_instance"]
    assert (made.outcome, again.outcome) == ("ok", "validation_unique_failed")
    about = {"name": "one", "instance_type": "bx2-2x8", "zone": "us-south-1", "region": "us-south"}
    assert about.items() <= made.about.items()


# --- IAM ---


def test_a_wrong_key_gets_no_token(world: World) -> None:
    wrong = world.client(authenticator=IAMAuthenticator("wrong", url=world.double.endpoint))

    with pytest.raises(ApiException, match="Provided API key could not be found") as caught:
        wrong.list_regions()

    assert caught.value.status_code == 400
    assert caught.value.http_response.json()["errorCode"] == "BXNIM0415E"
    assert world.script.calls[-1].outcome == "BXNIM0415E"


def test_tokens_end(world: World) -> None:
    token = world.api.authenticator.token_manager.get_token()
    bearer = world.client(authenticator=BearerTokenAuthenticator(token))
    assert bearer.list_regions().get_status_code() == 200

    world.clock.sleep(3601)

    with pytest.raises(ApiException, match="expired") as caught:
        bearer.list_regions()
    assert caught.value.status_code == 401


def test_without_a_token_nothing_is_told(world: World) -> None:
    url = f"{world.double.endpoint}/v1/instances?version={VERSION}&generation=2"
    assert requests.get(url, timeout=60).status_code == 401
    assert requests.get(f"{world.double.endpoint}/v2/resource_groups", timeout=60).status_code == 401


def test_resource_groups_are_told(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.api.authenticator.token_manager.get_token()}"}

    def groups(**query: str) -> list[dict[str, Any]]:
        url = f"{world.double.endpoint}/v2/resource_groups"
        return list(requests.get(url, params=query, headers=headers, timeout=60).json()["resources"])

    (default,) = groups(default="true")
    assert default["name"] == "Default"
    assert groups(name="Default") == [default]
    assert groups(name="another") == []
    assert world.create()["resource_group"]["id"] == default["id"]


def test_trusted_profiles_and_prices_are_told(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.api.authenticator.token_manager.get_token()}"}

    def get(path: str) -> requests.Response:
        return requests.get(f"{world.double.endpoint}{path}", headers=headers, timeout=60)

    assert get(f"/v1/profiles/{world.double.trusted_profile}").json()["name"] == "machines"
    assert get("/v1/profiles/Profile-none").status_code == 404
    for profile, metrics in (("bx2-2x8", 3), ("bx3d-2x10", 2)):
        measures = get(f"/api/v1/{profile}").json()["metadata"]["other"]["profile"]["measures"]
        plan = measures[0]["deployments"][1]["plan"]
        prices = get(f"/api/v1/{plan}/pricing/deployment").json()["resources"]
        assert prices[0]["deployment_location"] == "us-south"
        assert len(prices[0]["metrics"]) == metrics
    assert get("/api/v1/nothing").status_code == 404


# --- the metadata service ---


def test_a_machine_deletes_itself_by_its_trusted_profile(world: World) -> None:
    profile = {"target": {"id": "Profile-1"}, "auto_link": True}
    made = world.running(metadata_service={"enabled": True}, default_trusted_profile=profile)
    initialization = world.do("get_instance_initialization", id=made["id"])
    assert initialization["default_trusted_profile"]["target"]["id"] == "Profile-1"
    inside = f"{world.double.endpoint}/guest/one"
    itself = world.client(authenticator=VPCInstanceAuthenticator(iam_profile_id="Profile-1", url=inside))

    token = requests.put(f"{inside}/identity/v1/token", headers={"Metadata-Flavor": "ibm"}, json={}, timeout=60).json()
    headers = {"Authorization": f"Bearer {token['access_token']}", "Metadata-Flavor": "ibm"}
    told = requests.get(f"{inside}/metadata/v1/instance", headers=headers, timeout=60).json()
    assert (told["id"], told["zone"]["name"]) == (made["id"], "us-south-1")
    itself.delete_instance(id=told["id"])

    world.clock.sleep(SETTLED)
    assert world.double.inventory().instances == {}


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 404),
        ({"metadata_service": {"enabled": True}}, 403),
        (
            {
                "metadata_service": {"enabled": True},
                "default_trusted_profile": {"target": {"id": "Profile-2"}},
            },
            403,
        ),
    ],
)
def test_no_token_without_metadata_service_or_the_right_profile(
    world: World, more: dict[str, Any], status: int
) -> None:
    world.running(**more)
    inside = VPCInstanceAuthenticator(iam_profile_id="Profile-1", url=world.double.endpoint)

    with pytest.raises(ApiException) as caught:
        world.client(authenticator=inside).list_regions()

    assert caught.value.status_code == status


def test_a_token_of_the_metadata_service_opens_nothing_else(world: World) -> None:
    world.running(metadata_service={"enabled": True})
    url, flavor = f"{world.double.endpoint}/identity/v1/token", {"Metadata-Flavor": "ibm"}
    assert requests.put(url, json={}, timeout=60).status_code == 400

    token = requests.put(url, headers=flavor, json={"expires_in": 60}, timeout=60).json()
    bearer = world.client(authenticator=BearerTokenAuthenticator(token["access_token"]))

    assert token["expires_in"] == 60
    with pytest.raises(ApiException) as caught:
        bearer.list_regions()
    assert caught.value.status_code == 401
