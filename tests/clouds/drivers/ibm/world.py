"""A double of IBM Cloud with machines of paper, and drivers and estates that work against it with the real SDK."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clouds.ibm import IbmDouble
from tests.clouds.trouble import Rule
from tests.suites.provisioner import poll_until
from tests.unit.provisioners.ibm.bodies import OTHER, OWNER, offer
from vmrun.core.clock import Clock, SystemClock
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_VM,
    Instance,
    InstanceSpec,
    InstanceState,
    Provisioner,
    instance_name,
)
from vmrun.core.secret import Secret
from vmrun.provisioners.context import ProvisionerContext
from vmrun.provisioners.ibm.driver import open_driver
from vmrun.provisioners.ibm.estate import IbmEstate, open_estate

GIB = 1 << 30
SMALL = offer(instance_type="bx2-2x8", vcpus=2, cores=1, memory=8 * GIB, usd_per_hour=0.1)


class QuickClock(SystemClock):
    """A hundred times as fast when it sleeps; so that waits for what the double does in no time are none."""

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds / 100)


@dataclass
class World:
    """A double, a driver that works against it, and what the suite asks of a harness."""

    double: IbmDouble
    cache_dir: Path
    owner: str = OWNER
    other_owner: str = OTHER
    boot_seconds: float = 20.0
    delete_seconds: float = 20.0
    changes: dict[str, Any] = field(default_factory=dict)
    _provisioner: Provisioner | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def provisioner(self) -> Provisioner:
        if self._provisioner is None:
            self._provisioner = self.another()
        return self._provisioner

    def another(self, **changes: Any) -> Provisioner:
        """A driver of another process, which remembers nothing."""
        return open_driver(self.context(QuickClock(), **changes))

    def estate(self, clock: Clock | None = None, **changes: Any) -> IbmEstate:
        return open_estate(self.context(clock or QuickClock(), **changes))

    def context(self, clock: Clock, **changes: Any) -> ProvisionerContext:
        key = Secret(self.double.environment()["IBMCLOUD_API_KEY"])
        settings = {
            **self.double.settings(),
            "api_key": key,
            "ssh_from": ("198.51.100.7/32",),
            **self.changes,
            **changes,
        }
        return ProvisionerContext(self.cache_dir, self.cache_dir, clock, random.Random(1), settings=settings)

    def spec(self, owner: str) -> InstanceSpec:
        vm = f"{next(self._numbers):026d}"
        return InstanceSpec(
            vm=vm,
            owner=owner,
            name=instance_name(owner, vm),
            offer=SMALL,
            user_data=f"#cloud-config\n# {vm}\n",
            hard_deadline=1_900_000_000,
            tags={TAG_OWNER: owner, TAG_VM: vm, TAG_DEADLINE: "1900000000"},
        )

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return poll_until(condition, seconds)

    def power_off(self, instance: Instance) -> None:
        self.double.power_off(instance.name)

    def script(self, *rules: Rule) -> None:
        self.double.script.clear()
        for rule in rules:
            self.double.script.add(rule)

    def calls(self, *operations: str) -> list[str]:
        """The operations that the double was asked for, of these."""
        return [call.operation for call in self.double.script.calls if call.operation in operations]

    def running(self, spec: InstanceSpec) -> Instance:
        made = self.provisioner.create(spec)
        assert poll_until(lambda: self.provisioner.get(made.id).state is InstanceState.running, 20)
        return self.provisioner.get(made.id)

    def left(self) -> list[str]:
        """All that somebody pays for."""
        found = self.double.inventory()
        return [*found.instances, *found.disks, *found.addresses]

    def all_gone(self) -> bool:
        return poll_until(lambda: not self.left(), 20)
