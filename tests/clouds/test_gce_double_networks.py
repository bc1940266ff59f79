"""Networks, subnetworks, firewall rules and addresses of the double of Compute Engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clouds.double import Inventory
from tests.clouds.gce_sdk import REGION, Cloud, refused


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    opened = Cloud()
    yield opened
    opened.close()


def network(cloud: Cloud, name: str = "mine", *, automatic: bool = True) -> Any:
    body = {"name": name, "autoCreateSubnetworks": automatic}
    return cloud.done(cloud.api().networks().insert(project=cloud.project, body=body).execute())


def subnetwork(cloud: Cloud, name: str, cidr: str) -> Any:
    body = {"name": name, "network": "global/networks/mine", "ipCidrRange": cidr}
    return cloud.done(cloud.api().subnetworks().insert(project=cloud.project, region=REGION, body=body).execute())


def rule(**changes: Any) -> dict[str, Any]:
    return {
        "name": "ssh",
        "network": "global/networks/default",
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
        "sourceRanges": ["198.51.100.7/32"],
        "targetTags": ["vmrun"],
        **changes,
    }


def test_a_project_begins_with_the_default_network(cloud: Cloud) -> None:
    found = cloud.api().networks().list(project=cloud.project).execute()["items"]
    assert [one["name"] for one in found] == ["default"]
    rules = cloud.api().firewalls().list(project=cloud.project, filter="name:default-allow-*").execute()["items"]
    assert len(rules) == 3
    assert cloud.double.inventory() == Inventory()


def test_a_network_in_auto_mode_has_a_subnetwork_in_every_region(cloud: Cloud) -> None:
    network(cloud)
    found = cloud.api().subnetworks().aggregatedList(project=cloud.project, filter="name=mine").execute()["items"]
    assert all("subnetworks" in held for held in found.values())
    made = cloud.made("vm-1", networkInterfaces=[{"network": "global/networks/mine"}])
    assert made["networkInterfaces"][0]["subnetwork"].endswith(f"regions/{REGION}/subnetworks/mine")
    assert cloud.double.inventory().networks == ["mine"]
    refused(lambda: network(cloud), 409, "alreadyExists")


def test_a_network_in_custom_mode_has_what_it_is_given(cloud: Cloud) -> None:
    network(cloud, automatic=False)
    words = "custom subnet mode"
    refused(
        lambda: cloud.insert("vm-1", networkInterfaces=[{"network": "global/networks/mine"}]), 400, "invalid", words
    )
    subnetwork(cloud, "sub", "10.0.0.0/24")
    refused(lambda: subnetwork(cloud, "other", "10.0.0.128/25"), 400, "invalid", "conflicts")
    refused(lambda: subnetwork(cloud, "other", "10.0.0.1/24"), 400, "invalid", "CIDR")
    refused(lambda: subnetwork(cloud, "sub", "10.1.0.0/24"), 409, "alreadyExists")
    made = cloud.made("vm-1", networkInterfaces=[{"subnetwork": f"regions/{REGION}/subnetworks/sub"}])
    assert made["networkInterfaces"][0]["network"].endswith("/networks/mine")
    both = [{"subnetwork": f"regions/{REGION}/subnetworks/sub", "network": "global/networks/default"}]
    refused(lambda: cloud.insert("vm-2", networkInterfaces=both), 400, "invalid", "another network")


def test_what_is_in_use_is_not_deleted(cloud: Cloud) -> None:
    network(cloud, automatic=False)
    subnetwork(cloud, "sub", "10.0.0.0/24")
    cloud.made("vm-1", networkInterfaces=[{"subnetwork": f"regions/{REGION}/subnetworks/sub"}])
    api, project = cloud.api(), cloud.project
    delete_network = api.networks().delete(project=project, network="mine")
    delete_subnetwork = api.subnetworks().delete(project=project, region=REGION, subnetwork="sub")

    refused(delete_network.execute, 400, "resourceInUseByAnotherResource", "subnetworks/sub")
    refused(delete_subnetwork.execute, 400, "resourceInUseByAnotherResource", "instances/vm-1")
    cloud.done(cloud.delete("vm-1"))
    cloud.done(delete_subnetwork.execute())
    cloud.done(delete_network.execute())

    assert cloud.double.inventory() == Inventory()


def test_firewall_rules(cloud: Cloud) -> None:
    firewalls, project = cloud.api().firewalls(), cloud.project
    cloud.done(firewalls.insert(project=project, body=rule()).execute())
    made = firewalls.get(project=project, firewall="ssh").execute()
    assert (made["direction"], made["priority"], made["disabled"]) == ("INGRESS", 1000, False)
    assert cloud.double.inventory().groups == ["ssh"]

    refused(firewalls.insert(project=project, body=rule()).execute, 409, "alreadyExists")
    patch = {"name": "ssh", "sourceRanges": ["203.0.113.0/24"]}
    cloud.done(firewalls.patch(project=project, firewall="ssh", body=patch).execute())
    patched = firewalls.get(project=project, firewall="ssh").execute()
    assert (patched["sourceRanges"], patched["targetTags"]) == (["203.0.113.0/24"], ["vmrun"])
    refused(firewalls.patch(project=project, firewall="none", body={"name": "none"}).execute, 404, "notFound")

    cloud.done(firewalls.delete(project=project, firewall="ssh").execute())
    refused(firewalls.get(project=project, firewall="ssh").execute, 404, "notFound")


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"allowed": []}, 400, "Exactly one of"),
        ({"denied": [{"IPProtocol": "all"}]}, 400, "Exactly one of"),
        ({"sourceRanges": ["198.51.100.7/24"]}, 400, "resource.sourceRanges[0]"),
        ({"network": "global/networks/none"}, 404, "networks/none"),
        ({"direction": "SIDEWAYS"}, 400, "resource.direction"),
    ],
)
def test_rules_that_are_none(cloud: Cloud, changes: dict[str, Any], status: int, words: str) -> None:
    insert = cloud.api().firewalls().insert(project=cloud.project, body=rule(**changes))
    refused(insert.execute, status, "invalid" if status == 400 else "notFound", words)


def test_a_rule_without_sources_is_open_to_all(cloud: Cloud) -> None:
    body = {key: value for key, value in rule().items() if key != "sourceRanges"}
    cloud.done(cloud.api().firewalls().insert(project=cloud.project, body=body).execute())
    made = cloud.api().firewalls().get(project=cloud.project, firewall="ssh").execute()
    assert made["sourceRanges"] == ["0.0.0.0/0"]


def test_addresses(cloud: Cloud) -> None:
    addresses, project = cloud.api().addresses(), cloud.project
    body = {"name": "ip-1", "labels": {"vmrun-owner": "me"}}
    cloud.done(addresses.insert(project=project, region=REGION, body=body).execute())
    held = addresses.aggregatedList(project=project, filter="labels.vmrun-owner=me").execute()["items"]
    assert [one["name"] for one in held[f"regions/{REGION}"]["addresses"]] == ["ip-1"]
    assert cloud.double.inventory().addresses == [f"{REGION}/ip-1"]
    cloud.done(addresses.delete(project=project, region=REGION, address="ip-1").execute())
    assert cloud.double.inventory() == Inventory()
