"""Hosts on paper: they answer the commands that borrow and clean them as real ones do, or not at all."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sim.keys import FakeSigner, fake_keyring
from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_PROOF, TAG_VM, Address, InstanceSpec, Need, instance_name
from vmrun.core.desk import Desk
from vmrun.core.hosts import Completed
from vmrun.core.ids import new_id
from vmrun.machine import borrowed
from vmrun.machine.commands import program_text
from vmrun.provisioners.ssh.driver import SshProvisioner
from vmrun.provisioners.ssh.errors import HostError, Trouble
from vmrun.provisioners.ssh.facts import FactsCache
from vmrun.provisioners.ssh.hosts import HostName, parse_host
from vmrun.store.memory import MemoryStore

GIB = 1 << 30
PROGRAMS = {program_text(name): name for name in ("borrow", "clean", "borrower", "facts")}


@dataclass
class PaperHost:
    """What one host has."""

    cpus: int = 8
    memory: int = 32 * GIB
    marker: dict[str, Any] | None = None
    #: What keeps it from answering.
    trouble: Trouble | None = None
    #: What stands in the way of borrowing it.
    refused: str = ""
    #: Programs that fail on it.
    broken: set[str] = field(default_factory=set)
    #: What was run, in order.
    ran: list[str] = field(default_factory=list)


class PaperHosts:
    """In the place of the SSH client."""

    def __init__(self, clock: ManualClock, count: int = 5) -> None:
        self._clock = clock
        self.hosts = {f"host{number}": PaperHost() for number in range(1, count + 1)}

    def run(self, host: HostName, argv: Sequence[str], *, input: bytes = b"", timeout: float = 60.0) -> Completed:
        found = self.hosts[host.host]
        name = PROGRAMS.get(argv[3], argv[0]) if len(argv) > 3 else argv[0]
        found.ran.append(name)
        if found.trouble is not None:
            raise HostError(host, found.trouble, "said so")
        if name in found.broken:
            return Completed(1, b"", b"it failed\n")
        answer = getattr(self, f"_{name}")(found, argv, input)
        return Completed(0, json.dumps(answer).encode(), b"")

    def address(self, host: HostName, user: str) -> Address:
        return Address("192.0.2.1", host.port or 22, user)

    def _borrow(self, host: PaperHost, _: Sequence[str], input: bytes) -> dict[str, Any]:
        document = json.loads(input)
        now = int(self._clock.now())
        if host.marker is not None and host.marker["vm"] != document["marker"]["vm"]:
            return {"holder": host.marker, "now": now}
        if host.marker is None and host.refused:
            return {"refused": host.refused}
        host.marker = host.marker or {**document["marker"], "at": now}
        return {"host_key": "ssh-ed25519 AAAA"}

    def _clean(self, host: PaperHost, argv: Sequence[str], _: bytes) -> dict[str, Any]:
        found = host.marker
        if found is not None and found["vm"] == argv[4]:
            host.marker = None
            return {"cleaned": True, "holder": ""}
        return {"cleaned": False, "holder": found["vm"] if found else ""}

    def _borrower(self, host: PaperHost, _: Sequence[str], __: bytes) -> dict[str, Any]:
        return {"marker": host.marker}

    def _facts(self, host: PaperHost, _: Sequence[str], __: bytes) -> dict[str, Any]:
        return {
            "python": "3.11.2", "arch": "x86_64", "libc": "glibc-2.36", "cpus": host.cpus, "memory": host.memory,
            "disk_free": 100 * GIB, "boot_id": "1", "hostname": "host", "uid": 0,
        }  # fmt: skip


class World:
    """Hosts, a store, and clients of a deployment."""

    def __init__(self, folder: Path, count: int = 5) -> None:
        self.clock, self.rng = ManualClock(), random.Random(7)
        self.store = MemoryStore()
        # As short as deployments' ids are.
        self.owner, self.other_owner = (new_id(self.clock, self.rng)[-10:] for _ in range(2))
        self.paper = PaperHosts(self.clock, count)
        self.hosts = tuple(parse_host(f"me@{name}") for name in self.paper.hosts)
        self.told: list[str] = []
        self.cache = FactsCache(folder / "ssh")
        self._next = 0

    def desk(self) -> Desk:
        return Desk(self.store, self.clock, self.rng, fake_keyring(), FakeSigner("client"))

    def client(self, *hosts: HostName) -> SshProvisioner:
        """As another process opens it."""
        return SshProvisioner(hosts or self.hosts, self.paper, self.desk, self.clock, self.cache, self.told.append)

    def spec(self, owner: str = "", host: str = "", *, lifetime: float = 3600.0) -> InstanceSpec:
        """A VM for the named host, by default for the next one."""
        vm, owner = new_id(self.clock, self.rng), owner or self.owner
        if not host:
            host = self.hosts[self._next % len(self.hosts)].host
            self._next += 1
        deadline = float(int(self.clock.now() + lifetime))
        (offer,) = self.client().offers(Need(zone=host))
        name = instance_name(owner, vm)
        seed = borrowed.BorrowSeed(
            vm=vm, owner=owner, name=name, hard_deadline=deadline, client_public_key="ssh-ed25519 AAAA"
        )
        tags = {TAG_OWNER: owner, TAG_VM: vm, TAG_DEADLINE: f"{deadline:.0f}", TAG_PROOF: "proof"}
        return InstanceSpec(vm, owner, name, offer, borrowed.borrow_data(seed), deadline, tags)
