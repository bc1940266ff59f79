"""The double of IBM Cloud VPC as its instances live, as the real SDK sees them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_vpc import VpcV1

from tests.clouds.ibm_worlds import SETTLED, World, interface_of, opened
from tests.clouds.machines import Power


@pytest.fixture
def world() -> Iterator[World]:
    with opened() as made:
        yield made


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
        thread.join()

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
