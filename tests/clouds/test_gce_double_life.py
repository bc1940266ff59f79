"""How instances end on the double of Compute Engine, and what stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clouds.double import Inventory
from tests.clouds.gce_sdk import IMAGE, ZONE, Cloud, refused, until
from tests.clouds.machines import Power


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    opened = Cloud()
    yield opened
    opened.close()


def scheduling(**fields: Any) -> dict[str, Any]:
    return {"scheduling": fields}


def test_a_guest_that_powers_off_leaves_the_instance_stopped_and_its_disk(cloud: Cloud) -> None:
    cloud.made("vm-1", **scheduling(maxRunDuration={"seconds": "3600"}, instanceTerminationAction="DELETE"))

    cloud.double.power_off("vm-1")

    left = cloud.get("vm-1")
    assert left["status"] == "TERMINATED"
    assert "natIP" not in left["networkInterfaces"][0]["accessConfigs"][0]
    assert cloud.double.inventory().disks == [f"{ZONE}/vm-1"]
    # Nothing limits the time for which it is stopped.
    cloud.clock.sleep(100 * 3600)
    assert cloud.status("vm-1") == "TERMINATED"


def test_a_machine_that_goes_off_by_itself_is_noticed(cloud: Cloud) -> None:
    cloud.made("vm-1")
    cloud.machines.stop("vm-1")
    until(lambda: cloud.status("vm-1") == "TERMINATED")


def test_the_run_time_ends_an_instance_that_runs(cloud: Cloud) -> None:
    limits = scheduling(maxRunDuration={"seconds": "3600"}, instanceTerminationAction="DELETE")
    made = cloud.made("vm-1", **limits)
    assert made["resourceStatus"]["scheduling"]["terminationTimestamp"]

    cloud.clock.sleep(3599)
    assert cloud.status("vm-1") == "RUNNING"
    cloud.clock.sleep(1)

    until(lambda: cloud.status("vm-1") == "")
    assert cloud.double.inventory() == Inventory()
    assert cloud.machines.power("vm-1") is Power.absent


def test_the_run_time_may_stop_it_instead_and_begins_anew_when_it_starts(cloud: Cloud) -> None:
    limits = scheduling(maxRunDuration={"seconds": "3600"}, instanceTerminationAction="STOP")
    cloud.made("vm-1", **limits)
    cloud.clock.sleep(3600)
    until(lambda: cloud.status("vm-1") == "TERMINATED")
    cloud.clock.sleep(3600)

    start = cloud.api().instances().start(project=cloud.project, zone=ZONE, instance="vm-1").execute()
    cloud.done(start)

    assert cloud.get("vm-1")["networkInterfaces"][0]["accessConfigs"][0]["natIP"] == "127.0.0.1"
    cloud.clock.sleep(3599)
    assert cloud.status("vm-1") == "RUNNING"
    cloud.clock.sleep(1)
    until(lambda: cloud.status("vm-1") == "TERMINATED")


def test_a_point_in_time_may_end_it(cloud: Cloud) -> None:
    cloud.clock.at = 1_800_000_000.0
    cloud.made("vm-1", **scheduling(terminationTime="2027-01-15T09:00:00Z", instanceTerminationAction="DELETE"))
    cloud.clock.sleep(3599)
    assert cloud.status("vm-1") == "RUNNING"
    cloud.clock.sleep(1)
    until(lambda: cloud.status("vm-1") == "")


def test_preemption_does_as_the_action_says(cloud: Cloud) -> None:
    cloud.made("gone", **scheduling(provisioningModel="SPOT", instanceTerminationAction="DELETE"))
    cloud.made("kept", **scheduling(provisioningModel="SPOT"))
    cloud.made("plain")

    cloud.double.preempt("gone")
    cloud.double.preempt("kept")
    with pytest.raises(ValueError, match="no spot instance"):
        cloud.double.preempt("plain")

    until(lambda: cloud.status("gone") == "")
    until(lambda: cloud.status("kept") == "TERMINATED")
    operations = cloud.api().zoneOperations().list(project=cloud.project, zone=ZONE).execute()["items"]
    preempted = [one["targetLink"].rpartition("/")[2] for one in operations if "preempted" in one["operationType"]]
    assert sorted(preempted) == ["gone", "kept"]


def test_delete_takes_the_disks_that_go_with_it(cloud: Cloud) -> None:
    boot = {"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": IMAGE}}
    data = {"autoDelete": False, "initializeParams": {"sourceImage": IMAGE, "diskName": "data"}}
    cloud.made("vm-1", disks=[boot, data])
    disks = cloud.api().disks()
    refused(disks.delete(project=cloud.project, zone=ZONE, disk="data").execute, 400, "resourceInUseByAnotherResource")

    cloud.done(cloud.delete("vm-1"))

    assert cloud.status("vm-1") == ""
    assert cloud.double.inventory().disks == [f"{ZONE}/data"]
    assert "users" not in disks.get(project=cloud.project, zone=ZONE, disk="data").execute()
    cloud.done(disks.delete(project=cloud.project, zone=ZONE, disk="data").execute())
    assert cloud.double.inventory() == Inventory()
    refused(lambda: cloud.delete("vm-1"), 404, "notFound", "/instances/vm-1")


def test_delete_before_it_runs_and_twice() -> None:
    cloud = Cloud(pace=0.2)
    try:
        inserted = cloud.insert("vm-1")
        first, again = cloud.delete("vm-1"), cloud.delete("vm-1")
        assert cloud.status("vm-1") == "STOPPING"
        cloud.clock.sleep(0.2)
        for operation in (inserted, first, again):
            assert "error" not in cloud.done(operation)
        assert cloud.double.inventory() == Inventory()
        assert cloud.machines.power("vm-1") is Power.absent
    finally:
        cloud.close()


def test_a_protected_instance_is_not_deleted(cloud: Cloud) -> None:
    cloud.made("vm-1", deletionProtection=True)
    refused(lambda: cloud.delete("vm-1"), 400, "invalidResourceUsage", "protected")


def test_by_hand(cloud: Cloud) -> None:
    cloud.made("vm-1")
    cloud.made("vm-2")
    cloud.double.stop_by_hand("vm-1")
    cloud.double.delete_by_hand("vm-2")
    until(lambda: cloud.double.inventory().instances == {f"{ZONE}/vm-1": "TERMINATED"})
    cloud.double.delete_by_hand(f"{ZONE}/vm-1")
    until(lambda: cloud.double.inventory() == Inventory())
    with pytest.raises(KeyError):
        cloud.double.stop_by_hand("vm-1")


def test_somebody_elses_instance(cloud: Cloud) -> None:
    assert cloud.double.plant("vm-1", tags={"team": "other"}, zone="us-east1-b") == "us-east1-b/vm-1"
    assert cloud.get("vm-1", "us-east1-b")["labels"] == {"team": "other"}
    refused(lambda: cloud.insert("vm-1", zone="us-east1-b"), 409, "alreadyExists")
    cloud.done(cloud.delete("vm-1", "us-east1-b"))
    assert cloud.double.inventory() == Inventory()


def test_labels_change_by_fingerprint_only(cloud: Cloud) -> None:
    made = cloud.made("vm-1", labels={"a": "1"})

    def set_labels(fingerprint: str) -> Any:
        body = {"labels": {"a": "2"}, "labelFingerprint": fingerprint}
        return cloud.api().instances().setLabels(project=cloud.project, zone=ZONE, instance="vm-1", body=body).execute()

    cloud.done(set_labels(made["labelFingerprint"]))
    assert cloud.get("vm-1")["labels"] == {"a": "2"}
    refused(lambda: set_labels(made["labelFingerprint"]), 412, "conditionNotMet", "Labels fingerprint")


def test_the_console_is_the_machines(cloud: Cloud) -> None:
    cloud.made("vm-1")
    answer = cloud.api().instances().getSerialPortOutput(project=cloud.project, zone=ZONE, instance="vm-1").execute()
    assert answer["contents"] == cloud.machines.console("vm-1")


def test_metadata_of_the_project(cloud: Cloud) -> None:
    cloud.double.set_metadata("enable-oslogin", "TRUE")
    metadata = cloud.api().projects().get(project=cloud.project).execute()["commonInstanceMetadata"]
    assert metadata["items"] == [{"key": "enable-oslogin", "value": "TRUE"}]
