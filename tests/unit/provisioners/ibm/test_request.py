"""The bodies of requests: what the SDK's own models take, the same for the same spec, and all that a machine needs."""

from __future__ import annotations

import dataclasses

import pytest
from ibm_vpc import vpc_v1

from vmrun.core.clouds import CloudError, Fault
from vmrun.provisioners.ibm import request
from vmrun.provisioners.ibm.request import Place

from .bodies import OTHER, OWNER, VM, offer, spec

PLACE = Place(vpc="vpc", subnet="sub", security_group="sg", image="img")
GB = 10**9


def body(**changes: object) -> dict[str, object]:
    return request.instance(spec(**changes), PLACE, disk=100 * GB)


def test_the_sdk_reads_the_prototype_without_loss() -> None:
    made = request.instance(
        spec(), dataclasses.replace(PLACE, resource_group="rg", trusted_profile="Profile-1"), disk=100 * GB
    )
    prototype = vpc_v1.InstancePrototypeInstanceByImageInstanceByImageInstanceByNetworkAttachment

    assert prototype.from_dict(made).to_dict() == made
    boot = made["boot_volume_attachment"]
    assert vpc_v1.VolumeAttachmentPrototypeInstanceByImageContext.from_dict(boot).to_dict() == boot
    policy = made["availability_policy"]
    assert vpc_v1.InstanceAvailabilityPolicyPrototype.from_dict(policy).to_dict() == policy


def test_all_that_is_made_with_an_instance_goes_with_it() -> None:
    made = body()

    assert made["boot_volume_attachment"]["delete_volume_on_instance_delete"] is True
    assert made["primary_network_attachment"]["virtual_network_interface"]["auto_delete"] is True
    assert made["availability_policy"] == {"host_failure": "stop"}
    assert "keys" not in made


def test_the_volume_bears_name_and_tags_of_the_machine() -> None:
    volume = body()["boot_volume_attachment"]["volume"]

    assert volume["name"] == spec().name
    assert volume["user_tags"] == [f"vmrun-owner:{OWNER}", f"vmrun-vm:{VM}"]


def test_metadata_is_one_hop_away_and_the_trusted_profile_is_linked() -> None:
    made = request.instance(spec(), dataclasses.replace(PLACE, trusted_profile="Profile-1"), disk=GB)

    assert made["metadata_service"] == {"enabled": True, "protocol": "http", "response_hop_limit": 1}
    assert made["default_trusted_profile"] == {"target": {"id": "Profile-1"}, "auto_link": True}
    assert "default_trusted_profile" not in body()


def test_a_spot_machine_is_deleted_when_it_is_taken_back() -> None:
    made = body(offer=offer(spot=True))

    assert made["availability"] == {"class": "spot"}
    assert made["availability_policy"]["preemption"] == "delete"
    assert "availability" not in body()


@pytest.mark.parametrize(
    ("asked", "capacity", "profile"),
    [
        (0, 100, "general-purpose"),
        (250 * GB, 250, "general-purpose"),
        (250 * GB + 1, 251, "sdp"),
        (1, 10, "general-purpose"),
    ],
)
def test_a_larger_disk_takes_the_newer_storage(asked: int, capacity: int, profile: str) -> None:
    volume = body(disk=asked)["boot_volume_attachment"]["volume"]

    assert (volume["capacity"], volume["profile"]) == (capacity, {"name": profile})


def test_the_mark_tells_the_deadline_and_differs_with_the_user_data() -> None:
    mark = request.mark(spec())

    assert request.deadline_of(mark) == "1800000000"
    assert mark == request.mark(spec())
    assert mark != request.mark(spec(user_data="#cloud-config\n{ }\n"))
    assert len(mark) <= 63


@pytest.mark.parametrize(
    "mark", ["", "boot", "vmrun-until-soon-" + "0" * 20, "vmrun-until-1-xyz", "x-vmrun-until-1-" + "0" * 20]
)
def test_other_names_are_no_marks(mark: str) -> None:
    assert request.deadline_of(mark) is None


def test_names_have_room() -> None:
    assert len(spec().name) <= 63


@pytest.mark.parametrize("name", ["vm", f"vmrun-{OTHER}-{VM}", f"vmrun-{OWNER}-{OTHER}"])
def test_a_name_that_does_not_tell_owner_and_machine_is_refused_before_anything_is_made(name: str) -> None:
    with pytest.raises(CloudError) as caught:
        request.check_name(spec(name=name))

    assert caught.value.fault is Fault.config
    request.check_name(spec())


def test_an_address_is_reserved_and_bound_in_one_call() -> None:
    made = request.floating_ip("vmrun-a-b", "vni-1", "rg")

    assert made == {"name": "vmrun-a-b", "target": {"id": "vni-1"}, "resource_group": {"id": "rg"}}
    assert vpc_v1.FloatingIPPrototypeFloatingIPByTarget.from_dict(made).to_dict() == made
    assert "resource_group" not in request.floating_ip("vmrun-a-b", "vni-1", "")
