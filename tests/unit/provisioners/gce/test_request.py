"""The body of a creation: valid against Google's own description, and the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.discovery import wrong
from vmrun.core.clouds import TAG_OWNER, TAG_VM, CloudError, Fault
from vmrun.provisioners.gce.config import GceConfig
from vmrun.provisioners.gce.request import insert_body, run_seconds

from .world import World, offer

TYPES = [
    "e2-standard-2",
    "n2-highmem-128",
    "c4-highmem-144",
    "c4a-standard-72",
    "h3-standard-88",
    "c3-standard-192-metal",
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def metadata(body: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in body["metadata"]["items"]}


@pytest.mark.parametrize("spot", [False, True])
@pytest.mark.parametrize("instance_type", TYPES)
@pytest.mark.parametrize(
    "config",
    [
        GceConfig(),
        GceConfig(
            public_ip=False, network="mine", subnetwork="inner", service_account="vm@acme.iam.gserviceaccount.com"
        ),
    ],
    ids=["default", "configured"],
)
def test_every_body_is_what_google_describes(world: World, config: GceConfig, instance_type: str, spot: bool) -> None:
    spec = world.spec(offer=offer(instance_type, spot=spot))

    assert wrong(insert_body(spec, config), "Instance") == []
    assert insert_body(spec, config) == insert_body(spec, config)


def test_the_validator_finds_what_is_wrong(world: World) -> None:
    body = insert_body(world.spec(), GceConfig())
    body["schedulling"] = {}
    body["disks"][0]["autoDelete"] = "yes"
    body["scheduling"]["provisioningModel"] = "CHEAP"
    body["status"] = "RUNNING"

    found = "\n".join(wrong(body, "Instance"))

    assert len(found.splitlines()) == 4
    for part in ("schedulling", "autoDelete", "CHEAP", "status"):
        assert part in found


def test_google_itself_deletes_the_machine_a_little_after_its_hard_deadline(world: World) -> None:
    spec = world.spec(hard_deadline=world.clock.now() + 7200)

    scheduling = insert_body(spec, GceConfig())["scheduling"]

    assert scheduling["maxRunDuration"] == {"seconds": str(7200 + 900)}
    assert scheduling["instanceTerminationAction"] == "DELETE"
    assert scheduling["automaticRestart"] is False
    world.clock.sleep(1000)
    assert insert_body(spec, GceConfig())["scheduling"] == scheduling, "the same however late it is sent again"


def test_a_life_longer_than_google_keeps_is_refused(world: World) -> None:
    day = 86400
    assert run_seconds(world.spec(hard_deadline=world.clock.now() + 119 * day)) == 119 * day + 900
    with pytest.raises(CloudError) as caught:
        run_seconds(world.spec(hard_deadline=world.clock.now() + 120 * day))
    assert caught.value.fault is Fault.config
    assert "--max-lifetime" in caught.value.hint


@pytest.mark.parametrize(
    ("instance_type", "spot", "model", "maintenance", "disk"),
    [
        ("n2-standard-4", False, "STANDARD", "MIGRATE", "pd-balanced"),
        ("n2-standard-4", True, "SPOT", "TERMINATE", "pd-balanced"),
        ("c4-highmem-144", False, "STANDARD", "MIGRATE", "hyperdisk-balanced"),
        ("n4-standard-80", True, "SPOT", "TERMINATE", "hyperdisk-balanced"),
        ("h3-standard-88", False, "STANDARD", "TERMINATE", "pd-balanced"),
        ("c3-standard-192-metal", False, "STANDARD", "TERMINATE", "hyperdisk-balanced"),
        ("c3d-highmem-180", False, "STANDARD", "MIGRATE", "pd-balanced"),
    ],
)
def test_market_maintenance_and_disk_go_by_the_type(
    world: World, instance_type: str, spot: bool, model: str, maintenance: str, disk: str
) -> None:
    body = insert_body(world.spec(offer=offer(instance_type, spot=spot)), GceConfig())

    assert body["scheduling"]["provisioningModel"] == model
    assert body["scheduling"]["onHostMaintenance"] == maintenance
    assert body["disks"][0]["initializeParams"]["diskType"].endswith(f"/diskTypes/{disk}")


def test_labels_stand_on_the_machine_and_on_its_disk_which_goes_with_it(world: World) -> None:
    spec = world.spec(tags={"extra": "1"})

    body = insert_body(spec, GceConfig())

    assert body["labels"] == {"extra": "1", TAG_OWNER: spec.owner, TAG_VM: spec.vm}
    assert body["disks"][0]["initializeParams"]["labels"] == body["labels"]
    assert body["disks"][0]["autoDelete"] is True


@pytest.mark.parametrize("tags", [{"Upper": "x"}, {"a": "X"}, {"a": "x" * 64}, {"1a": "x"}, {"a": "b c"}])
def test_a_tag_that_is_no_label_is_refused_before_anything_is_sent(world: World, tags: dict[str, str]) -> None:
    with pytest.raises(CloudError) as caught:
        insert_body(world.spec(tags=tags), GceConfig())
    assert caught.value.fault is Fault.config


def test_disks_are_counted_in_gib_and_not_smaller_than_an_image(world: World) -> None:
    def gib(**changes: Any) -> str:
        config = GceConfig(disk=changes.pop("default", 100 * 10**9))
        return str(insert_body(world.spec(**changes), config)["disks"][0]["initializeParams"]["diskSizeGb"])

    assert gib() == "94"
    assert gib(disk=1 << 40) == "1024"
    assert gib(disk=(1 << 40) + 1) == "1025"
    assert gib(disk=1) == "10"


def test_only_the_user_data_says_who_may_log_in(world: World) -> None:
    found = metadata(insert_body(world.spec(user_data="#cloud-config\nx: é\n"), GceConfig()))

    assert found["user-data"] == "#cloud-config\nx: é\n"
    assert (found["enable-oslogin"], found["block-project-ssh-keys"]) == ("FALSE", "TRUE")
    assert "ssh-keys" not in found


def test_network_and_address_follow_the_configuration(world: World) -> None:
    def interface(network: str, **config: Any) -> dict[str, Any]:
        return dict(insert_body(world.spec(), GceConfig(**config), network)["networkInterfaces"][0])

    nat = [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}]
    assert interface("default") == {"network": "global/networks/default", "accessConfigs": nat}
    assert interface("lab", public_ip=False) == {"network": "global/networks/lab"}
    assert interface("", subnetwork="inner", public_ip=False) == {"subnetwork": "regions/us-central1/subnetworks/inner"}
    shared = "projects/host/regions/us-central1/subnetworks/inner"
    assert interface("", subnetwork=shared, public_ip=False) == {"subnetwork": shared}


def test_a_machine_has_no_rights_unless_an_account_is_configured(world: World) -> None:
    assert insert_body(world.spec(), GceConfig())["serviceAccounts"] == []
    account = "vm@acme.iam.gserviceaccount.com"
    assert insert_body(world.spec(), GceConfig(service_account=account))["serviceAccounts"] == [
        {"email": account, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
    ]


def test_the_image_goes_by_the_architecture_unless_one_is_configured(world: World) -> None:
    def image(arch: str, **config: str) -> str:
        body = insert_body(world.spec(offer=offer(arch=arch)), GceConfig(**config))  # type: ignore[arg-type]
        return str(body["disks"][0]["initializeParams"]["sourceImage"])

    assert image("x86_64").endswith("/family/ubuntu-2404-lts-amd64")
    assert image("arm64").endswith("/family/ubuntu-2404-lts-arm64")
    assert image("arm64", image="projects/p/global/images/mine") == "projects/p/global/images/mine"
