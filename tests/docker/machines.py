"""Machines on Docker Engine for tests: made with real user data, reached over real SSH, gone afterwards."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.shell import PATIENCE
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_VM,
    CloudError,
    Instance,
    InstanceNotFound,
    InstanceSpec,
    Need,
    instance_name,
)
from vmrun.core.ids import new_id
from vmrun.machine.user_data import Seed, user_data
from vmrun.provisioners.docker.api import Docker
from vmrun.provisioners.docker.driver import DockerProvisioner
from vmrun.provisioners.docker.image import MachineImage
from vmrun.transport.keys import KeyPair, new_key_pair
from vmrun.transport.ssh import Login, SshHost, SshLimits

CLOCK = SystemClock()
#: Shared by all test processes of this user, so that one builds the image and the others wait for it.
CACHE = Path(tempfile.gettempdir()) / "vmrun-docker-test-cache"
#: Seconds in which a machine answers SSH here, with a margin for a busy computer.
BOOT = 180.0


def engine_fault() -> str:
    """Why no machine can be booted here; empty if one can."""
    try:
        Docker().info()
    except CloudError as error:
        return error.message
    return ""


def open_provisioner(*, publish: bool = False) -> DockerProvisioner:
    """The real driver; the image is built at its first use."""
    docker = Docker()
    return DockerProvisioner(docker, MachineImage(docker, CLOCK, CACHE, print), CLOCK, publish=publish)


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`, asked again for up to `seconds`, and for `PATIENCE` at least.

    A failure that names `what` after that.
    """
    seconds = max(seconds, PATIENCE)
    give_up = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        CLOCK.sleep(0.05)


@dataclass(frozen=True)
class Plan:
    """A machine that may be created: its spec, and the keys that belong to it."""

    spec: InstanceSpec
    client: KeyPair
    host: KeyPair


@dataclass(frozen=True)
class Booted:
    """A machine that was created."""

    plan: Plan
    instance: Instance
    host: SshHost

    @property
    def name(self) -> str:
        return self.plan.spec.name


class Machines:
    """Makes machines of one owner, and removes them all."""

    def __init__(self, provisioner: DockerProvisioner) -> None:
        self.provisioner = provisioner
        self.owner = new_id(CLOCK, random.SystemRandom())
        self._hosts: list[SshHost] = []

    def plan(self, *, lifetime: float = 600.0, mounts: tuple[str, ...] = (), **seed: Any) -> Plan:
        """A plan for a machine; `seed` has fields of Seed."""
        vm, client, host = new_id(CLOCK, random.SystemRandom()), new_key_pair("client"), new_key_pair("host")
        deadline = float(int(CLOCK.now() + lifetime))
        chosen: dict[str, Any] = {
            "hard_deadline": deadline,
            "client_public_key": client.public,
            "host_private_key": host.private,
            "host_public_key": host.public,
            "boot_grace": 300.0,
            "poll": 1.0,
            **seed,
        }
        (offer,) = self.provisioner.offers(Need(cpus=1, memory=512 << 20))
        spec = InstanceSpec(
            vm=vm,
            owner=self.owner,
            name=instance_name(self.owner, vm),
            offer=offer,
            user_data=user_data(Seed(**chosen)),
            hard_deadline=deadline,
            tags={TAG_OWNER: self.owner, TAG_VM: vm, TAG_DEADLINE: f"{deadline:.0f}"},
            mounts=mounts,
            host_key=host.public,
        )
        return Plan(spec, client, host)

    def boot(self, plan: Plan | None = None, **seed: Any) -> Booted:
        """A machine that answers SSH."""
        booted = self.create(plan or self.plan(**seed))
        booted.host.connect(timeout=BOOT)
        return booted

    def create(self, plan: Plan) -> Booted:
        """A machine that was asked for, and may still be booting."""
        instance = self.provisioner.create(plan.spec)
        return Booted(plan, instance, self.reach(plan, instance))

    def reach(self, plan: Plan, instance: Instance, *host_keys: str, limits: SshLimits | None = None) -> SshHost:
        """A host for the machine, by default with the key of its user data pinned."""
        assert instance.address is not None
        login = Login(instance.address, plan.client.private, host_keys or (plan.host.public,))
        host = SshHost(login, CLOCK, limits=limits)
        self._hosts.append(host)
        return host

    def is_gone(self, booted: Booted) -> bool:
        """Whether the engine knows the machine no longer."""
        try:
            self.provisioner.get(booted.instance.id)
        except InstanceNotFound:
            return True
        return False

    def close(self) -> None:
        """Remove every machine of this owner; none is left, nor anything else of it."""
        for host in self._hosts:
            host.close()
        for instance in list(self.provisioner.instances(self.owner)):
            self.provisioner.delete(instance.id)
        assert list(self.provisioner.instances(self.owner)) == []
        assert list(self.provisioner.leftovers(self.owner)) == []


def same_machine_other_data(plan: Plan) -> Plan:
    """A plan under the same name that asks for something else."""
    return replace(plan, spec=replace(plan.spec, user_data=plan.spec.user_data + "\n"))
