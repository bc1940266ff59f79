"""A cloud on paper under a clock in hand: its double, the driver with the real SDK, and a way in without SSH."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tests.clouds import gce, ibm
from tests.clouds.double import Double
from tests.clouds.ec2 import Ec2Double
from tests.clouds.machines import PaperMachines
from tests.clouds.trouble import Call, Script
from vmrun.core.clock import Clock
from vmrun.core.clouds import Instance, Provisioner
from vmrun.core.records import Ready
from vmrun.core.vm_ledger import VmLedger
from vmrun.crypto import public_hex
from vmrun.fleet.address import wait_for_address
from vmrun.fleet.ssh import SshBringUp


@dataclass(frozen=True)
class Paper:
    """What the tests know of one cloud beforehand."""

    name: str
    #: A type that every zone below has, in both markets.
    instance_type: str
    regions: tuple[str, ...]
    #: Where it is offered, in the order in which a search tries them.
    zones: tuple[str, ...]
    #: Operations that make or end something, by what they do.
    verbs: dict[str, str]


PAPERS = {
    "ec2": Paper(
        "ec2",
        "m6i.large",
        ("us-east-1", "us-west-2"),
        tuple(f"us-east-1{letter}" for letter in "abcdf") + tuple(f"us-west-2{letter}" for letter in "abcd"),
        {"RunInstances": "create", "TerminateInstances": "delete"},
    ),
    "gce": Paper(
        "gce",
        "n2-standard-4",
        ("us-central1", "us-east1"),
        tuple(f"us-central1-{letter}" for letter in "abcf") + tuple(f"us-east1-{letter}" for letter in "bcd"),
        {"compute.instances.insert": "create", "compute.instances.delete": "delete"},
    ),
    "ibm": Paper(
        "ibm",
        "bxf-2x8",
        ("us-east", "us-south"),
        tuple(f"us-{side}-{number}" for side in ("east", "south") for number in (1, 2, 3)),
        {
            "create_instance": "create",
            "delete_instance": "delete",
            "create_floating_ip": "give",
            "delete_floating_ip": "release",
        },
    ),
}
#: How the names of operations begin, or end, that change nothing.
_READS = ("Describe", "Get", "list_", "get_", "request_token", "GET ")
_READ_VERBS = ("get", "list", "aggregatedList", "getSerialPortOutput")


def open_on(clock: Clock, cloud: str) -> Double:
    """The double of a cloud with machines of paper, for which time passes as `clock` says."""
    if cloud == "ec2":
        return Ec2Double(PaperMachines(), now=clock.monotonic)
    if cloud == "gce":
        return gce.open_double(PaperMachines(), "127.0.0.1", Script(), clock=clock)
    return ibm.open_double(PaperMachines(), "127.0.0.1", Script(), clock=clock)


def changes(double: Double, paper: Paper) -> list[str]:
    """The calls that made or ended something, in order, each as `OPERATION TYPE ZONE`.

    A deletion is told with the type and zone of the machine of that name. AssertionError for an operation of which it
    is not known what it does.
    """
    places: dict[str, str] = {}
    found = []
    for call in list(double.script.calls):
        if paper.verbs.get(call.operation) == "create":
            places[str(call.about["name"])] = f"{call.about['instance_type']} {call.about['zone']}"
        elif call.operation not in paper.verbs:
            assert _reads(call.operation), call.operation
            continue
        found.append(f"{call.operation} {places[_machine(double, call)]}")
    return found


def _reads(operation: str) -> bool:
    return operation.startswith(_READS) or operation.rpartition(".")[2] in _READ_VERBS


def _machine(double: Double, call: Call) -> str:
    """The name of the machine that a call is about."""
    if isinstance(double, Ec2Double) and "id" in call.about:
        record = double._records.find(str(call.about["id"]))
        assert record is not None
        return record.name
    return str(call.about["name"])


class PaperWayIn(SshBringUp):
    """As over SSH, with the same user data, but without the SSH: machines of paper answer nowhere."""

    #: Done to each machine that has an address, in turn, instead of getting it ready.
    acts: ClassVar[list[Callable[[Instance], None]]] = []

    def make_ready(self, ledger: VmLedger, provisioner: Provisioner, instance: Instance, hard_deadline: float) -> None:
        address = wait_for_address(provisioner, instance, self._deck.desk.clock, self._order.timings.ssh_timeout)
        self.reached()
        if self.acts:
            self.acts.pop(0)(instance)
        key = public_hex(agent_key(self._vm))
        assert ledger.ready(Ready(key, "boot", host=address.host, workers=2, python="3.11"))

    def reached(self) -> None:
        """The machine has an address, and nothing was done on it yet."""


def agent_key(vm: str) -> bytes:
    """The private key of a VM's agent, which lives on paper too."""
    return hashlib.sha256(f"vm:{vm}".encode()).digest()
