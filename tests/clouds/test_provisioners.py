"""The drivers of the clouds: the behaviour suite of provisioners, on their doubles and, marked `real`, on the clouds.

Other drivers run the same suite beside what is their own: the fake cloud, `local` and `ssh` in their tests, `docker` in
`tests/docker`. How to run it on a real cloud: `docs/reference/doubles.md`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.clouds.double import Inventory
from tests.clouds.keys import Keys, new_keys
from tests.clouds.machines import PaperMachines
from tests.clouds.opening import open_double
from tests.conftest import given_environment, real_clouds
from tests.suites.provisioner import BEHAVIOURS, Harness, name, poll_until
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_VM,
    Instance,
    InstanceSpec,
    InstanceState,
    Need,
    Offer,
    Provisioner,
    instance_name,
)
from vmrun.core.estates import Estate
from vmrun.core.ids import new_deployment_id, new_id
from vmrun.provisioners.context import ProvisionerContext
from vmrun.registry import load_estate, load_provisioner
from vmrun.settings import load_settings

CLOCK = SystemClock()
#: A small type of each cloud.
TYPES = {"ec2": "m6i.large", "gce": "n2-standard-4", "ibm": "bx2-2x8"}
#: Seconds that a machine on a real cloud may live at most; every one is made to end by then, whatever becomes of us.
LIFETIME = 1800.0


class CloudHarness:
    """A driver, in an account that `vmrun init` has made ready for two owners who own nothing else."""

    boot_seconds = 20.0
    delete_seconds = 20.0

    def __init__(self, cloud: str, folder: Path, table: Mapping[str, object]) -> None:
        self.cloud = cloud
        self.rng = random.SystemRandom()
        self.owner, self.other_owner = new_deployment_id(CLOCK, self.rng), new_deployment_id(CLOCK, self.rng)
        context = ProvisionerContext(folder, folder, CLOCK, self.rng, table)
        self.provisioner: Provisioner = load_provisioner(cloud, context)
        self.estate: Estate = load_estate(cloud, context)
        self._offer: Offer | None = None

    def establish(self) -> None:
        """May make things: `close` undoes it, whether or not it was finished."""
        for owner in (self.owner, self.other_owner):
            list(self.estate.establish(owner))

    @property
    def offer(self) -> Offer:
        if self._offer is None:
            self._offer = next(iter(self.provisioner.offers(Need(instance_type=TYPES[self.cloud]))))
        return self._offer

    def user_data(self, vm: str) -> str:
        """A machine of paper needs none; and it is another one for each VM."""
        return f"#cloud-config\n# {vm}\n"

    def spec(self, owner: str) -> InstanceSpec:
        vm, deadline = new_id(CLOCK, self.rng), float(int(CLOCK.now() + LIFETIME))
        return InstanceSpec(
            vm=vm,
            owner=owner,
            name=instance_name(owner, vm),
            offer=self.offer,
            user_data=self.user_data(vm),
            hard_deadline=deadline,
            tags={TAG_OWNER: owner, TAG_VM: vm, TAG_DEADLINE: f"{deadline:.0f}"},
        )

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return poll_until(condition, seconds)

    def power_off(self, instance: Instance) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End every machine that has one of the two owners, give back what they left, and undo `establish`."""
        for owner in (self.owner, self.other_owner):
            for instance in self.provisioner.instances(owner):
                self.provisioner.delete(instance.id)
            assert self.wait_until(lambda owner=owner: not self._alive(owner), self.delete_seconds), owner  # type: ignore[misc]
            for leftover in self.provisioner.leftovers(owner):
                self.provisioner.discard(leftover)
            list(self.estate.dismantle(owner))

    def _alive(self, owner: str) -> list[Instance]:
        return [one for one in self.provisioner.instances(owner) if one.state is not InstanceState.gone]


class DoubleHarness(CloudHarness):
    """On a double, whose account is empty in the end."""

    def __init__(self, cloud: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.double = open_double(cloud, PaperMachines())
        for key, value in self.double.environment().items():
            monkeypatch.setenv(key, value)
        super().__init__(cloud, folder, {"ssh_from": ("198.51.100.7/32",), **self.double.settings()})

    def power_off(self, instance: Instance) -> None:
        self.double.power_off(instance.name)

    def close(self) -> None:
        try:
            super().close()
            # Some clouds take their time to delete.
            poll_until(lambda: self.double.inventory() == Inventory(), self.delete_seconds)
            assert self.double.inventory() == Inventory()
        finally:
            self.double.close()


class RealHarness(CloudHarness):
    """On the cloud itself, with the configuration and the credentials of whoever runs the tests."""

    boot_seconds = 600.0
    delete_seconds = 600.0

    def __init__(self, cloud: str, folder: Path, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> None:
        for key, value in environ.items():
            monkeypatch.setenv(key, value)
        settings = load_settings(environ=environ, cwd=Path.cwd())
        super().__init__(cloud, folder, settings.driver_table(cloud))
        self._keys: dict[str, Keys] = {}

    def user_data(self, vm: str) -> str:
        """With the dead-man timer, as always."""
        self._keys[vm] = new_keys()
        return self._keys[vm].user_data(LIFETIME)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return poll_until(condition, seconds, pause=5.0)

    def power_off(self, instance: Instance) -> None:
        found = self.provisioner.get(instance.id)
        assert found.address is not None
        host = self._keys[found.tags[TAG_VM]].enter(found.address.host, timeout=300.0)
        try:
            host.run(["sudo", "-n", "systemctl", "poweroff", "--no-block"])
        finally:
            host.close()


#: Each behaviour may boot a machine or two.
_REAL = (pytest.mark.real, pytest.mark.timeout(1800))


@pytest.fixture(params=[*TYPES, *(pytest.param(f"real-{cloud}", marks=_REAL) for cloud in TYPES)])
def harness(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudHarness]:
    kind, _, cloud = request.param.rpartition("-")
    made: CloudHarness
    if kind:
        if cloud not in real_clouds():
            pytest.skip(f"VMRUN_REAL does not name {cloud}")
        made = RealHarness(cloud, tmp_path, monkeypatch, given_environment(request.config))
    else:
        made = DoubleHarness(cloud, tmp_path, monkeypatch)
    try:
        made.establish()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=name)
def test_behaves_like_a_provisioner(behaviour: Callable[[Harness], None], harness: CloudHarness) -> None:
    behaviour(harness)
