"""`vmrun doctor` and `vmrun init` for IBM Cloud with the real SDK against the double."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from tests.clouds.trouble import Rule, Trouble
from tests.suites.provisioner import poll_until
from tests.unit.provisioners.ibm.bodies import OTHER, OWNER, offer
from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clouds import CloudError, Fault, Need
from vmrun.core.estates import Finding, Grade
from vmrun.core.secret import Secret
from vmrun.provisioners.ibm import policy
from vmrun.provisioners.ibm.config import IbmConfig
from vmrun.provisioners.ibm.foundation import ssh_from, ssh_sources

from .world import World

NETWORK = f"vmrun-{OWNER}"
BIG = Need(cpus=128, memory=10**12)
#: As `vmrun init ibm` finds an account: nothing of the configuration is named.
BARE = {"vpc": "", "security_group": ""}


def findings(world: World, need: Need = BIG, **changes: object) -> dict[str, Finding]:
    return {each.what: each for each in world.estate(**changes).check(need)}


# --- doctor ---


def test_an_account_that_will_do_is_found_good(world: World) -> None:
    found = findings(world, ssh_from=("0.0.0.0/0",), resource_group="Default")

    good = [what for what, each in found.items() if each.grade is Grade.good]
    assert good == [
        "credentials",
        "resource group",
        "permission to list in us-south",
        "image in us-south",
        "network in us-south",
        "SSH in us-south",
        "quota of vCPU in us-south",
        "quota of floating IPs in us-south",
    ]
    assert found["trusted profile"].grade is Grade.warning
    assert "trusted_profile" in found["trusted profile"].hint
    assert found["permission to create"].grade is Grade.unclear
    assert world.left() == []


def test_a_wrong_key_is_the_only_finding(world: World) -> None:
    (one,) = findings(world, api_key=Secret("wrong")).values()

    assert (one.what, one.grade) == ("credentials", Grade.bad)
    assert one.hint


def test_missing_rights_are_named_by_region(world: World) -> None:
    world.script(Rule(Trouble.permission, "list_instances", times=-1))

    found = findings(world)

    assert found["permission to list in us-south"].grade is Grade.bad
    assert "network in us-south" not in found


def test_what_the_network_lacks_is_bad_and_says_how_it_is_made(world: World) -> None:
    for changes in (BARE, {"security_group": ""}, {"subnets": ("none",)}):
        network = findings(world, **changes)["network in us-south"]
        assert network.grade is Grade.bad
        assert "vmrun init ibm" in network.hint


def test_ssh_that_lets_others_in_is_a_warning(world: World) -> None:
    list(world.estate(**BARE).establish(OWNER))

    ssh = findings(world, **BARE, ssh_from=("203.0.113.5/32",))["SSH in us-south"]

    assert ssh.grade is Grade.warning
    assert "198.51.100.7/32" in ssh.message
    assert "203.0.113.5/32" in ssh.message
    assert findings(world, **BARE)["SSH in us-south"].grade is Grade.good
    assert findings(world, **BARE, ssh_from=("nonsense",))["SSH in us-south"].grade is Grade.bad


def test_a_quota_that_may_not_do_is_unclear_because_ibm_tells_nobody(world: World) -> None:
    world.provisioner.create(replace(world.spec(OWNER), offer=offer()))

    quota = findings(world)["quota of vCPU in us-south"]

    assert quota.grade is Grade.unclear
    assert "128 of 200 vCPU are in use, 128 are asked for" in quota.message
    assert findings(world, Need(cpus=16))["quota of vCPU in us-south"].grade is Grade.good


def test_a_trusted_profile_that_is_not_there_is_bad(world: World) -> None:
    assert findings(world, trusted_profile="Profile-none")["trusted profile"].grade is Grade.bad


def test_a_cloud_that_does_not_answer_is_unclear(world: World) -> None:
    world.script(Rule(Trouble.unavailable, "list_images", times=-1))

    assert findings(world)["image in us-south"].grade is Grade.unclear


# --- init ---


def test_a_network_is_made_once_and_machines_use_it(world: World) -> None:
    estate = world.estate(**BARE)
    told = list(estate.establish(OWNER))

    assert [text.rpartition(": ")[2].partition(",")[0] for text in told] == ["made"] * 5
    assert "SSH from 198.51.100.7/32" in told[1]
    world.script()
    again = list(world.estate(**BARE).establish(OWNER))
    assert [text.rpartition(": ")[2] for text in again] == ["there"] * 5
    assert not [call for call in world.double.script.calls if call.operation.startswith("create_")]

    world.changes.update(BARE)
    made = world.provisioner.create(world.spec(OWNER))
    assert made.address is not None
    assert {each.zone for each in world.provisioner.offers(Need(cpus=128))} == {f"us-south-{n}" for n in (1, 2, 3)}


def test_a_new_address_of_the_caller_is_let_in_too(world: World) -> None:
    list(world.estate(**BARE).establish(OWNER))

    told = list(world.estate(**BARE, ssh_from=("203.0.113.5/32",)).establish(OWNER))

    assert "SSH from 203.0.113.5/32 added" in told[1]
    both = findings(world, **BARE, ssh_from=("203.0.113.5/32", "198.51.100.7/32"))
    assert both["SSH in us-south"].grade is Grade.good


def test_dismantling_leaves_nothing_and_may_be_repeated(world: World) -> None:
    before = world.double.inventory()
    list(world.estate(**BARE).establish(OWNER))
    list(world.estate(**BARE).establish(OTHER))

    told = list(world.estate(**BARE).dismantle(OWNER))

    assert len(told) == 5
    assert list(world.estate(**BARE).dismantle(OWNER)) == []
    assert len(world.double.inventory().networks) == 1
    assert len(list(world.estate(**BARE).dismantle(OTHER))) == 5
    assert world.double.inventory() == before


def test_machines_without_public_addresses_get_a_way_out(world: World) -> None:
    bare = {**BARE, "public_ip": False}
    before = world.double.inventory()

    list(world.estate(**bare).establish(OWNER))

    assert len(world.double.inventory().addresses) == 3
    assert len(list(world.estate(**bare).dismantle(OWNER))) == 8
    assert world.double.inventory() == before


def test_a_network_in_use_is_not_dismantled_and_that_is_said(world: World) -> None:
    list(world.estate(**BARE).establish(OWNER))
    world.changes.update(BARE)
    running = world.running(world.spec(OWNER))
    estate = world.estate(ManualClock(), **BARE)

    with pytest.raises(CloudError) as caught:
        list(estate.dismantle(OWNER))

    assert caught.value.fault is Fault.unavailable
    assert "used by something" in caught.value.hint
    assert world.provisioner.get(running.id).address == running.address


def test_in_a_vpc_of_the_users_only_the_group_is_made(world: World) -> None:
    told = list(world.estate(security_group="").establish(OWNER))

    assert [text.partition(" in ")[0] for text in told] == ["VPC lab", f"security group {NETWORK}", "subnets"]
    world.changes["security_group"] = ""
    assert world.provisioner.create(world.spec(OWNER)).address is not None
    for one in world.provisioner.instances(OWNER):
        assert poll_until(lambda one=one: world.provisioner.get(one.id).state.value == "running", 20)
        world.provisioner.delete(one.id)
    assert world.all_gone()
    assert len(list(world.estate(security_group="").dismantle(OWNER))) == 1


def test_a_vpc_that_is_named_and_not_there_is_an_error(world: World) -> None:
    with pytest.raises(CloudError) as caught:
        list(world.estate(vpc="none").establish(OWNER))

    assert caught.value.fault is Fault.config


def test_rules_are_read_in_every_form() -> None:
    rules = [
        ssh_from("198.51.100.7/32"),
        {"direction": "inbound", "protocol": "any", "remote": {"cidr_block": "10.0.0.0/8"}},
        {
            "direction": "inbound",
            "protocol": "tcp",
            "port_min": 1,
            "port_max": 1000,
            "remote": {"address": "192.0.2.1"},
        },
        {"direction": "inbound", "protocol": "tcp", "remote": {"name": "bastion"}},
        {
            "direction": "inbound",
            "protocol": "tcp",
            "port_min": 80,
            "port_max": 80,
            "remote": {"cidr_block": "0.0.0.0/0"},
        },
        {"direction": "inbound", "protocol": "udp", "remote": {"cidr_block": "0.0.0.0/0"}},
        {"direction": "outbound", "protocol": "any", "remote": {"cidr_block": "0.0.0.0/0"}},
    ]

    assert ssh_sources(rules) == {"198.51.100.7/32", "10.0.0.0/8", "192.0.2.1/32", "bastion"}


# --- policy ---


def test_the_policy_is_a_script_that_a_shell_can_read() -> None:
    text = policy.commands(IbmConfig(resource_group="it's mine", trusted_profile="Profile-7"))
    commands = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]

    words = [shlex.split(line) for line in commands]
    assert all(line[0] == "ibmcloud" or "=" in line[0] for line in words)
    assert ["GROUP=it's mine"] in words
    assert any("resourceType=profile,resource=Profile-7" in line for line in words)
    rights = [line for line in words if "service-policy-create" in line or "trusted-profile-policy-create" in line]
    broad = [line for line in rights if "--service-name" in line and "--attributes" not in line]
    assert broad == []
    assert "Administrator" not in text
    assert "Manager" not in text


# --- prices ---


def test_types_are_the_apis_and_prices_the_catalogues(world: World) -> None:
    rows = {row.instance_type: row for row in world.estate().prices()}

    assert len(rows) > 100
    assert rows["mx2-128x1024"].usd_per_hour == pytest.approx(128 * 0.0356 + 1024 * 0.00366, rel=1e-3)
    assert rows["mx3d-128x1280"].usd_per_hour == pytest.approx(128 * 0.0356 + 1280 * 0.00366, rel=1e-3)
    assert rows["mx2-128x1024"].priced_at.startswith("20")
    assert (rows["mx2-128x1024"].vcpus, rows["mx2-128x1024"].cores) == (128, 64)
    plans = [call for call in world.double.script.calls if "pricing" in call.operation]
    entries = [call for call in world.double.script.calls if "catalog_entry" in call.operation]
    assert len(plans) < len(entries) == len(rows)
