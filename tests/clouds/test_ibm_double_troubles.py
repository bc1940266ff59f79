"""The double of IBM Cloud VPC lists in pages, and fails, lags and forgets as the cloud does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from ibm_cloud_sdk_core import ApiException

from tests.clouds.ibm_worlds import SETTLED, World, interface_of, opened
from tests.clouds.trouble import Trouble


@pytest.fixture
def world() -> Iterator[World]:
    with opened() as made:
        yield made


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
