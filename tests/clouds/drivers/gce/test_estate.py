"""The project around the machines, against the double: doctor, init, and the price list."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.gce import GceDouble, open_double
from tests.clouds.machines import PaperMachines
from tests.clouds.trouble import Rule, Script, Trouble
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import CloudError, Fault, Market, Need
from vmrun.core.errors import ConfigError
from vmrun.core.estates import Finding, Grade
from vmrun.provisioners.gce import config as configuration
from vmrun.provisioners.gce.api import GoogleApi
from vmrun.provisioners.gce.estate import GceEstate

DEPLOYMENT = "01ksr492004tff59tdwh9edd1r"
RULE, NETWORK = f"vmrun-{DEPLOYMENT}-ssh", f"vmrun-{DEPLOYMENT}"
NEED = Need(instance_type="n2-standard-4")


class World:
    def __init__(self, double: GceDouble, tmp_path: Path) -> None:
        self.double = double
        self.tmp_path = tmp_path
        self.address = b"93.184.216.7"

    def estate(self, **settings: Any) -> GceEstate:
        config = configuration.read(self.double.settings() | settings)
        api = GoogleApi(config, SystemClock(), random.Random(3))
        return GceEstate(api, config, SystemClock(), opener=lambda _: self.address)

    def findings(self, need: Need = NEED, **settings: Any) -> dict[str, Finding]:
        found = list(self.estate(**settings).check(need))
        assert len({each.what for each in found}) == len(found), "one finding each"
        assert all(each.hint for each in found if each.grade is Grade.bad)
        return {each.what: each for each in found}

    def read(self, method: str, **parameters: Any) -> dict[str, Any]:
        config = configuration.read(self.double.settings())
        return GoogleApi(config, SystemClock(), random.Random(3)).read(method, **parameters)

    def write(self, method: str, **parameters: Any) -> dict[str, Any]:
        config = configuration.read(self.double.settings())
        return GoogleApi(config, SystemClock(), random.Random(3)).write(method, **parameters)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    double = open_double(PaperMachines(), "127.0.0.1", Script(), pace=0.02)
    yield World(double, tmp_path)
    double.close()


# --- doctor ---


def test_a_project_that_will_do_has_nothing_bad(world: World) -> None:
    list(world.estate().establish(DEPLOYMENT))
    world.double.script.clear()

    found = world.findings()

    assert {each.grade for each in found.values()} <= {Grade.good, Grade.warning}
    assert found["credentials"].grade is Grade.good
    assert found["permission compute.instances.create"].grade is Grade.good
    assert found["quota us-central1 N2_CPUS"].grade is Grade.good
    assert found["image"].message.startswith("ubuntu-2404")
    assert found["network"].grade is Grade.good
    # The rule that every new project has.
    assert (found["ssh"].grade, "default-allow-ssh" in found["ssh"].message) == (Grade.warning, True)
    verbs = {call.operation.rpartition(".")[2] for call in world.double.script.calls}
    assert verbs <= {"get", "list", "testIamPermissions", "getFromFamily"}, "looking makes nothing"


def test_wrong_credentials_are_the_only_finding(world: World) -> None:
    key = world.tmp_path / "key.json"
    key.write_text("{}")

    found = list(world.estate(credentials_file=str(key), project="").check(NEED))

    assert [(each.what, each.grade) for each in found] == [("credentials", Grade.bad)]
    assert "gce.credentials_file" in found[0].hint


def test_each_missing_permission_is_named(world: World) -> None:
    world.double.deny("compute.instances.create", "compute.addresses.list", "compute.projects.get")

    found = world.findings()

    assert found["permission compute.instances.create"].grade is Grade.bad
    assert "compute.instances.create" in found["permission compute.instances.create"].hint
    assert found["permission compute.addresses.list"].grade is Grade.warning
    assert found["permission compute.instances.delete"].grade is Grade.good
    assert found["permission (project)"].grade is Grade.bad, "and the rest is looked at all the same"
    assert "image" in found


def test_an_account_for_machines_asks_for_more(world: World) -> None:
    world.double.deny("iam.serviceAccounts.actAs")

    found = world.findings(service_account="vm@acme.iam.gserviceaccount.com")

    assert found["permission iam.serviceAccounts.actAs"].grade is Grade.unclear
    assert "roles/iam.serviceAccountUser" in found["permission iam.serviceAccounts.actAs"].hint
    assert found["permission compute.instances.setServiceAccount"].grade is Grade.good


def test_quota_without_room_names_itself_and_the_page(world: World) -> None:
    world.double.limit("N2_CPUS", 3, "us-central1")
    world.double.limit("CPUS_ALL_REGIONS", 2)

    found = world.findings()

    short = found["quota us-central1 N2_CPUS"]
    assert (short.grade, short.message) == (Grade.bad, "3 of 3 are free, and 4 are needed")
    assert "N2_CPUS in us-central1" in short.hint
    assert "iam-admin/quotas?project=double-project" in short.hint
    assert found["quota CPUS_ALL_REGIONS"].grade is Grade.bad
    assert found["quota us-central1 IN_USE_ADDRESSES"].grade is Grade.good


def test_a_quota_that_the_api_does_not_tell_is_unclear(world: World) -> None:
    found = world.findings(Need(instance_type="c4-highmem-144"))

    newer = found["quota us-central1 CPUS_PER_VM_FAMILY/C4"]
    assert newer.grade is Grade.unclear
    assert "CPUS_PER_VM_FAMILY of family C4" in newer.hint


def test_spot_machines_without_a_quota_of_their_own_count_as_the_others(world: World) -> None:
    need = replace(NEED, market=Market.spot)
    assert "quota us-central1 N2_CPUS" in world.findings(need)

    world.double.limit("PREEMPTIBLE_CPUS", 3, "us-central1")
    found = world.findings(need)

    assert found["quota us-central1 PREEMPTIBLE_CPUS"].grade is Grade.bad
    assert "quota us-central1 N2_CPUS" not in found


def test_what_no_region_sells_is_said(world: World) -> None:
    assert world.findings(Need(cpus=100_000))["quota us-central1"].grade is Grade.warning


@pytest.mark.parametrize(
    ("image", "grade"),
    [
        ("projects/debian-cloud/global/images/family/debian-12", Grade.good),
        ("projects/debian-cloud/global/images/debian-12-bookworm-v20261111", Grade.good),
        ("projects/debian-cloud/global/images/family/debian-99", Grade.bad),
    ],
)
def test_the_image_must_be_there(world: World, image: str, grade: Grade) -> None:
    assert world.findings(image=image)["image"].grade is grade


def test_a_network_that_is_not_there_is_bad(world: World) -> None:
    assert world.findings(network="nowhere")["network"].grade is Grade.bad
    assert world.findings(subnetwork="nowhere")["network"].grade is Grade.bad
    assert world.findings(network="default", subnetwork="default")["network"].grade is Grade.good


def test_ssh_is_looked_at_from_where_it_must_come(world: World) -> None:
    world.write("compute.firewalls.delete", firewall="default-allow-ssh")
    shut = world.findings()["ssh"]
    assert (shut.grade, "93.184.216.7/32" in shut.message) == (Grade.bad, True)
    assert "vmrun init gce" in shut.hint

    list(world.estate().establish(DEPLOYMENT))

    assert world.findings()["ssh"].grade is Grade.good
    world.address = b"93.184.216.8"
    assert world.findings()["ssh"].grade is Grade.bad
    world.address = b"not an address"
    assert world.findings()["ssh"].grade is Grade.unclear
    assert world.findings(ssh_from=("93.184.216.7/32",))["ssh"].grade is Grade.good


def test_os_login_of_the_project_is_warned_of(world: World) -> None:
    assert world.findings()["os login"].grade is Grade.good
    world.double.set_metadata("enable-oslogin", "TRUE")
    found = world.findings()["os login"]
    assert found.grade is Grade.warning
    assert "constraints/compute.requireOsLogin" in found.hint


def test_what_cannot_be_found_out_is_unclear_and_holds_up_nothing(world: World) -> None:
    for operation in ("compute.regions.get", "compute.images.getFromFamily", "compute.networks.get"):
        world.double.script.add(Rule(Trouble.unavailable, operation, times=-1))

    found = world.findings()

    for what in ("quota us-central1", "image", "network"):
        assert found[what].grade is Grade.unclear
    assert found["permission compute.instances.create"].grade is Grade.good


# --- init ---


def test_establish_opens_ssh_to_the_caller_alone_and_only_once(world: World) -> None:
    first = list(world.estate().establish(DEPLOYMENT))
    again = list(world.estate().establish(DEPLOYMENT))

    assert first == ["network default is there", f"firewall {RULE} made: SSH from 93.184.216.7/32"]
    assert again == ["network default is there", f"firewall {RULE} is there: SSH from 93.184.216.7/32"]
    made = world.read("compute.firewalls.get", firewall=RULE)
    assert made["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
    assert (made["sourceRanges"], made["targetTags"]) == (["93.184.216.7/32"], ["vmrun"])
    assert world.double.inventory().groups == [RULE]
    assert world.double.inventory().networks == []


def test_establish_follows_the_callers_new_address(world: World) -> None:
    list(world.estate().establish(DEPLOYMENT))
    world.address = b"93.184.216.99"

    assert list(world.estate().establish(DEPLOYMENT))[-1] == f"firewall {RULE} changed: SSH from 93.184.216.99/32"
    assert world.read("compute.firewalls.get", firewall=RULE)["sourceRanges"] == ["93.184.216.99/32"]


def test_networks_of_the_configuration_are_opened_instead(world: World) -> None:
    wide = ("203.0.113.0/24", "192.0.2.0/24")

    assert list(world.estate(ssh_from=wide).establish(DEPLOYMENT))[-1].endswith("192.0.2.0/24, 203.0.113.0/24")
    with pytest.raises(ConfigError):
        list(world.estate(ssh_from=("2001:db8::/64",)).establish(DEPLOYMENT))
    with pytest.raises(ConfigError):
        list(world.estate(ssh_from=("home",)).establish(DEPLOYMENT))


def test_where_there_is_no_default_network_one_is_made_and_removed(world: World) -> None:
    for rule in ("default-allow-icmp", "default-allow-internal", "default-allow-ssh"):
        world.write("compute.firewalls.delete", firewall=rule)
    world.write("compute.networks.delete", network="default")

    first, again = (list(world.estate().establish(DEPLOYMENT)) for _ in range(2))
    assert first == [f"network {NETWORK} made", f"firewall {RULE} made: SSH from 93.184.216.7/32"]
    assert again == [f"network {NETWORK} is there", f"firewall {RULE} is there: SSH from 93.184.216.7/32"]
    assert world.double.inventory().networks == [NETWORK]
    assert world.read("compute.firewalls.get", firewall=RULE)["network"].endswith(f"/{NETWORK}")

    done = list(world.estate().dismantle(DEPLOYMENT))
    again = list(world.estate().dismantle(DEPLOYMENT))

    assert done == [f"firewall {RULE} removed", f"network {NETWORK} removed"]
    assert again == [f"firewall {RULE} is not there", f"network {NETWORK} is not there"]
    assert (world.double.inventory().groups, world.double.inventory().networks) == ([], [])


def test_a_configured_network_is_never_made(world: World) -> None:
    with pytest.raises(CloudError) as caught:
        list(world.estate(network="nowhere").establish(DEPLOYMENT))
    assert caught.value.fault is Fault.config
    assert world.double.inventory().networks == []


def test_what_others_made_is_left_alone(world: World) -> None:
    list(world.estate().establish(DEPLOYMENT))

    list(world.estate().dismantle("0" * 26))

    assert world.double.inventory().groups == [RULE]


def test_a_missing_right_stops_init_and_is_named(world: World) -> None:
    world.double.deny("compute.firewalls.create")
    with pytest.raises(CloudError) as caught:
        list(world.estate().establish(DEPLOYMENT))
    assert caught.value.fault is Fault.permission
    assert "compute.firewalls.create" in caught.value.hint


# --- policy, prices ---


def test_the_role_is_enough_for_a_machines_whole_life(world: World) -> None:
    """Every permission that the double asked for in a life is in the role."""
    text = world.estate().policy()

    granted = [line[2:] for line in text.splitlines() if line.startswith("- ")]
    assert granted == sorted(granted)
    for needed in ("create", "delete", "get", "list", "setLabels", "setMetadata", "setTags"):
        assert f"compute.instances.{needed}" in granted
    for needed in ("compute.disks.create", "compute.subnetworks.use", "compute.subnetworks.useExternalIp"):
        assert needed in granted
    assert "gcloud iam roles create vmrun --project=double-project" in text
    assert "vmrunMachine" not in text


def test_the_role_follows_the_configuration(world: World) -> None:
    account = "vm@acme.iam.gserviceaccount.com"
    inside = world.estate(public_ip=False, service_account=account).policy()

    assert "useExternalIp" not in inside
    assert "compute.instances.setServiceAccount" in inside
    second = inside.partition("---\n")[2]
    assert second.splitlines()[-2:] == ["includedPermissions:", "- compute.instances.delete"]
    assert account in second
    assert 'startsWith("vmrun-")' in second


def test_prices_are_those_of_the_list_and_unknown_ones_are_none(world: World) -> None:
    rows = {row.instance_type: row for row in world.estate().prices()}

    n2 = rows["n2-standard-4"]
    assert (n2.vcpus, n2.cores, n2.memory_gib, n2.arch, n2.region) == (4, 2, 16.0, "x86_64", "us-central1")
    assert n2.usd_per_hour == pytest.approx(4 * 0.031611 + 16 * 0.004237)
    assert n2.spot_usd_per_hour is None
    c4 = rows["c4-highmem-144"]
    assert c4.usd_per_hour == pytest.approx(144 * 0.03465 + 1116 * 0.003938)
    assert c4.spot_usd_per_hour == pytest.approx(144 * 0.01386 + 1116 * 0.001575)
    assert len(c4.priced_at) == len("2026-11-26")
    assert (rows["t2d-standard-60"].usd_per_hour, rows["t2d-standard-60"].priced_at) == (None, "")
