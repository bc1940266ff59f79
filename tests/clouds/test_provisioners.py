"""The drivers of the clouds on their doubles: the behaviour suite of provisioners, and accounts that end up empty."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clouds.double import Inventory
from tests.clouds.machines import PaperMachines
from tests.clouds.opening import open_double
from tests.suites.provisioner import BEHAVIOURS, Harness, name, poll_until
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_VM, Instance, InstanceSpec, Need, instance_name
from vmrun.core.ids import new_deployment_id, new_id
from vmrun.provisioners.context import ProvisionerContext
from vmrun.registry import load_estate, load_provisioner

CLOCK = SystemClock()
#: A small type of each cloud whose driver is to be tried.
TYPES = {"ec2": "m6i.large"}


class CloudHarness:
    """A driver and its double, in an account that `vmrun init` has made ready for both owners."""

    boot_seconds = 20.0
    delete_seconds = 20.0

    def __init__(self, cloud: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud = cloud
        self.rng = random.SystemRandom()
        self.owner, self.other_owner = new_deployment_id(CLOCK, self.rng), new_deployment_id(CLOCK, self.rng)
        self.double = open_double(cloud, PaperMachines())
        for key, value in self.double.environment().items():
            monkeypatch.setenv(key, value)
        context = ProvisionerContext(folder, folder, CLOCK, self.rng, self.double.settings())
        self.provisioner = load_provisioner(cloud, context)
        self.estate = load_estate(cloud, context)
        for owner in (self.owner, self.other_owner):
            list(self.estate.establish(owner))
        (self.offer, *_) = self.provisioner.offers(Need(instance_type=TYPES[cloud]))

    def spec(self, owner: str) -> InstanceSpec:
        vm, deadline = new_id(CLOCK, self.rng), float(int(CLOCK.now() + 3600))
        return InstanceSpec(
            vm=vm,
            owner=owner,
            name=instance_name(owner, vm),
            offer=self.offer,
            user_data="#cloud-config\n",
            hard_deadline=deadline,
            tags={TAG_OWNER: owner, TAG_VM: vm, TAG_DEADLINE: f"{deadline:.0f}"},
        )

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return poll_until(condition, seconds)

    def power_off(self, instance: Instance) -> None:
        self.double.power_off(instance.name)

    def close(self) -> None:
        """Nothing is left in the account once what the suite left is deleted and `init` is undone."""
        try:
            for owner in (self.owner, self.other_owner):
                for instance in self.provisioner.instances(owner):
                    self.provisioner.delete(instance.id)
                list(self.estate.dismantle(owner))
            # Some clouds take their time to delete.
            poll_until(lambda: self.double.inventory() == Inventory(), self.delete_seconds)
            assert self.double.inventory() == Inventory()
        finally:
            self.double.close()


@pytest.fixture(params=sorted(TYPES))
def harness(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudHarness]:
    made = CloudHarness(request.param, tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=name)
def test_behaves_like_a_provisioner(behaviour: Callable[[Harness], None], harness: CloudHarness) -> None:
    behaviour(harness)
