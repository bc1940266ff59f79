"""An instance of the double of Compute Engine is a machine: it boots from user data, and stops as Google's would."""

from __future__ import annotations

import pytest

from tests.clouds.docker_machines import DockerMachines
from tests.clouds.double import Inventory
from tests.clouds.gce_sdk import ZONE, Cloud
from tests.clouds.keys import new_keys
from tests.clouds.machines import Power
from tests.docker.machines import until


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_an_instance_answers_at_its_address_and_a_power_off_inside_leaves_it_stopped(
    docker_machines: DockerMachines,
) -> None:
    cloud = Cloud(docker_machines, pace=0.2)
    keys = new_keys()
    operation = cloud.insert("vm-1", metadata={"items": [{"key": "user-data", "value": keys.user_data()}]})
    until(lambda: cloud.status("vm-1") == "RUNNING", 60, "the instance runs")
    assert "error" not in cloud.done(operation)

    def public_address() -> str:
        return cloud.get("vm-1")["networkInterfaces"][0]["accessConfigs"][0].get("natIP", "")

    host = keys.enter(public_address())
    assert host.run(["sh", "-c", "echo kept > note"]).exit_code == 0
    host.close()
    console = cloud.api().instances().getSerialPortOutput(project=cloud.project, zone=ZONE, instance="vm-1").execute()
    assert "Cloud-init" in console["contents"]

    docker_machines.power_itself_off("vm-1")

    until(lambda: cloud.status("vm-1") == "TERMINATED", 60, "the power-off is noticed")
    assert public_address() == ""
    assert cloud.double.inventory() == Inventory({f"{ZONE}/vm-1": "TERMINATED"}, [f"{ZONE}/vm-1"])

    cloud.api().instances().start(project=cloud.project, zone=ZONE, instance="vm-1").execute()
    until(lambda: cloud.status("vm-1") == "RUNNING", 60, "the instance runs again")
    host = keys.enter(public_address())
    assert host.run(["cat", "note"]).stdout == b"kept\n"
    host.close()

    cloud.delete("vm-1")
    until(lambda: cloud.status("vm-1") == "", 60, "the instance is gone")
    assert cloud.double.inventory() == Inventory()
    assert docker_machines.power("vm-1") is Power.absent
    cloud.close()
