"""The double of IBM Cloud VPC behaves as the cloud does, as the real SDK sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator, IAMAuthenticator, VPCInstanceAuthenticator
from ibm_vpc import VpcV1

from tests.clouds.double import Double
from tests.clouds.ibm import IbmDouble, Pace, open_double, sdk
from tests.clouds.ibm.app import HANDLERS
from tests.clouds.machines import PaperMachines, Power
from tests.clouds.trouble import Rule, Script, Trouble
from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clock import SystemClock

VERSION = "2026-06-30"
#: Seconds after which everything that was begun is over.
SETTLED = 10.0


@dataclass
class World:
    """A double on paper, with a clock in hand, and a client of it."""

    double: IbmDouble
    machines: PaperMachines
    script: Script
    clock: ManualClock
    clients: list[VpcV1] = field(default_factory=list)

    def client(self, *, version: str = VERSION, authenticator: Any = None, generation: int = 2) -> VpcV1:
        chosen = authenticator or IAMAuthenticator(self.double.iam.api_key, url=self.double.endpoint)
        client = VpcV1(version=version, authenticator=chosen, generation=generation)
        client.set_service_url(f"{self.double.endpoint}/v1")
        self.clients.append(client)
        return client

    @property
    def api(self) -> VpcV1:
        return self.clients[0]

    def do(self, operation: str, **arguments: Any) -> Any:
        """The result of a call of the first client."""
        return getattr(self.api, operation)(**arguments).get_result()

    def refusal(self, operation: str, **arguments: Any) -> tuple[int, str]:
        """Status and code with which a call is refused."""
        refused, error = self.refused(operation, **arguments)
        return refused.status_code, error["code"]

    def refused(self, operation: str, **arguments: Any) -> tuple[ApiException, dict[str, Any]]:
        with pytest.raises(ApiException) as caught:
            getattr(self.api, operation)(**arguments)
        body = caught.value.http_response.json()
        assert body["trace"]
        (error,) = body["errors"]
        return caught.value, error

    def subnet(self, zone: str) -> dict[str, Any]:
        (found,) = self.do("list_subnets", zone_name=zone)["subnets"]
        return found

    def body(self, name: str = "one", *, zone: str = "us-south-1", **more: Any) -> dict[str, Any]:
        """A prototype of an instance."""
        interface = {"auto_delete": True, "subnet": {"id": self.subnet(zone)["id"]}}
        image = next(i for i in self.do("list_images", name="ibm-ubuntu-24-04-3-minimal-amd64-9")["images"])
        return {
            "name": name,
            "profile": {"name": "bx2-2x8"},
            "zone": {"name": zone},
            "image": {"id": image["id"]},
            "user_data": "#cloud-config\n",
            "primary_network_attachment": {"name": "eth0", "virtual_network_interface": interface},
            "boot_volume_attachment": {
                "name": "a-mark",
                "delete_volume_on_instance_delete": True,
                "volume": {
                    "name": name,
                    "capacity": 100,
                    "profile": {"name": "general-purpose"},
                    "user_tags": ["owner:me"],
                },
            },
            **more,
        }

    def create(self, name: str = "one", **more: Any) -> dict[str, Any]:
        return self.do("create_instance", instance_prototype=self.body(name, **more))

    def running(self, name: str = "one", **more: Any) -> dict[str, Any]:
        made = self.create(name, **more)
        self.clock.sleep(SETTLED)
        found = self.do("get_instance", id=made["id"])
        assert found["status"] == "running"
        return found

    def status(self, made: dict[str, Any]) -> str:
        return str(self.do("get_instance", id=made["id"])["status"])

    def names(self) -> set[str]:
        return {one["name"] for one in self.do("list_instances")["instances"]}

    def trouble(self, trouble: Trouble, operation: str = "", **more: Any) -> None:
        self.script.add(Rule(trouble, operation, **more))


@pytest.fixture
def world() -> Iterator[World]:
    machines, script, clock = PaperMachines(), Script(), ManualClock(SystemClock().now())
    double = open_double(machines, "127.0.0.1", script, clock=clock, pace=Pace(1, 1, 1, 1))
    made = World(double, machines, script, clock)
    made.client()
    yield made
    for client in made.clients:
        client.http_client.close()
    double.close()


def interface_of(instance: dict[str, Any]) -> str:
    return str(instance["primary_network_attachment"]["virtual_network_interface"]["id"])


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
    answer = requests.get(f"{world.double.endpoint}/v1/nonsense", timeout=5)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "invalid_route")


def test_hands_are_there_over_http(world: World) -> None:
    world.running()

    inventory = requests.get(f"{world.double.endpoint}/_double/inventory", timeout=5).json()

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
    assert requests.get(url, timeout=5).status_code == 401
    assert requests.get(f"{world.double.endpoint}/v2/resource_groups", timeout=5).status_code == 401


def test_resource_groups_are_told(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.api.authenticator.token_manager.get_token()}"}

    def groups(**query: str) -> list[dict[str, Any]]:
        url = f"{world.double.endpoint}/v2/resource_groups"
        return list(requests.get(url, params=query, headers=headers, timeout=5).json()["resources"])

    (default,) = groups(default="true")
    assert default["name"] == "Default"
    assert groups(name="Default") == [default]
    assert groups(name="another") == []
    assert world.create()["resource_group"]["id"] == default["id"]


def test_trusted_profiles_and_prices_are_told(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.api.authenticator.token_manager.get_token()}"}

    def get(path: str) -> requests.Response:
        return requests.get(f"{world.double.endpoint}{path}", headers=headers, timeout=5)

    assert get(f"/v1/profiles/{world.double.trusted_profile}").json()["name"] == "machines"
    assert get("/v1/profiles/Profile-none").status_code == 404
    for profile, metrics in (("bx2-2x8", 3), ("bx3d-2x10", 2)):
        measures = get(f"/api/v1/{profile}").json()["metadata"]["other"]["profile"]["measures"]
        plan = measures[0]["deployments"][1]["plan"]
        prices = get(f"/api/v1/{plan}/pricing/deployment").json()["resources"]
        assert prices[0]["deployment_location"] == "us-south"
        assert len(prices[0]["metrics"]) == metrics
    assert get("/api/v1/nothing").status_code == 404


# --- the life of an instance ---


def test_an_instance_comes_to_run_on_a_machine(world: World) -> None:
    made = world.create()
    assert (made["status"], made["lifecycle_state"]) == ("pending", "pending")
    assert made["boot_volume_attachment"]["name"] == "a-mark"
    assert made["network_attachments"][0]["name"] == "eth0"
    assert made["primary_network_attachment"]["primary_ip"]["address"] == "0.0.0.0"

    world.clock.sleep(1)
    assert world.status(made) == "starting"
    world.clock.sleep(1)
    found = world.do("get_instance", id=made["id"])

    assert found["status"] == "running"
    assert found["primary_network_attachment"]["primary_ip"]["address"] == "127.0.0.1"
    assert world.machines.user_data == {made["id"]: "#cloud-config\n"}
    assert world.double.inventory().instances == {made["id"]: "running"}


def test_a_floating_ip_has_the_machines_address_and_outlives_it(world: World) -> None:
    made = world.running()
    prototype = {"name": "one", "target": {"id": interface_of(made)}}
    address = world.do("create_floating_ip", floating_ip_prototype=prototype)
    assert address["address"] == "127.0.0.1"
    assert address["target"]["resource_type"] == "virtual_network_interface"
    (found,) = world.do("list_floating_ips", target_id=interface_of(made))["floating_ips"]
    assert found["id"] == address["id"]

    world.do("delete_instance", id=made["id"])
    world.clock.sleep(SETTLED)

    left = world.do("get_floating_ip", id=address["id"])
    assert "target" not in left
    assert world.double.inventory().addresses == [address["id"]]


def test_a_deleted_instance_is_seen_going_and_takes_its_disk_along(world: World) -> None:
    made = world.running()
    volume = made["boot_volume_attachment"]["volume"]["id"]
    assert world.do("get_volume", id=volume)["user_tags"] == ["owner:me"]
    assert world.refusal("delete_volume", id=volume) == (409, "volume_in_use")

    assert world.api.delete_instance(id=made["id"]).get_status_code() == 204

    assert world.status(made) == "deleting"
    assert world.refusal("delete_instance", id=made["id"]) == (409, "instance_delete_conflict")
    assert world.machines.power(made["id"]) is Power.absent
    world.clock.sleep(1)
    assert world.refusal("get_instance", id=made["id"]) == (404, "not_found")
    assert world.refusal("delete_instance", id=made["id"]) == (404, "not_found")
    assert world.refusal("get_volume", id=volume) == (404, "not_found")
    assert world.do("list_virtual_network_interfaces")["virtual_network_interfaces"] == []
    assert world.double.inventory().disks == []


def test_deleting_is_answered_otherwise_from_a_later_version_on(world: World) -> None:
    made = world.running()
    assert world.client(version="2026-10-01").delete_instance(id=made["id"]).get_status_code() == 202


def test_a_pending_instance_cannot_be_deleted_yet(world: World) -> None:
    made = world.create()

    assert world.refusal("delete_instance", id=made["id"]) == (409, "instance_delete_conflict")

    world.clock.sleep(1)
    world.do("delete_instance", id=made["id"])
    assert world.status(made) == "deleting"


def test_a_disk_that_shall_stay_stays(world: World) -> None:
    body = world.body()
    body["boot_volume_attachment"]["delete_volume_on_instance_delete"] = False
    made = world.do("create_instance", instance_prototype=body)
    world.clock.sleep(SETTLED)

    world.do("delete_instance", id=made["id"])
    world.clock.sleep(SETTLED)

    (left,) = world.do("list_volumes", attachment_state="unattached")["volumes"]
    assert left["name"] == "one"
    world.do("delete_volume", id=left["id"])
    assert world.double.inventory().disks == []


def test_power_off_from_inside_stops_and_keeps_everything(world: World) -> None:
    made = world.running()
    world.do("create_floating_ip", floating_ip_prototype={"name": "one", "target": {"id": interface_of(made)}})

    world.double.power_off("one")

    assert world.status(made) == "stopped"
    left = world.double.inventory()
    assert (list(left.instances.values()), len(left.disks), len(left.addresses)) == (["stopped"], 1, 1)
    assert world.refusal("create_instance", instance_prototype=world.body()) == (400, "validation_unique_failed")


def test_stop_and_start_act_on_the_machine(world: World) -> None:
    made = world.running()
    world.do("create_instance_action", instance_id=made["id"], type="stop")
    assert world.status(made) == "stopping"
    assert world.machines.power(made["id"]) is Power.off
    world.clock.sleep(1)
    assert world.status(made) == "stopped"
    refused = world.refusal("create_instance_action", instance_id=made["id"], type="stop")
    assert refused == (409, "instance_invalid_action")

    world.do("create_instance_action", instance_id=made["id"], type="start")
    assert world.machines.power(made["id"]) is Power.on
    world.clock.sleep(1)
    assert world.status(made) == "running"


def test_hands_stop_and_delete(world: World) -> None:
    made, other = world.running(), world.running("other")

    world.double.stop_by_hand("one")
    world.double.delete_by_hand(other["id"])
    world.clock.sleep(SETTLED)

    assert world.double.inventory().instances == {made["id"]: "stopped"}
    with pytest.raises(KeyError):
        world.double.power_off("other")


def test_a_planted_machine_has_the_name_and_is_somebody_elses(world: World) -> None:
    planted = world.double.plant("one", tags={"owner": "else"}, zone="us-south-2")

    found = world.do("get_instance", id=planted)
    assert (found["status"], found["zone"]["name"]) == ("running", "us-south-2")
    assert world.do("list_volumes")["volumes"][0]["user_tags"] == ["owner:else"]
    assert world.refusal("create_instance", instance_prototype=world.body()) == (400, "validation_unique_failed")
    assert world.machines.user_data == {}


def test_an_instance_by_the_older_kind_of_interface(world: World) -> None:
    body = world.body()
    del body["primary_network_attachment"]
    body["primary_network_interface"] = {"subnet": {"id": world.subnet("us-south-1")["id"]}}
    made = world.do("create_instance", instance_prototype=body)
    world.clock.sleep(SETTLED)
    own = {"instance_id": made["id"], "network_interface_id": made["primary_network_interface"]["id"]}
    spare = world.do("create_floating_ip", floating_ip_prototype={"zone": {"name": "us-south-1"}})

    world.do("add_instance_network_interface_floating_ip", **own, id=spare["id"])

    (bound,) = world.do("list_instance_network_interface_floating_ips", **own)["floating_ips"]
    assert (bound["id"], bound["address"]) == (spare["id"], "127.0.0.1")
    assert bound["target"]["resource_type"] == "network_interface"
    assert "primary_network_attachment" not in world.do("get_instance", id=made["id"])
    members = [one["targets"] for one in world.do("list_security_groups")["security_groups"] if one["targets"]]
    assert [one["id"] for targets in members for one in targets] == [own["network_interface_id"]]
    world.do("remove_instance_network_interface_floating_ip", **own, id=spare["id"])
    assert "target" not in world.do("get_floating_ip", id=spare["id"])


# --- names, quotas, offers ---


@pytest.mark.parametrize("region_apart", [False, True])
def test_names_are_unique_in_a_region(world: World, region_apart: bool) -> None:
    world.running()
    body = world.body(zone="eu-de-1" if region_apart else "us-south-2")

    if region_apart:
        assert world.do("create_instance", instance_prototype=body)["name"] == "one"
        return
    refused, error = world.refused("create_instance", instance_prototype=body)
    assert refused.message == "Provided Name (one) is not unique"
    assert error["target"] == {"name": "name", "type": "field", "value": "one"}


def test_a_name_is_free_again_once_its_machine_is_gone(world: World) -> None:
    first = world.running()
    world.do("delete_instance", id=first["id"])
    assert world.refusal("create_instance", instance_prototype=world.body()) == (400, "validation_unique_failed")
    world.clock.sleep(SETTLED)

    assert world.create()["id"] != first["id"]


def test_a_disks_name_is_unique_too(world: World) -> None:
    world.create()
    body = world.body("two")
    body["boot_volume_attachment"]["volume"]["name"] = "one"

    assert world.refusal("create_instance", instance_prototype=body) == (400, "volume_name_duplicate")


def test_of_two_creates_at_once_one_gets_the_name(world: World) -> None:
    body, outcomes = world.body(), []
    clients = [world.client() for _ in range(4)]

    def create(client: VpcV1) -> None:
        try:
            client.create_instance(body)
            outcomes.append("made")
        except ApiException as error:
            outcomes.append(error.http_response.json()["errors"][0]["code"])

    threads = [threading.Thread(target=create, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(outcomes) == ["made", *["validation_unique_failed"] * 3]
    assert len(world.double.inventory().instances) == 1


def test_vcpus_of_a_region_are_a_quota_that_stopped_machines_use_too(world: World) -> None:
    world.running("big", profile={"name": "mx2-128x1024"})
    world.double.power_off("big")

    refused, error = world.refused("create_instance", instance_prototype=world.body(profile={"name": "bx2-96x384"}))
    assert (refused.status_code, error["code"]) == (400, "over_quota")

    elsewhere = world.body(zone="us-east-1", profile={"name": "bx2-96x384"})
    assert world.do("create_instance", instance_prototype=elsewhere)["vcpu"]["count"] == 96


def test_floating_ips_of_a_zone_are_a_quota(world: World) -> None:
    world.double.account.quotas.floating_ips_per_zone = 1
    zone = {"zone": {"name": "us-south-1"}}
    world.do("create_floating_ip", floating_ip_prototype=zone)

    assert world.refusal("create_floating_ip", floating_ip_prototype=zone) == (400, "over_quota")
    world.do("create_floating_ip", floating_ip_prototype={"zone": {"name": "us-south-2"}})


def test_a_profile_is_not_everywhere(world: World) -> None:
    profile = world.do("get_instance_profile", name="mx4-128x1024")
    assert {zone["name"] for zone in profile["zones"]} == {"us-south-1", "us-south-2", "us-south-3"}

    body = world.body(zone="us-east-1", profile={"name": "mx4-128x1024"})
    _, error = world.refused("create_instance", instance_prototype=body)

    assert (error["code"], error["target"]["name"]) == ("bad_field", "profile.name")


def test_profiles_are_as_their_version_has_them(world: World) -> None:
    old, new = world.client(version="2026-01-01"), world.client(version="2026-10-01")

    everything = old.list_instance_profiles().get_result()
    page = new.list_instance_profiles(limit=100).get_result()

    assert "next" not in everything
    assert len(everything["profiles"]) == everything["total_count"] == page["total_count"] > 200
    assert len(page["profiles"]) == 100
    assert page["next"]["href"]
    assert old.get_instance_profile(name="bx2-4x16").get_result()["vcpu_count"] == {"type": "fixed", "value": 4}
    assert new.get_instance_profile(name="bx2-4x16").get_result()["vcpu_count"]["type"] == "enum"
    assert world.refusal("get_instance_profile", name="zz9-1x1") == (404, "not_found")


# --- spot ---


@pytest.mark.parametrize(("policy", "ends_as"), [("stop", "stopped"), ("delete", "deleting")])
def test_a_spot_machine_is_taken_back_by_its_policy(world: World, policy: str, ends_as: str) -> None:
    more: dict[str, Any] = {"profile": {"name": "bxf-2x8"}, "availability": {"class": "spot"}}
    made = world.running(**more, availability_policy={"preemption": policy})
    assert made["availability"] == {"class": "spot"}

    world.double.preempt("one")
    if policy == "stop":
        world.clock.sleep(SETTLED)

    found = world.do("get_instance", id=made["id"])
    assert found["status"] == ends_as
    assert [reason["code"] for reason in found["status_reasons"]] == ["stopped_by_preemption"]
    assert world.machines.power(made["id"]) is (Power.off if policy == "stop" else Power.absent)
    world.clock.sleep(SETTLED)
    assert len(world.double.inventory().instances) == (1 if policy == "stop" else 0)


def test_only_spot_machines_are_taken_back(world: World) -> None:
    world.running()
    with pytest.raises(ValueError, match="not a spot machine"):
        world.double.preempt("one")
    flex = world.do("get_instance_profile", name="bxf-2x8")["availability_class"]
    plain = world.do("get_instance_profile", name="bx2-2x8")["availability_class"]
    assert ("spot" in flex["values"], plain) == (True, {"type": "fixed", "value": "standard"})


# --- the metadata service ---


def test_a_machine_deletes_itself_by_its_trusted_profile(world: World) -> None:
    profile = {"target": {"id": "Profile-1"}, "auto_link": True}
    made = world.running(metadata_service={"enabled": True}, default_trusted_profile=profile)
    initialization = world.do("get_instance_initialization", id=made["id"])
    assert initialization["default_trusted_profile"]["target"]["id"] == "Profile-1"
    inside = f"{world.double.endpoint}/guest/one"
    itself = world.client(authenticator=VPCInstanceAuthenticator(iam_profile_id="Profile-1", url=inside))

    token = requests.put(f"{inside}/identity/v1/token", headers={"Metadata-Flavor": "ibm"}, json={}, timeout=5).json()
    headers = {"Authorization": f"Bearer {token['access_token']}", "Metadata-Flavor": "ibm"}
    told = requests.get(f"{inside}/metadata/v1/instance", headers=headers, timeout=5).json()
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
    assert requests.put(url, json={}, timeout=5).status_code == 400

    token = requests.put(url, headers=flavor, json={"expires_in": 60}, timeout=5).json()
    bearer = world.client(authenticator=BearerTokenAuthenticator(token["access_token"]))

    assert token["expires_in"] == 60
    with pytest.raises(ApiException) as caught:
        bearer.list_regions()
    assert caught.value.status_code == 401


# --- lists ---


def all_pages(world: World, limit: int) -> list[list[str]]:
    pages, start = [], None
    while True:
        page = world.do("list_instances", limit=limit, start=start)
        pages.append([one["name"] for one in page["instances"]])
        if "next" not in page:
            return pages
        start = page["next"]["href"].rpartition("start=")[2]


def test_lists_come_in_pages(world: World) -> None:
    for name in ("a", "b", "c", "d", "e"):
        world.create(name)
    world.clock.sleep(SETTLED)

    assert all_pages(world, 2) == [["a", "b"], ["c", "d"], ["e"]]
    assert world.refusal("list_instances", limit=101) == (400, "bad_field")
    assert world.refusal("list_instances", start="never") == (400, "invalid_id_format")

    world.trouble(Trouble.small_pages, "list_instances", size=1, times=-1)
    assert all_pages(world, 100) == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_a_page_starts_where_the_last_ended_although_machines_vanish(world: World) -> None:
    for name in ("a", "b", "c"):
        world.create(name)
    world.clock.sleep(SETTLED)
    page = world.do("list_instances", limit=1)
    world.double.delete_by_hand("b")
    world.clock.sleep(SETTLED)

    rest = world.do("list_instances", limit=5, start=page["next"]["href"].rpartition("start=")[2])

    assert [one["name"] for one in rest["instances"]] == ["c"]


def test_lists_are_filtered(world: World) -> None:
    made = world.running("a")
    world.running("b", zone="us-south-2")

    assert [one["name"] for one in world.do("list_instances", name="b")["instances"]] == ["b"]
    assert world.do("list_instances", resource_group_id="another")["instances"] == []
    assert len(world.do("list_instances", vpc_id=made["vpc"]["id"])["instances"]) == 2
    assert [one["name"] for one in world.do("list_volumes", zone_name="us-south-2")["volumes"]] == ["b"]


def test_a_list_may_lag(world: World) -> None:
    world.running("old")
    world.clock.sleep(60)
    world.running("new")
    world.double.delete_by_hand("old")
    world.clock.sleep(SETTLED)
    world.trouble(Trouble.list_lag, "list_instances", seconds=30)

    assert world.names() == {"old"}
    assert world.names() == {"new"}


def test_a_list_may_end_in_the_middle(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        world.create(name)
    world.trouble(Trouble.half_a_list, "list_instances")

    page = world.do("list_instances")

    assert [one["name"] for one in page["instances"]] == ["a", "b"]
    start = page["next"]["href"].rpartition("start=")[2]
    assert world.refusal("list_instances", start=start) == (500, "internal_error")
    assert world.names() == {"a", "b", "c", "d"}


def test_an_instance_may_be_visible_late(world: World) -> None:
    world.trouble(Trouble.late, seconds=60)
    made = world.create()
    world.clock.sleep(59)

    assert world.names() == set()
    assert world.refusal("get_instance", id=made["id"]) == (404, "not_found")
    assert world.refusal("create_instance", instance_prototype=world.body()) == (400, "validation_unique_failed")
    assert list(world.double.inventory().instances) == [made["id"]]

    world.clock.sleep(1)
    assert world.names() == {"one"}


def test_everything_there_is_can_be_looked_at(world: World) -> None:
    """Each answer is checked by the double itself against the SDK's models."""
    made = world.running()
    bound = {"name": "one", "target": {"id": interface_of(made)}}
    address = world.do("create_floating_ip", floating_ip_prototype=bound)
    own, vni = {"instance_id": made["id"]}, {"virtual_network_interface_id": interface_of(made)}

    (attachment,) = world.do("list_instance_network_attachments", **own)["network_attachments"]
    (older,) = world.do("list_instance_network_interfaces", **own)["network_interfaces"]
    (disk,) = world.do("list_instance_volume_attachments", **own)["volume_attachments"]
    (member,) = world.do("list_network_interface_floating_ips", **vni)["floating_ips"]
    interface = world.do("get_virtual_network_interface", id=interface_of(made))
    vpc = world.do("get_vpc", id=made["vpc"]["id"])
    prefixes = world.do("list_vpc_address_prefixes", vpc_id=vpc["id"])["address_prefixes"]

    assert attachment["virtual_network_interface"]["id"] == interface["id"]
    assert interface["target"]["id"] == attachment["id"]
    assert older["floating_ips"][0]["id"] == member["id"] == address["id"]
    assert world.do("get_network_interface_floating_ip", **vni, id=address["id"]) == member
    assert (disk["name"], disk["delete_volume_on_instance_delete"]) == ("a-mark", True)
    assert world.do("list_volumes")["volumes"][0]["volume_attachments"][0]["instance"]["id"] == made["id"]
    assert len({prefix["cidr"] for prefix in prefixes}) == len(prefixes) >= 9
    subnet = world.do("get_subnet", id=world.subnet("us-south-1")["id"])
    assert subnet["available_ipv4_address_count"] == 256 - 5 - 1
    assert world.do("list_public_gateways")["public_gateways"] == []
    assert world.refusal("delete_subnet", id=subnet["id"]) == (409, "subnet_not_empty")
    assert world.refusal("delete_virtual_network_interfaces", id=interface["id"])[0] == 409


