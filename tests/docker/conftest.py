"""Machines on Docker Engine: the engine, the image, the driver, and machines that are gone after each test."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.machines import Machines, engine_fault, open_provisioner
from tests.support.s3 import S3Server, s3_server
from vmrun.provisioners.docker.driver import DockerProvisioner

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder boots machines; the first test also builds their image, which takes minutes at worst."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def provisioner() -> DockerProvisioner:
    """The driver on the engine that is here, its image built."""
    fault = engine_fault()
    if fault:
        pytest.skip(fault)
    driver = open_provisioner()
    driver.prepare()
    return driver


@pytest.fixture
def machines(provisioner: DockerProvisioner) -> Iterator[Machines]:
    """Machines of an owner of this test's own."""
    made = Machines(provisioner)
    yield made
    made.close()


@pytest.fixture
def bridge_s3(tmp_path: Path) -> Iterator[S3Server]:
    """An S3-compatible server that containers can reach, with a bucket."""
    subnet = subprocess.run(
        ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()
    # The bridge's own address is the first of its network.
    with s3_server(str(ipaddress.ip_network(subnet)[1]), tmp_path / "s3.log") as server:
        yield server
