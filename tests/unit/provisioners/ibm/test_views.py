"""What the API shows, in vmrun's words."""

from __future__ import annotations

import random

import pytest

from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clouds import Address, Fault, InstanceState, instance_name
from vmrun.provisioners.ibm import places, views
from vmrun.store.deployment import ensure_deployment
from vmrun.store.memory import MemoryStore

from .bodies import OWNER, VM, floating_ip, instance


def test_an_instance_is_told_whole() -> None:
    seen = views.instance("us-south", instance(), "203.0.113.9")

    assert (seen.id, seen.name, seen.on) == ("us-south/0717_made", instance_name(OWNER, VM), "ibm")
    assert (seen.region, seen.zone, seen.instance_type) == ("us-south", "us-south-2", "mx2-128x1024")
    assert seen.address == Address("203.0.113.9")
    assert seen.tags == {"vmrun-owner": OWNER, "vmrun-vm": VM, "vmrun-deadline": "1800000000"}
    assert seen.created_at == 1795701600.0
    assert (seen.reason, seen.fault) == ("", None)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("pending", InstanceState.pending),
        ("starting", InstanceState.pending),
        ("restarting", InstanceState.pending),
        ("running", InstanceState.running),
        ("stopping", InstanceState.stopped),
        ("stopped", InstanceState.stopped),
        ("failed", InstanceState.stopped),
        ("deleting", InstanceState.stopping),
        ("a-new-word", InstanceState.pending),
    ],
)
def test_every_status_is_a_state(status: str, state: InstanceState) -> None:
    assert views.instance("us-south", instance(status=status), "").state is state


def test_an_instance_that_cannot_start_is_not_waited_for() -> None:
    reasons = [{"code": "cannot_start_capacity", "message": "no room"}]
    seen = views.instance("us-south", instance(status="pending", status_reasons=reasons), "")

    assert (seen.state, seen.fault) == (InstanceState.stopped, Fault.stockout)
    assert seen.reason == "no room (cannot_start_capacity)"
    assert seen.address is None


def test_ownership_needs_the_name_and_the_mark() -> None:
    marked = instance()["boot_volume_attachment"]

    assert views.is_ours(instance())
    assert not views.is_ours(instance(boot_volume_attachment={**marked, "name": "boot"}))
    assert not views.is_ours(instance(name="somebody-elses"))
    assert views.owner_and_vm(f"vmrun-{OWNER}") is None
    assert views.owner_and_vm(f"vmrun-{OWNER}-{VM}-2") is None


def test_the_ids_of_deployments_as_they_really_are_name_machines_and_networks() -> None:
    store, clock = MemoryStore(), ManualClock()
    owner = ensure_deployment(store, b"k" * 32, clock, random.Random(1)).id
    name = instance_name(owner, VM)

    assert views.owner_and_vm(name) == (owner, VM)
    assert views.is_ours(instance(name=name))
    vpcs = [{"id": "id", "name": f"vmrun-{owner}"}]
    assert places.choose_vpc(vpcs, "", owner, "us-south") == vpcs[0]


def test_the_public_address_is_the_one_bound_to_the_interface() -> None:
    other = floating_ip(target=None)
    bound = floating_ip()

    assert views.interface(instance()) == "vni-1"
    assert views.public_address([other, bound], "vni-1") == "203.0.113.9"
    assert views.public_address([other, bound], "vni-2") == ""
    assert views.public_address([other], "") == ""


def test_an_interface_without_an_address_has_none() -> None:
    attachment = instance()["primary_network_attachment"]
    bare = {**attachment, "primary_ip": {**attachment["primary_ip"], "address": "0.0.0.0"}}
    card = {**instance()["primary_network_interface"], "primary_ip": bare["primary_ip"]}

    assert views.private_address(instance()) == "10.240.0.7"
    assert views.private_address(instance(primary_network_attachment=bare, primary_network_interface=card)) == ""


def test_a_leftover_is_found_again_by_its_id() -> None:
    left = views.leftover("floating-ip", "us-south", floating_ip())

    assert (left.kind, left.id, left.name, left.region) == (
        "floating-ip",
        "us-south/fip-1",
        instance_name(OWNER, VM),
        "us-south",
    )
    assert left.created_at == 1795701605.0


@pytest.mark.parametrize("date", [None, "", "yesterday", 7])
def test_what_is_no_date_is_no_time(date: object) -> None:
    assert views.seconds(date) == 0.0
