"""Machines under a double: they boot from user data, survive a power-off, and are gone when their run is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.clouds.docker_machines import LABEL, DockerMachines
from tests.clouds.keys import new_keys
from tests.clouds.machines import Power
from tests.docker.machines import open_provisioner, until
from tests.support.leftovers import new_containers

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def test_a_machine_lives_through_a_power_off_from_inside(docker_machines: DockerMachines) -> None:
    keys = new_keys()
    address = docker_machines.boot("us-east-1/one", keys.user_data(), vcpus=128, memory=1 << 40)
    host = keys.enter(address)
    host.run(["sh", "-c", "echo kept > note"])
    host.close()
    assert docker_machines.power("us-east-1/one") is Power.on

    docker_machines.power_itself_off("us-east-1/one")
    until(lambda: docker_machines.power("us-east-1/one") is Power.off, 60, "the machine is off")
    assert docker_machines.address("us-east-1/one") == ""
    assert "Cloud-init" in docker_machines.console("us-east-1/one")

    docker_machines.start("us-east-1/one")
    host = keys.enter(docker_machines.address("us-east-1/one"))
    assert host.run(["cat", "note"]).stdout == b"kept\n"
    host.close()


def test_every_call_is_idempotent(docker_machines: DockerMachines) -> None:
    name = "one"
    assert docker_machines.power(name) is Power.absent
    docker_machines.stop(name)
    docker_machines.start(name)
    docker_machines.destroy(name)
    assert (docker_machines.address(name), docker_machines.console(name)) == ("", "")
    first = docker_machines.boot(name, "#cloud-config\n", vcpus=1, memory=1 << 29)
    assert docker_machines.boot(name, "#cloud-config\n", vcpus=1, memory=1 << 29) == first
    for _ in range(2):
        docker_machines.stop(name)
        assert docker_machines.power(name) is Power.off
    for _ in range(2):
        docker_machines.start(name)
        assert docker_machines.power(name) is Power.on
    for _ in range(2):
        docker_machines.destroy(name)
        assert docker_machines.power(name) is Power.absent


def test_the_machines_of_a_run_are_its_own(docker_machines: DockerMachines) -> None:
    """Not the docker driver's, seen by the check for what tests leave, and gone with their run."""
    other = DockerMachines()
    docker_machines.boot("one", "#cloud-config\n", vcpus=1, memory=1 << 29)
    other.boot("one", "#cloud-config\n", vcpus=1, memory=1 << 29)
    container = docker_machines.container("one")
    assert container in new_containers(frozenset())
    listed = subprocess.run(
        ["docker", "inspect", "--format", "{{json .Config.Labels}}", container], capture_output=True, check=True
    )
    assert LABEL.encode() in listed.stdout
    assert b"vmrun-owner" not in listed.stdout
    assert [one.name for one in open_provisioner().instances("double")] == []

    other.close()

    assert other.power("one") is Power.absent
    assert docker_machines.power("one") is Power.on


def test_a_machine_trusts_whom_this_computer_was_told_to_trust(
    docker_machines: DockerMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    docker_machines.boot("one", "#cloud-config\n", vcpus=1, memory=1 << 29)
    assert docker_machines.command("one", "cat", "/etc/ssl/double.crt") == "certificates"
    setting = docker_machines.command("one", "cat", "/etc/systemd/system.conf.d/50-trust.conf")
    assert "SSL_CERT_FILE=/etc/ssl/double.crt" in setting
    monkeypatch.delenv("SSL_CERT_FILE")
    docker_machines.boot("two", "#cloud-config\n", vcpus=1, memory=1 << 29)
    assert "double.crt" not in docker_machines.command("two", "ls", "/etc/ssl")