# --- troubles ---


@pytest.mark.parametrize("trouble", [Trouble.stockout, Trouble.accepted_then_failed])
def test_no_room_shows_after_acceptance_and_the_failed_machine_keeps_name_disk_and_quota(
    world: World, trouble: Trouble
) -> None:
    world.trouble(trouble)
    made = world.create(profile={"name": "mx2-128x1024"})
    assert made["status"] == "pending"
    world.clock.sleep(SETTLED)

    failed = world.do("get_instance", id=made["id"])
    assert (failed["status"], failed["status_reasons"][0]["code"]) == ("failed", "cannot_start_capacity")
    assert world.machines.user_data == {}
    assert world.refusal("create_instance", instance_prototype=world.body()) == (400, "validation_unique_failed")
    other = world.body("other", profile={"name": "mx2-128x1024"})
    assert world.refusal("create_instance", instance_prototype=other) == (400, "over_quota")
    assert len(world.double.inventory().disks) == 1

    world.do("delete_instance", id=made["id"])
    world.clock.sleep(SETTLED)
    assert world.double.inventory().disks == []
    world.running(profile={"name": "mx2-128x1024"})


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (Trouble.quota, 400, "over_quota"),
        (Trouble.not_offered, 400, "bad_field"),
        (Trouble.permission, 403, "not_authorized"),
        (Trouble.billing, 403, "account_disabled"),
        (Trouble.throttle, 429, "rate_limit_exceeded"),
        (Trouble.config, 400, "bad_field"),
        (Trouble.unavailable, 503, "backend_service_unavailable"),
        (Trouble.unknown, 422, "flux_capacitor_drained"),
    ],
)
def test_refusals(world: World, trouble: Trouble, status: int, code: str) -> None:
    body = world.body()
    world.trouble(trouble, "create_instance")

    refused, error = world.refused("create_instance", instance_prototype=body)

    assert (refused.status_code, error["code"]) == (status, code)
    assert world.double.inventory().instances == {}
    assert refused.http_response.headers.get("Retry-After") == ("1" if trouble is Trouble.throttle else None)
    assert world.do("create_instance", instance_prototype=body)["name"] == "one"


