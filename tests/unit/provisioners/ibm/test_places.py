"""Which of what a region has is chosen: what is named, else what `vmrun init ibm` made, else the best."""

from __future__ import annotations

from typing import Any

import pytest

from vmrun.core.clouds import CloudError, Fault
from vmrun.provisioners.ibm import places
from vmrun.provisioners.ibm.config import IbmConfig

from .bodies import OTHER, OWNER

MINE, THEIRS = f"vmrun-{OWNER}", f"vmrun-{OTHER}"


def things(*names: str) -> list[dict[str, Any]]:
    return [{"id": f"id-{name}", "name": name} for name in names]


def test_a_named_vpc_is_found_by_name_or_id() -> None:
    vpcs = things("lab", MINE)

    assert places.choose_vpc(vpcs, "lab", OWNER, "us-south")["name"] == "lab"
    assert places.choose_vpc(vpcs, "id-lab", OWNER, "us-south")["name"] == "lab"


def test_without_a_name_the_deployments_own_is_taken_and_never_somebodys() -> None:
    assert places.choose_vpc(things("lab", THEIRS, MINE), "", OWNER, "us-south")["name"] == MINE
    assert places.choose_vpc(things("lab", THEIRS), "", "", "us-south")["name"] == THEIRS
    with pytest.raises(CloudError) as caught:
        places.choose_vpc(things("lab", "vmrun-mine", f"{MINE}-2"), "", OWNER, "us-south")
    assert caught.value.fault is Fault.config
    assert "vmrun init ibm" in caught.value.hint


def test_a_group_is_chosen_like_its_vpc() -> None:
    groups = things("default", "ssh", MINE)

    assert places.choose_group(groups, "ssh", "lab", "us-south") == "id-ssh"
    assert places.choose_group(groups, "", MINE, "us-south") == f"id-{MINE}"
    assert places.choose_group(groups, "", "lab", "us-south") == f"id-{MINE}"
    with pytest.raises(CloudError) as caught:
        places.choose_group(things("default"), "", "lab", "us-south")
    assert "let SSH in" in caught.value.hint


def subnet(name: str, zone: str, free: int, status: str = "available") -> dict[str, Any]:
    return {
        "id": f"id-{name}",
        "name": name,
        "zone": {"name": zone},
        "available_ipv4_address_count": free,
        "status": status,
    }


def test_each_zone_has_its_subnet_with_the_most_free_addresses() -> None:
    subnets = [
        subnet("a", "us-south-1", 5),
        subnet("b", "us-south-1", 50),
        subnet("full", "us-south-2", 0),
        subnet("new", "us-south-2", 100, "pending"),
        subnet("c", "us-south-3", 1),
    ]

    assert places.choose_subnets(subnets, (), "us-south") == {"us-south-1": "id-b", "us-south-3": "id-c"}
    assert places.choose_subnets(subnets, ("a", "id-c"), "us-south") == {"us-south-1": "id-a", "us-south-3": "id-c"}
    with pytest.raises(CloudError) as caught:
        places.choose_subnets(subnets, ("full",), "us-south")
    assert "full" in caught.value.message


def image(name: str, created: str, status: str = "available") -> dict[str, Any]:
    return {"id": f"id-{name}", "name": name, "created_at": created, "status": status}


def test_the_newest_ubuntu_for_this_architecture_is_booted() -> None:
    images = [
        image("ibm-ubuntu-24-04-6-minimal-amd64-2", "2026-01-01T00:00:00Z"),
        image("ibm-ubuntu-24-04-minimal-amd64-9", "2026-06-01T00:00:00Z"),
        image("ibm-ubuntu-24-04-7-minimal-amd64-1", "2026-07-01T00:00:00Z", "obsolete"),
        image("ibm-ubuntu-24-04-6-minimal-s390x-2", "2026-08-01T00:00:00Z"),
        image("ibm-ubuntu-26-04-minimal-amd64-1", "2026-09-01T00:00:00Z"),
        image("my-ibm-ubuntu-24-04-minimal-amd64-1", "2026-10-01T00:00:00Z"),
    ]

    assert places.choose_image(images, "", "us-south") == "id-ibm-ubuntu-24-04-minimal-amd64-9"
    assert places.choose_image(images, "ibm-ubuntu-26-04-minimal-amd64-1", "us-south").endswith("26-04-minimal-amd64-1")
    with pytest.raises(CloudError) as caught:
        places.choose_image(images, "gone", "us-south")
    assert "[ibm]" in caught.value.hint


def test_regions_are_told_apart_only_where_one_server_answers_for_all() -> None:
    items = [{"zone": {"name": "us-south-1"}}, {"zone": {"name": "us-east-1"}}, {}]

    assert places.of_region(items, "us-south", IbmConfig()) == items
    assert places.of_region(items, "us-south", IbmConfig(endpoint="http://x")) == [items[0], items[2]]


def test_the_address_of_the_api_is_the_regions_own_or_the_configured_one() -> None:
    assert IbmConfig().address("eu-de") == "https://eu-de.iaas.cloud.ibm.com/v1"
    assert IbmConfig(endpoint="http://127.0.0.1:5/").address("eu-de") == "http://127.0.0.1:5/v1"


def test_settings_become_the_config() -> None:
    config = IbmConfig.of({"regions": ["eu-de"], "disk": 5, "proxy_jump": "x", "trusted_profile": None})

    assert (config.regions, config.disk, config.trusted_profile) == (("eu-de",), 5, "")
