"""An instance of the double of EC2 is a machine: it boots from its user data, and ends as EC2's would."""

from __future__ import annotations

import boto3
import pytest

from tests.clouds.docker_machines import DockerMachines
from tests.clouds.ec2 import Ec2Double
from tests.clouds.ec2.backend import image_id
from tests.clouds.keys import new_keys
from tests.clouds.machines import Power
from tests.docker.machines import until


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_an_instance_answers_at_its_address_and_a_power_off_inside_ends_it(docker_machines: DockerMachines) -> None:
    double = Ec2Double(docker_machines)
    ec2 = boto3.client(
        "ec2",
        region_name="us-east-1",
        endpoint_url=double.endpoint,
        aws_access_key_id=double.environment()["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=double.environment()["AWS_SECRET_ACCESS_KEY"],
    )
    keys = new_keys()
    (made,) = ec2.run_instances(
        ImageId=image_id("us-east-1", "amd64"),
        InstanceType="m6i.large",
        MinCount=1,
        MaxCount=1,
        UserData=keys.user_data(),
        InstanceInitiatedShutdownBehavior="terminate",
    )["Instances"]

    def seen() -> dict:
        return ec2.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"][0]

    host = keys.enter(seen()["PublicIpAddress"])
    assert host.run(["true"]).exit_code == 0
    host.close()
    assert "Cloud-init" in ec2.get_console_output(InstanceId=made["InstanceId"])["Output"]
    assert len(double.inventory().disks) == 1

    docker_machines.power_itself_off(made["InstanceId"])

    until(lambda: seen()["State"]["Name"] == "terminated", 60, "EC2 has noticed the power-off")
    assert seen()["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert (double.inventory().instances, double.inventory().disks) == ({}, [])
    assert docker_machines.power(made["InstanceId"]) is Power.absent
    ec2.close()
    double.close()
