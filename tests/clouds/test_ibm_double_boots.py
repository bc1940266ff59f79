"""A machine of the IBM double boots from its user data, answers at its floating IP, and can power itself off."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from ibm_vpc import VpcV1

from tests.clouds.docker_machines import DockerMachines
from tests.clouds.ibm import IbmDouble, open_double
from tests.clouds.trouble import Script
from tests.docker.machines import BOOT, CLOCK, until
from vmrun.core.clouds import Address
from vmrun.core.errors import Unreachable
from vmrun.core.ids import new_id
from vmrun.machine.user_data import Seed, user_data
from vmrun.transport.keys import new_key_pair
from vmrun.transport.ssh import Login, SshHost

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture
def double(docker_machines: DockerMachines) -> Iterator[IbmDouble]:
    opened = open_double(docker_machines, "127.0.0.1", Script())
    yield opened
    opened.close()


def test_it_boots_answers_and_powers_itself_off(double: IbmDouble) -> None:
    client, host = new_key_pair("client"), new_key_pair("host")
    seed = Seed(
        hard_deadline=float(int(CLOCK.now() + 600)),
        client_public_key=client.public,
        host_private_key=host.private,
        host_public_key=host.public,
        boot_grace=300.0,
        poll=1.0,
    )
    name = f"vm-{new_id(CLOCK, random.SystemRandom())}"
    api = VpcV1(version="2026-06-30", authenticator=IAMAuthenticator(double.iam.api_key, url=double.endpoint))
    api.set_service_url(f"{double.endpoint}/v1")
    (subnet,) = api.list_subnets(zone_name="us-south-1").get_result()["subnets"]
    (image,) = api.list_images(name="ibm-ubuntu-24-04-3-minimal-amd64-9").get_result()["images"]
    made = api.create_instance(
        {
            "name": name,
            "profile": {"name": "bx2-2x8"},
            "zone": {"name": "us-south-1"},
            "image": {"id": image["id"]},
            "user_data": user_data(seed),
            "primary_network_attachment": {"virtual_network_interface": {"subnet": {"id": subnet["id"]}}},
        }
    ).get_result()
    interface = made["primary_network_attachment"]["virtual_network_interface"]["id"]
    address = api.create_floating_ip({"name": name, "target": {"id": interface}}).get_result()["address"]

    def status() -> str:
        return str(api.get_instance(made["id"]).get_result()["status"])

    ssh = SshHost(Login(Address(address), client.private, (host.public,)), CLOCK)
    try:
        ssh.connect(timeout=BOOT)
        assert ssh.run(["id", "--user", "--name"]).stdout.decode().strip() == "vmrun"
        assert status() == "running"
        # It may be off before this computer has heard that it was begun.
        with contextlib.suppress(Unreachable):
            ssh.run(["sudo", "systemctl", "poweroff"])
    finally:
        ssh.close()

    until(lambda: status() == "stopped", BOOT, "the machine is stopped")
    assert len(double.inventory().addresses) == 1
    api.delete_instance(made["id"])
    until(lambda: double.inventory().instances == {}, BOOT, "the machine is gone")
    api.http_client.close()