@pytest.mark.parametrize("trouble", [Trouble.reply_lost, Trouble.request_lost])
def test_a_connection_is_cut(world: World, trouble: Trouble) -> None:
    body = world.body()
    world.trouble(trouble, "create_instance")

    with pytest.raises(requests.exceptions.ConnectionError):
        world.api.create_instance(body)

    assert len(world.double.inventory().instances) == (1 if trouble is Trouble.reply_lost else 0)
    assert world.script.calls[-1].outcome == "cut"


def test_other_calls_can_be_in_trouble_too(world: World) -> None:
    made = world.running()
    world.trouble(Trouble.reply_lost, "delete_instance", zone="us-south-1")
    world.trouble(Trouble.quota, "create_floating_ip")
    world.trouble(Trouble.permission, "list_volumes")
    world.trouble(Trouble.unavailable, "request_token")

    with pytest.raises(requests.exceptions.ConnectionError):
        world.api.delete_instance(id=made["id"])
    assert world.status(made) == "deleting"
    spare = {"zone": {"name": "us-south-1"}}
    assert world.refusal("create_floating_ip", floating_ip_prototype=spare) == (400, "over_quota")
    assert world.refusal("list_volumes") == (403, "not_authorized")
    with pytest.raises(ApiException) as caught:
        world.client().list_regions()
    assert caught.value.status_code == 503


