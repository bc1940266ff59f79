"""The double of Compute Engine keeps the rules of the real one, as the real SDK sees them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from google.auth.exceptions import RefreshError
from google.oauth2 import service_account

from tests.clouds.double import Inventory
from tests.clouds.gce_sdk import IMAGE, REGION, ZONE, Cloud, plain_body, refused
from tests.clouds.machines import PaperMachines

ARM = IMAGE.replace("amd64", "arm64")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    opened = Cloud()
    yield opened
    opened.close()


def scheduling(**fields: Any) -> dict[str, Any]:
    return {"scheduling": fields}


def disk(**parameters: Any) -> dict[str, Any]:
    return {"disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": IMAGE, **parameters}}]}


def typed(name: str, zone: str = ZONE) -> dict[str, Any]:
    return {"machineType": f"zones/{zone}/machineTypes/{name}"}


# --- requests are checked against the SDK's own description ---


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "resource.colour"),
        (
            {"disks": [{"boot": True, "initializeParams": {"sourceImages": IMAGE}}]},
            "resource.disks[0].initializeParams",
        ),
        ({"canIpForward": "yes"}, "resource.canIpForward"),
        ({"labels": {"size": 5}}, "resource.labels.size"),
        ({"labels": ["a"]}, "resource.labels"),
        ({"disks": {}}, "resource.disks"),
        (scheduling(provisioningModel="SPOTTY"), "resource.scheduling.provisioningModel"),
        (scheduling(maxRunDuration={"seconds": "an hour"}), "resource.scheduling.maxRunDuration.seconds"),
        (scheduling(maxRunDuration={"seconds": 3600}), "resource.scheduling.maxRunDuration.seconds"),
        ({"labelFingerprint": "not base64!"}, "resource.labelFingerprint"),
        ({"metadata": {"items": [{"value": "v"}]}}, "resource.metadata.items[0].key"),
        ({"tags": {"items": ["No Tag"]}}, "resource.tags.items[0]"),
    ],
)
def test_a_body_that_the_document_does_not_know_is_refused_by_the_name_of_the_field(
    cloud: Cloud, changes: dict[str, Any], field: str
) -> None:
    refused(lambda: cloud.insert("vm-1", **changes), 400, "invalid", f"'{field}")
    assert cloud.double.inventory().instances == {}


def test_a_name_is_required_and_has_a_form(cloud: Cloud) -> None:
    body = plain_body("vm-1")
    del body["name"]
    insert = cloud.api().instances().insert
    refused(insert(project=cloud.project, zone=ZONE, body=body).execute, 400, "invalid", "'resource.name'")
    for name in ("VM", "1vm", "vm-", "v" * 64, "v_m"):
        refused(lambda name=name: cloud.insert(name), 400, "invalid", "'resource.name'")
    assert cloud.made("v" * 63)["status"] == "RUNNING"


def test_parameters_are_checked(cloud: Cloud) -> None:
    """The SDK itself refuses most of them, so they are put into the address behind its back."""

    def ask(query: str) -> Callable[[], Any]:
        request = cloud.api().instances().list(project=cloud.project, zone=ZONE)
        request.uri += query
        return request.execute

    refused(ask("&colour=red"), 400, "invalid", "'colour'")
    refused(ask("&maxResults=ten"), 400, "invalid", "'maxResults'")
    refused(ask("&maxResults=501"), 400, "invalid", "'maxResults'")
    refused(ask("&maxResults=1&maxResults=2"), 400, "invalid", "'maxResults'")
    refused(ask("&pageToken=nonsense"), 400, "invalid", "'pageToken'")
    refused(ask("&orderBy=size"), 400, "invalid", "'orderBy'")
    assert ask("&maxResults=1")()["kind"] == "compute#instanceList"


def test_places_and_methods_that_are_not_there(cloud: Cloud) -> None:
    api = cloud.api()
    refused(api.instances().list(project=cloud.project, zone="us-central1-z").execute, 400, "invalid", "Unknown zone")
    refused(api.subnetworks().list(project=cloud.project, region="moon").execute, 400, "invalid", "Unknown region")
    refused(api.instances().list(project="another", zone=ZONE).execute, 404, "notFound", "projects/another")
    refused(api.snapshots().list(project=cloud.project).execute, 501, "notImplemented")


def test_fields_that_only_the_service_writes_are_passed_over(cloud: Cloud) -> None:
    made = cloud.made("vm-1", status="TERMINATED", id="7", creationTimestamp="2000-01-01T00:00:00Z")
    assert made["status"] == "RUNNING"
    assert made["id"] != "7"


# --- who calls ---


def test_a_call_needs_a_token_from_the_key_file(cloud: Cloud) -> None:
    host, _, port = cloud.double.endpoint.removeprefix("http://").partition(":")
    for header in ({}, {"Authorization": "Bearer ya29.made-up"}):
        connection = HTTPConnection(host, int(port))
        connection.request("GET", f"/compute/v1/projects/{cloud.project}/zones", headers=header)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["status"]) == (401, "UNAUTHENTICATED")
        connection.close()


def test_a_token_has_scopes() -> None:
    cloud = Cloud(scope="https://www.googleapis.com/auth/compute.readonly")
    try:
        assert cloud.names() == []
        refused(lambda: cloud.insert("vm-1"), 403, "insufficientPermissions")
    finally:
        cloud.close()


def test_a_key_that_is_not_the_accounts_gets_no_token(cloud: Cloud) -> None:
    stranger = Cloud()
    try:
        key = Path(str(cloud.double.settings()["credentials_file"]))
        text = key.read_text().replace("vmrun@double-project", "somebody@double-project")
        key.write_text(text)
        stranger._credentials = service_account.Credentials.from_service_account_file(str(key), scopes=["x"])
        with pytest.raises(RefreshError, match="invalid_grant"):
            stranger.names()
    finally:
        stranger.close()


def test_a_permission_that_is_missing_is_named_by_the_call_and_by_the_test_of_permissions(cloud: Cloud) -> None:
    cloud.double.deny("compute.subnetworks.useExternalIp", "compute.instances.delete")
    cloud.made("private", networkInterfaces=[{"network": "global/networks/default"}])

    assert "compute.subnetworks.useExternalIp" in refused(lambda: cloud.insert("vm-1"), 403, "forbidden")
    assert "compute.instances.delete" in refused(lambda: cloud.delete("private"), 403, "forbidden")
    asked = ["compute.instances.create", "compute.instances.delete", "compute.subnetworks.useExternalIp"]
    for version in ("v1", "v3"):
        resource = cloud.project if version == "v1" else f"projects/{cloud.project}"
        projects = cloud.api(f"cloudresourcemanager.{version}").projects()
        held = projects.testIamPermissions(resource=resource, body={"permissions": asked}).execute()
        assert held == {"permissions": ["compute.instances.create"]}


def test_a_caller_with_few_permissions_can_do_what_they_are_for(cloud: Cloud) -> None:
    creating = ["compute.instances.create", "compute.disks.create", "compute.subnetworks.use"]
    cloud.double.grant_only(*creating, "compute.zoneOperations.get")
    done = cloud.done(cloud.insert("vm-1", networkInterfaces=[{"network": "global/networks/default"}]))
    assert "error" not in done
    words = "compute.subnetworks.useExternalIp"
    refused(lambda: cloud.insert("vm-2"), 403, "forbidden", words)
    refused(lambda: cloud.get("vm-1"), 403, "forbidden", "compute.instances.get")
    # Images that are everybody's need none.
    image = cloud.api().images().getFromFamily(project="ubuntu-os-cloud", family="ubuntu-2404-lts-amd64").execute()
    assert image["status"] == "READY"


# --- create ---


def test_an_instance_boots_with_its_user_data_and_shows_its_address(cloud: Cloud) -> None:
    metadata = {"items": [{"key": "user-data", "value": "#cloud-config\nhostname: x\n"}]}
    made = cloud.made("vm-1", metadata=metadata, labels={"vmrun-owner": "me"})

    assert isinstance(cloud.machines, PaperMachines)
    assert cloud.machines.user_data["vm-1"] == "#cloud-config\nhostname: x\n"
    assert made["status"] == "RUNNING"
    assert made["labels"] == {"vmrun-owner": "me"}
    interface = made["networkInterfaces"][0]
    assert (interface["networkIP"], interface["accessConfigs"][0]["natIP"]) == ("127.0.0.1", "127.0.0.1")
    assert made["machineType"].endswith(f"/projects/{cloud.project}/zones/{ZONE}/machineTypes/e2-standard-2")
    assert cloud.double.inventory().disks == [f"{ZONE}/vm-1"]


def test_without_access_config_there_is_no_public_address(cloud: Cloud) -> None:
    made = cloud.made("vm-1", networkInterfaces=[{"subnetwork": f"regions/{REGION}/subnetworks/default"}])
    assert made["networkInterfaces"][0]["networkIP"] == "127.0.0.1"
    assert "accessConfigs" not in made["networkInterfaces"][0]


def test_an_operation_runs_before_it_is_done() -> None:
    cloud = Cloud(pace=0.3)
    try:
        operation = cloud.insert("vm-1")
        assert (operation["status"], operation["operationType"]) == ("RUNNING", "insert")
        assert cloud.status("vm-1") == "PROVISIONING"
        cloud.clock.sleep(0.2)
        assert cloud.status("vm-1") == "STAGING"
        cloud.clock.sleep(0.1)
        done = cloud.done(operation)
        assert done["progress"] == 100
        assert cloud.get("vm-1")["id"] == operation["targetId"]
        assert cloud.status("vm-1") == "RUNNING"
    finally:
        cloud.close()


def test_the_same_request_id_is_the_same_operation_even_when_all_is_over(cloud: Cloud) -> None:
    request_id = str(uuid.UUID(int=7))
    first = cloud.insert("vm-1", request_id=request_id)
    again = cloud.insert("vm-1", request_id=request_id)
    assert first["name"] == again["name"]
    cloud.done(first)
    cloud.done(cloud.delete("vm-1"))

    late = cloud.insert("vm-1", request_id=request_id)

    assert (late["name"], late["status"]) == (first["name"], "DONE")
    assert cloud.double.inventory().instances == {}


def test_a_request_id_is_a_uuid_and_of_one_request(cloud: Cloud) -> None:
    for bad in ("vm-1", str(uuid.UUID(int=0))):
        refused(lambda bad=bad: cloud.insert("vm-1", request_id=bad), 400, "invalid", "'requestId'")
    request_id = str(uuid.UUID(int=8))
    cloud.insert("vm-1", request_id=request_id)
    refused(lambda: cloud.insert("vm-2", request_id=request_id), 400, "invalid", "another request")


def test_a_name_is_taken_in_its_zone_only(cloud: Cloud) -> None:
    first = cloud.made("vm-1")
    words = f"projects/{cloud.project}/zones/{ZONE}/instances/vm-1"
    refused(lambda: cloud.insert("vm-1"), 409, "alreadyExists", words)
    other = cloud.made("vm-1", zone="us-central1-b")
    assert first["id"] != other["id"]
    assert cloud.double.inventory().instances == {f"{ZONE}/vm-1": "RUNNING", "us-central1-b/vm-1": "RUNNING"}


def test_a_disk_that_is_left_over_takes_the_name_too(cloud: Cloud) -> None:
    cloud.made("vm-1", disks=[{"boot": True, "initializeParams": {"sourceImage": IMAGE}}])
    cloud.done(cloud.delete("vm-1"))
    assert cloud.double.inventory().disks == [f"{ZONE}/vm-1"]
    refused(lambda: cloud.insert("vm-1"), 409, "alreadyExists", "/disks/vm-1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (typed("e2-standard-3"), "Machine type with name 'e2-standard-3' does not exist in zone 'us-central1-a'"),
        (typed("e2-standard-2", "us-central1-b"), "'resource.machineType'"),
        ({"machineType": "e2-standard-2"}, "The URL is malformed"),
        ({"disks": []}, "'resource.disks'"),
        ({"networkInterfaces": []}, "At least one network interface"),
        ({"networkInterfaces": [{"network": "global/networks/mine"}]}, "network resource cannot be found"),
        ({"networkInterfaces": [{"subnetwork": "regions/us-east1/subnetworks/default"}]}, "must be in the instance's"),
        (disk(sourceImage="projects/ubuntu-os-cloud/global/images/none"), "image resource cannot be found"),
        (disk(sourceImage=ARM), "not compatible with machine type architecture"),
        (disk(diskSizeGb="5"), "cannot be smaller than the image size"),
        (disk(diskType=f"zones/{ZONE}/diskTypes/floppy"), "diskType resource cannot be found"),
        (scheduling(maxRunDuration={"seconds": "3600"}), "You must specify a termination action"),
        (scheduling(instanceTerminationAction="DELETE"), "Only an instance whose run time is limited"),
        (
            scheduling(maxRunDuration={"seconds": "29"}, instanceTerminationAction="DELETE"),
            "between 30 seconds and 120 days",
        ),
        (
            scheduling(terminationTime="2026-01-01T00:00:00Z", instanceTerminationAction="DELETE"),
            "a time that is to come",
        ),
        (scheduling(provisioningModel="SPOT", automaticRestart=True), "Automatic restart must be off"),
        (scheduling(provisioningModel="SPOT", onHostMaintenance="MIGRATE"), "must have 'TERMINATE'"),
        ({"labels": {"Owner": "me"}}, "Label key must be"),
        ({"labels": {"owner": "Me"}}, "Label value must be"),
        ({"labels": {f"l{n}": "" for n in range(65)}}, "at most 64"),
        ({"metadata": {"items": [{"key": "a", "value": "x" * (262144 + 1)}]}}, "larger than 262144 bytes"),
        ({"metadata": {"items": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}}, "given twice"),
    ],
)
def test_what_compute_engine_would_not_make(cloud: Cloud, changes: dict[str, Any], words: str) -> None:
    refused(lambda: cloud.insert("vm-1", **changes), 400, "invalid", words)
    assert cloud.double.inventory() == Inventory()


def test_new_families_take_hyperdisk_and_old_ones_do_not(cloud: Cloud) -> None:
    words = "features are not compatible for creating instance"
    for name in ("pd-standard", "pd-balanced"):
        changes = {**typed("c4-highmem-144"), **disk(diskType=f"zones/{ZONE}/diskTypes/{name}")}
        refused(lambda changes=changes: cloud.insert("vm-1", **changes), 400, "badRequest", words)
    refused(lambda: cloud.insert("vm-1", **typed("c4-highmem-144"), **disk()), 400, "badRequest", words)
    hyperdisk = disk(diskType=f"zones/{ZONE}/diskTypes/hyperdisk-balanced")
    refused(lambda: cloud.insert("vm-1", **hyperdisk), 400, "badRequest", words)
    assert cloud.made("vm-1", **typed("c4-highmem-144"), **hyperdisk)["status"] == "RUNNING"


def test_a_type_is_in_some_zones_of_its_region(cloud: Cloud) -> None:
    found = cloud.api().machineTypes().aggregatedList(project=cloud.project, filter="name = c4-highmem-144").execute()
    zones = {scope for scope, held in found["items"].items() if "machineTypes" in held}
    assert f"zones/{ZONE}" in zones
    assert "zones/us-central1-f" not in zones
    elsewhere = typed("c4-highmem-144", "us-central1-f")
    refused(lambda: cloud.insert("vm-1", zone="us-central1-f", **elsewhere), 400, "invalid", "does not exist in zone")


# --- quotas ---


def test_a_quota_ends_the_operation_and_names_itself(cloud: Cloud) -> None:
    cloud.double.limit("CPUS", 3, REGION)
    cloud.made("vm-1")

    done = cloud.done(cloud.insert("vm-2"))

    error = done["error"]["errors"][0]
    assert error["code"] == "QUOTA_EXCEEDED"
    info = error["errorDetails"][0]["quotaInfo"]
    assert (info["limit"], info["dimensions"]) == (3.0, {"region": REGION})
    assert cloud.double.inventory().instances == {f"{ZONE}/vm-1": "RUNNING"}
    quotas = cloud.api().regions().get(project=cloud.project, region=REGION).execute()["quotas"]
    assert {"metric": "CPUS", "limit": 3.0, "usage": 2.0} in quotas
    assert cloud.made("vm-2", zone="us-east1-b")["status"] == "RUNNING"


def test_new_families_share_a_metric_with_a_limit_for_each(cloud: Cloud) -> None:
    cloud.double.limit("CPUS_PER_VM_FAMILY:C4", 100, REGION)
    body = {**typed("c4-highmem-144"), **disk(diskType=f"zones/{ZONE}/diskTypes/hyperdisk-balanced")}
    info = cloud.done(cloud.insert("vm-1", **body))["error"]["errors"][0]["errorDetails"][0]["quotaInfo"]
    assert info["dimensions"] == {"region": REGION, "vm_family": "C4"}
    quotas = cloud.api().regions().get(project=cloud.project, region=REGION).execute()["quotas"]
    assert not [quota for quota in quotas if "C4" in quota["metric"]]


def test_disks_have_quotas_by_their_kind(cloud: Cloud) -> None:
    cloud.double.limit("HDB_TOTAL_GB", 50, REGION)
    hyperdisk = {
        **typed("c4-standard-4"),
        **disk(diskType=f"zones/{ZONE}/diskTypes/hyperdisk-balanced", diskSizeGb="30"),
    }
    cloud.made("vm-1", **hyperdisk)
    done = cloud.done(cloud.insert("vm-2", **hyperdisk))
    assert "'HDB_TOTAL_GB'" in done["error"]["errors"][0]["message"]
    assert cloud.made("vm-3")["status"] == "RUNNING"


def test_the_whole_project_has_a_quota_too(cloud: Cloud) -> None:
    cloud.double.limit("CPUS_ALL_REGIONS", 3)
    cloud.made("vm-1", zone="us-east1-b")
    done = cloud.done(cloud.insert("vm-1"))
    assert "CPUS_ALL_REGIONS" in done["error"]["errors"][0]["message"]
    quotas = cloud.api().projects().get(project=cloud.project).execute()["quotas"]
    assert {"metric": "CPUS_ALL_REGIONS", "limit": 3.0, "usage": 2.0} in quotas
