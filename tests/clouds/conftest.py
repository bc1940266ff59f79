"""Machines that boot, for those tests of doubles that are marked `docker`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clouds.docker_machines import DockerMachines
from tests.docker.machines import engine_fault


@pytest.fixture
def docker_machines() -> Iterator[DockerMachines]:
    """Of this test's own, all gone afterwards; skips where there is no Docker Engine."""
    if fault := engine_fault():
        pytest.skip(fault)
    machines = DockerMachines()
    machines.prepare()
    yield machines
    machines.close()