def test_a_rule_is_for_its_type_zone_and_number_of_times(world: World) -> None:
    where = {"instance_type": "bx2-2x8", "zone": "us-south-2", "region": "us-south"}
    world.trouble(Trouble.quota, "create_instance", skip=1, times=1, **where)

    world.create("another-zone")
    world.create("another-type", zone="us-south-2", profile={"name": "bx2-4x16"})
    world.create("let-through", zone="us-south-2")
    refused = world.refusal("create_instance", instance_prototype=world.body("now", zone="us-south-2"))
    world.create("only-once", zone="us-south-2")

    assert refused == (400, "over_quota")


# --- networks, addresses, keys ---


def test_a_network_is_made_and_taken_down_from_the_inside_out(world: World) -> None:
    vpc = world.do("create_vpc", name="mine")
    own, zone = {"id": vpc["id"]}, {"name": "us-south-1"}
    wanted = {"name": "a", "vpc": own, "zone": zone, "total_ipv4_address_count": 256}
    subnet = world.do("create_subnet", subnet_prototype=wanted)
    other = world.do("create_subnet", subnet_prototype={**wanted, "name": "b"})
    assert subnet["ipv4_cidr_block"] != other["ipv4_cidr_block"]
    cidr = {"name": "c", "vpc": own, "zone": zone, "ipv4_cidr_block": subnet["ipv4_cidr_block"]}
    assert world.refusal("create_subnet", subnet_prototype=cidr) == (400, "subnet_conflict")
    gateway = world.do("create_public_gateway", vpc=own, zone=zone, name="out")
    world.do("set_subnet_public_gateway", id=subnet["id"], public_gateway_identity={"id": gateway["id"]})
    assert world.do("get_subnet_public_gateway", id=subnet["id"])["id"] == gateway["id"]
    left = world.double.inventory()
    assert (left.networks, len(left.addresses)) == ([vpc["id"]], 1)

    assert world.refusal("create_vpc", name="mine") == (400, "validation_unique_failed")
    assert world.refusal("create_subnet", subnet_prototype=wanted) == (400, "validation_unique_failed")
    assert world.refusal("create_public_gateway", vpc=own, zone=zone) == (400, "gateway_too_many")
    assert world.refusal("delete_vpc", id=vpc["id"]) == (409, "vpc_in_use")
    assert world.refusal("delete_public_gateway", id=gateway["id"]) == (409, "public_gateway_in_use")
    assert world.refusal("delete_floating_ip", id=gateway["floating_ip"]["id"]) == (409, "floating_ip_in_use")

    for one in (subnet, other):
        world.do("delete_subnet", id=one["id"])
    world.do("delete_public_gateway", id=gateway["id"])
    world.do("delete_vpc", id=vpc["id"])
    left = world.double.inventory()
    assert (left.networks, left.addresses, left.groups) == ([], [], [])
    assert world.refusal("get_vpc", id=vpc["id"]) == (404, "not_found")


