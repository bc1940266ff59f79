"""Lists of the double of Compute Engine: filters, pages, scopes, and the ways in which they mislead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from googleapiclient.errors import HttpError

from tests.clouds.gce import filters
from tests.clouds.gce.fields import select
from tests.clouds.gce_sdk import ZONE, Cloud, refused
from tests.clouds.trouble import Trouble

VM = {
    "name": "vmrun-a-1",
    "status": "RUNNING",
    "labels": {"vmrun-owner": "a", "empty": ""},
    "scheduling": {"automaticRestart": False},
    "sizeGb": 20,
}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    opened = Cloud()
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("name=vmrun-a-1", True),
        ('name = "vmrun-a-1"', True),
        ("name='vmrun-a-2'", False),
        ("name!=vmrun-a-2", True),
        ("labels.vmrun-owner=a", True),
        ("labels.vmrun-owner=b", False),
        ("labels.missing=a", False),
        ("labels.missing!=a", True),
        ("labels.vmrun-owner:*", True),
        ("labels.empty:*", True),
        ("labels.missing:*", False),
        ("name:vmrun-a-*", True),
        ("name:vmrun-b-*", False),
        ("name:run-a", True),
        ("name:nothing", False),
        ("scheduling.automaticRestart = false", True),
        ("sizeGb >= 20", True),
        ("sizeGb > 20", False),
        ("sizeGb < 100", True),
        ("(status = RUNNING) (labels.vmrun-owner = b)", False),
        ("(status = RUNNING) AND (labels.vmrun-owner = a)", True),
        ("(status = STOPPED) OR (labels.vmrun-owner = a)", True),
        # OR binds closer than AND.
        ("(status = RUNNING) OR (status = STOPPED) AND (name = x)", False),
        ("(status = RUNNING) OR ((status = STOPPED) AND (name = x))", True),
        ("NOT name = x", True),
        ("name eq vmrun-a-.*", True),
        ("name eq vmrun", False),
        ("name ne vmrun", True),
        ("name eq '(vmrun|other)-a-[0-9]+'", True),
        ('(name eq "vmrun.*") (name ne ".*-2")', True),
    ],
)
def test_filters(text: str, passes: bool) -> None:
    assert filters.parse(text)(VM) is passes


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "name=",
        "=x",
        "name==x",
        "name=a OR",
        "AND name=a",
        "(name=a",
        "name=a)",
        "name=vmrun-*",
        "name:v*n",
        'name="open',
        "name eq [",
        "(name eq a.*) (status eq RUNNING)",
        "(name eq a.*) (status = RUNNING)",
        "(name eq a.*) OR (name eq b.*)",
        "name.=x",
        "name ~ x",
    ],
)
def test_what_is_no_filter(text: str) -> None:
    with pytest.raises(filters.BadFilter):
        filters.parse(text)


def test_a_bad_filter_is_refused(cloud: Cloud) -> None:
    refused(lambda: cloud.names(filter="name=vmrun-*"), 400, "invalid", "Invalid list filter expression")


def test_a_part_of_an_answer() -> None:
    answer = {"items": [{"name": "a", "disks": [{"source": "s", "boot": True}], "id": "1"}], "kind": "k", "next": "n"}
    assert select(answer, "items(name,disks/source),next") == {
        "items": [{"name": "a", "disks": [{"source": "s"}]}],
        "next": "n",
    }
    assert select({"items": {"zones/a": {"x": 1, "y": 2}}}, "items/*/x") == {"items": {"zones/a": {"x": 1}}}
    assert select(answer, "") == answer


def fill(cloud: Cloud) -> None:
    for name in ("c", "a", "b"):
        cloud.made(f"vm-{name}", labels={"owner": "me"})
    cloud.made("vm-d", labels={"owner": "other"})
    cloud.made("vm-a", zone="us-east1-b", labels={"owner": "me"})


def test_lists_are_of_one_zone_and_in_pages(cloud: Cloud) -> None:
    fill(cloud)
    assert cloud.names() == ["vm-a", "vm-b", "vm-c", "vm-d"]
    assert cloud.names(filter="labels.owner=me") == ["vm-a", "vm-b", "vm-c"]
    first = cloud.api().instances().list(project=cloud.project, zone=ZONE, maxResults=3).execute()
    assert [one["name"] for one in first["items"]] == ["vm-a", "vm-b", "vm-c"]
    before = len(cloud.calls("compute.instances.list"))
    assert cloud.names(maxResults=1) == ["vm-a", "vm-b", "vm-c", "vm-d"]
    assert len(cloud.calls("compute.instances.list")) == before + 4
    newest = cloud.api().instances().list(project=cloud.project, zone=ZONE, orderBy="creationTimestamp desc")
    assert len(newest.execute()["items"]) == 4


def test_a_list_of_nothing_has_no_items(cloud: Cloud) -> None:
    assert "items" not in cloud.api().instances().list(project=cloud.project, zone=ZONE).execute()


def test_the_list_of_all_zones_has_every_zone_and_warns_of_those_without(cloud: Cloud) -> None:
    fill(cloud)
    items = aggregated(cloud)["items"]
    assert [one["name"] for one in items[f"zones/{ZONE}"]["instances"]] == ["vm-a", "vm-b", "vm-c"]
    assert [one["name"] for one in items["zones/us-east1-b"]["instances"]] == ["vm-a"]
    empty = items["zones/europe-west1-b"]
    assert "instances" not in empty
    assert empty["warning"]["code"] == "NO_RESULTS_ON_PAGE"


def aggregated(cloud: Cloud, **parameters: Any) -> dict[str, Any]:
    listed = cloud.api().instances().aggregatedList(project=cloud.project, filter="labels.owner=me", **parameters)
    return listed.execute()


def names(answer: dict[str, Any]) -> list[str]:
    return [
        f"{scope.partition('/')[2]}/{one['name']}"
        for scope, held in answer["items"].items()
        for one in held.get("instances", ())
    ]


def test_pages_are_as_small_as_the_script_says(cloud: Cloud) -> None:
    fill(cloud)
    cloud.trouble(Trouble.small_pages, "compute.instances.list", times=-1, size=1)
    assert cloud.names(maxResults=500) == ["vm-a", "vm-b", "vm-c", "vm-d"]
    assert len(cloud.calls("compute.instances.list")) == 4
    cloud.trouble(Trouble.small_pages, "compute.instances.aggregatedList", times=-1, size=2)
    first = aggregated(cloud)
    second = aggregated(cloud, pageToken=first["nextPageToken"])
    assert names(first) == ["us-central1-a/vm-a", "us-central1-a/vm-b"]
    assert names(second) == ["us-central1-a/vm-c", "us-east1-b/vm-a"]
    assert "nextPageToken" not in second


def test_half_a_list_fails_on_the_way_to_the_second_page(cloud: Cloud) -> None:
    fill(cloud)
    cloud.trouble(Trouble.half_a_list)
    first = aggregated(cloud)
    assert names(first) == ["us-central1-a/vm-a", "us-central1-a/vm-b"]
    refused(lambda: aggregated(cloud, pageToken=first["nextPageToken"]), 503, "backendError")
    assert len(names(aggregated(cloud))) == 4


def test_half_a_list_may_look_whole_and_name_what_could_not_be_read(cloud: Cloud) -> None:
    fill(cloud)
    cloud.trouble(Trouble.half_a_list, size=1)
    answer = aggregated(cloud)
    assert names(answer) == ["us-central1-a/vm-a", "us-central1-a/vm-b", "us-central1-a/vm-c"]
    assert "nextPageToken" not in answer
    assert [link.rpartition("/")[2] for link in answer["unreachables"]] == ["us-east1-b"]
    assert answer["items"]["zones/us-east1-b"]["warning"]["code"] == "UNREACHABLE"


def test_lists_may_be_of_a_while_ago_and_look_ups_are_not(cloud: Cloud) -> None:
    cloud.made("vm-a")
    cloud.clock.sleep(60)
    cloud.made("vm-b")
    cloud.done(cloud.delete("vm-a"))
    cloud.trouble(Trouble.list_lag, times=2, seconds=30)
    assert cloud.names() == ["vm-a"]
    cloud.clock.sleep(30)
    assert cloud.names() == ["vm-b"]
    assert cloud.status("vm-a") == ""


def test_an_instance_may_be_late_everywhere(cloud: Cloud) -> None:
    cloud.trouble(Trouble.late, seconds=20)
    cloud.done(cloud.insert("vm-a"))
    assert cloud.names() == []
    assert cloud.status("vm-a") == ""
    refused(lambda: cloud.delete("vm-a"), 404, "notFound")
    refused(lambda: cloud.insert("vm-a"), 409, "alreadyExists")
    assert list(cloud.double.inventory().instances) == [f"{ZONE}/vm-a"]
    cloud.clock.sleep(20)
    assert cloud.names() == ["vm-a"]
    assert cloud.status("vm-a") == "RUNNING"


def test_lists_of_what_has_always_been_there(cloud: Cloud) -> None:
    api, project = cloud.api(), cloud.project
    zones = api.zones().list(project=project, filter="name:us-central1-*").execute()["items"]
    assert [one["name"] for one in zones] == ["us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"]
    assert {one["region"].rpartition("/")[2] for one in zones} == {"us-central1"}
    regions = api.regions().list(project=project).execute()["items"]
    assert "us-central1" in [one["name"] for one in regions]
    kind = api.machineTypes().get(project=project, zone=ZONE, machineType="c4-highmem-144").execute()
    assert (kind["guestCpus"], kind["memoryMb"]) == (144, 1116 * 1024)
    image = api.images().getFromFamily(project="ubuntu-os-cloud", family="ubuntu-2404-lts-arm64").execute()
    assert image["architecture"] == "ARM64"
    assert api.images().get(project="ubuntu-os-cloud", image=image["name"]).execute() == image
    refused(api.images().getFromFamily(project="ubuntu-os-cloud", family="dos").execute, 404, "notFound")
    with pytest.raises(HttpError):
        api.machineTypes().get(project=project, zone=ZONE, machineType="e2-standard-3").execute()


def test_prices_and_services(cloud: Cloud) -> None:
    skus = cloud.api("cloudbilling.v1").services().skus().list(parent="services/6F81-5844-456A").execute()["skus"]
    assert any("C4 Instance Core" in sku["description"] for sku in skus)
    name = f"projects/{cloud.project}/services/compute.googleapis.com"
    assert cloud.api("serviceusage.v1").services().get(name=name).execute()["state"] == "ENABLED"
