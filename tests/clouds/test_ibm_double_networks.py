"""Networks, addresses and keys in the double of IBM Cloud VPC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clouds.ibm_worlds import SETTLED, World, interface_of, opened


@pytest.fixture
def world() -> Iterator[World]:
    with opened() as made:
        yield made


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