def test_a_security_group_has_rules_and_members(world: World) -> None:
    (vpc,) = world.do("list_vpcs")["vpcs"]
    group = world.do("create_security_group", vpc={"id": vpc["id"]}, name="mine")
    rule = {
        "direction": "inbound",
        "protocol": "tcp",
        "port_min": 22,
        "port_max": 22,
        "remote": {"cidr_block": "192.0.2.1/32"},
    }
    made = world.do("create_security_group_rule", security_group_id=group["id"], security_group_rule_prototype=rule)
    assert world.do("list_security_group_rules", security_group_id=group["id"])["rules"] == [made]
    wrong = {**rule, "port_max": None}
    refused = world.refusal(
        "create_security_group_rule", security_group_id=group["id"], security_group_rule_prototype=wrong
    )
    assert refused == (400, "security_group_port_range_both_or_neither")
    body = world.body()
    body["primary_network_attachment"]["virtual_network_interface"]["security_groups"] = [{"id": group["id"]}]
    instance = world.do("create_instance", instance_prototype=body)
    assert world.refusal("delete_security_group", id=group["id"]) == (409, "security_group_interfaces_attached")
    default = vpc["default_security_group"]["id"]
    assert world.refusal("delete_security_group", id=default) == (409, "security_group_vpc_default")
    assert world.double.inventory().groups == [group["id"]]
    (member,) = world.do("get_security_group", id=group["id"])["targets"]
    assert (member["id"], member["resource_type"]) == (interface_of(instance), "virtual_network_interface")
    assert {one["name"] for one in world.do("list_security_groups", vpc_id=vpc["id"])["security_groups"]} == {
        "lab-default",
        "lab-ssh",
        "mine",
    }

    world.clock.sleep(SETTLED)
    world.do("delete_instance", id=instance["id"])
    world.clock.sleep(SETTLED)
    world.do("delete_security_group_rule", security_group_id=group["id"], id=made["id"])
    world.do("delete_security_group", id=group["id"])
    assert world.double.inventory().groups == []


