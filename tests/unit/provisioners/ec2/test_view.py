"""From what EC2 shows to vmrun's words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from vmrun.core.clouds import Fault, InstanceState
from vmrun.provisioners.ec2.networks import choose_subnets
from vmrun.provisioners.ec2.view import instance, parse_id

RAW: dict[str, Any] = {
    "InstanceId": "i-00000001",
    "InstanceType": "r6a.32xlarge",
    "State": {"Name": "running"},
    "Placement": {"AvailabilityZone": "us-east-1a"},
    "LaunchTime": datetime(2026, 5, 1, tzinfo=UTC),
    "PublicIpAddress": "198.51.100.7",
    "PrivateIpAddress": "10.0.0.7",
    "Tags": [{"Key": "Name", "Value": "vmrun-a-b"}, {"Key": "vmrun-owner", "Value": "a"}],
}


def test_a_running_machine_in_words() -> None:
    seen = instance(RAW, "us-east-1", public_ip=True)

    assert (seen.id, seen.name, seen.on) == ("us-east-1/i-00000001", "vmrun-a-b", "ec2")
    assert (seen.region, seen.zone, seen.instance_type) == ("us-east-1", "us-east-1a", "r6a.32xlarge")
    assert seen.created_at == datetime(2026, 5, 1, tzinfo=UTC).timestamp()
    assert seen.tags["vmrun-owner"] == "a"
    assert (seen.reason, seen.fault) == ("", None)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("pending", InstanceState.pending),
        ("running", InstanceState.running),
        ("stopping", InstanceState.stopped),
        ("stopped", InstanceState.stopped),
        ("shutting-down", InstanceState.stopping),
        ("terminated", InstanceState.gone),
    ],
)
def test_states(name: str, state: InstanceState) -> None:
    assert instance({**RAW, "State": {"Name": name}}, "us-east-1", public_ip=True).state is state


@pytest.mark.parametrize(
    ("state", "public", "wants_public", "host"),
    [
        ("running", "198.51.100.7", True, "198.51.100.7"),
        ("running", "198.51.100.7", False, "10.0.0.7"),
        ("running", None, True, "10.0.0.7"),
        ("pending", None, True, None),
        ("pending", None, False, "10.0.0.7"),
        ("stopped", "198.51.100.7", True, None),
        ("terminated", "198.51.100.7", True, None),
    ],
)
def test_where_ssh_answers(state: str, public: str | None, wants_public: bool, host: str | None) -> None:
    seen = instance({**RAW, "State": {"Name": state}, "PublicIpAddress": public}, "us-east-1", public_ip=wants_public)

    assert (seen.address.host if seen.address else None) == host


def test_a_machine_that_failed_after_it_was_accepted_says_why() -> None:
    raw = {
        **RAW,
        "State": {"Name": "terminated"},
        "StateReason": {"Code": "Server.InsufficientInstanceCapacity", "Message": "no room"},
    }
    seen = instance(raw, "us-east-1", public_ip=True)

    assert seen.state is InstanceState.gone
    assert seen.fault is Fault.stockout
    assert "no room" in seen.reason


def test_a_reason_of_old_is_not_told_of_a_machine_that_runs() -> None:
    seen = instance({**RAW, "StateReason": {"Code": "pending", "Message": "pending"}}, "us-east-1", public_ip=True)

    assert (seen.reason, seen.fault) == ("", None)


def test_what_identifiers_look_like() -> None:
    assert parse_id("us-east-1/i-0123456789abcdef0") == ("us-east-1", "i-0123456789abcdef0")
    assert parse_id("us-gov-west-1/i-01234567") == ("us-gov-west-1", "i-01234567")
    for other in ("", "i-01234567", "us-east-1/", "us-east-1/i-xyz", "../i-01234567", "us-east-1/i-01234567/x"):
        assert parse_id(other) is None


def subnet(id: str, zone: str, **more: Any) -> dict[str, Any]:
    return {"SubnetId": id, "AvailabilityZone": zone, "VpcId": "vpc-1", **more}


def test_one_subnet_for_each_zone_and_always_the_same() -> None:
    found = [
        subnet("subnet-3", "us-east-1a"),
        subnet("subnet-2", "us-east-1a", MapPublicIpOnLaunch=True),
        subnet("subnet-1", "us-east-1a", MapPublicIpOnLaunch=True),
        subnet("subnet-4", "us-east-1b", DefaultForAz=True),
        subnet("subnet-0", "us-east-1b"),
        subnet("subnet-9", "us-east-1-bos-1a"),
    ]

    for order in (found, found[::-1]):
        chosen = choose_subnets("us-east-1", order, (), public=True)
        assert {zone: one.id for zone, one in chosen.items()} == {"us-east-1a": "subnet-1", "us-east-1b": "subnet-4"}
    private = choose_subnets("us-east-1", found, (), public=False)
    assert private["us-east-1a"].id == "subnet-3"


def test_named_subnets_are_the_only_ones_and_their_order_counts() -> None:
    found = [
        subnet("subnet-1", "us-east-1a"),
        subnet("subnet-2", "us-east-1a", Tags=[{"Key": "Name", "Value": "jobs"}]),
        subnet("subnet-3", "us-east-1b"),
        subnet("subnet-9", "us-east-1-bos-1a"),
    ]

    chosen = choose_subnets("us-east-1", found, ("jobs", "subnet-1", "subnet-9"), public=True)

    assert {zone: one.id for zone, one in chosen.items()} == {"us-east-1a": "subnet-2", "us-east-1-bos-1a": "subnet-9"}