def test_a_floating_ip_is_bound_to_one_thing_at_a_time(world: World) -> None:
    one, other = world.running(), world.running("other")
    first = world.do("create_floating_ip", floating_ip_prototype={"name": "a", "zone": {"name": "us-south-1"}})
    second = world.do("create_floating_ip", floating_ip_prototype={"name": "b", "zone": {"name": "us-south-1"}})
    far = world.do("create_floating_ip", floating_ip_prototype={"name": "c", "zone": {"name": "us-south-2"}})
    assert first["address"] != second["address"]

    def bind(address: dict[str, Any], instance: dict[str, Any]) -> dict[str, Any]:
        return {"virtual_network_interface_id": interface_of(instance), "id": address["id"]}

    assert world.do("add_network_interface_floating_ip", **bind(first, one))["address"] == "127.0.0.1"
    assert world.refusal("add_network_interface_floating_ip", **bind(second, one)) == (409, "target_in_use")
    assert world.refusal("add_network_interface_floating_ip", **bind(first, other)) == (409, "floating_ip_in_use")
    assert world.refusal("add_network_interface_floating_ip", **bind(far, other)) == (400, "invalid_zone")
    taken = {"name": "a", "target": {"id": interface_of(other)}}
    assert world.refusal("create_floating_ip", floating_ip_prototype=taken) == (400, "validation_unique_failed")

    patch = {"target": {"id": interface_of(other)}}
    assert world.do("update_floating_ip", id=second["id"], floating_ip_patch=patch)["target"]["name"] == "other-vni"
    world.do("remove_network_interface_floating_ip", **bind(first, one))
    assert "target" not in world.do("get_floating_ip", id=first["id"])
    for address in (first, second, far):
        world.do("delete_floating_ip", id=address["id"])
    assert world.double.inventory().addresses == []
    assert world.status(other) == "running"


def test_keys(world: World) -> None:
    text = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ somebody"
    key = world.do("create_key", public_key=text, name="k", type="ed25519")
    assert world.refusal("create_key", public_key=text, name="l", type="ed25519") == (400, "key_content_exists")
    assert world.refusal("create_key", public_key="nonsense", name="l") == (400, "key_parse_failure")

    made = world.create(keys=[{"id": key["id"]}])
    (known,) = world.do("get_instance_initialization", id=made["id"])["keys"]

    assert known["id"] == key["id"]
    assert world.double.inventory().keys == [key["id"]]
    world.do("delete_key", id=key["id"])
    assert world.do("list_keys")["keys"] == []


def test_regions_zones_and_images(world: World) -> None:
    assert "us-south" in {region["name"] for region in world.do("list_regions")["regions"]}
    assert world.do("get_region", name="eu-de")["status"] == "available"
    zones = world.do("list_region_zones", region_name="eu-de")["zones"]
    assert [zone["name"] for zone in zones] == ["eu-de-1", "eu-de-2", "eu-de-3"]
    assert world.refusal("list_region_zones", region_name="mars") == (404, "not_found")
    images = world.do("list_images", visibility="public")["images"]
    assert world.do("get_image", id=images[0]["id"]) == images[0]
    assert {"available", "deprecated"} == {image["status"] for image in images}
