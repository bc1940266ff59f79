"""What the account holds, how long each thing lived, and how instances come and go.

One address answers for all regions, so all are one namespace here; what is in a zone belongs to the zone's region.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tests.clouds.machines import Machines, Power
from vmrun.core.clock import Clock

from .profiles import Profile

ACCOUNT = "a/5eed5eed5eed5eed5eed5eed5eed5eed"
#: Prefix of identifiers of what is in a zone, by the number of the zone; IBM's own begin like this.
_ZONE_MARK = {"1": "0717", "2": "0727", "3": "0737"}


@dataclass(frozen=True)
class Pace:
    """Seconds that changes of state take."""

    pending: float = 0.05
    starting: float = 0.1
    stopping: float = 0.1
    deleting: float = 0.15


@dataclass
class Quotas:
    """What an account may have, by IBM's defaults."""

    vcpus: int = 200
    floating_ips_per_zone: int = 40
    vpcs: int = 10
    keys: int = 200


@dataclass(kw_only=True)
class Thing:
    """Any resource."""

    id: str
    name: str
    created: float
    resource_group: str
    #: Number in the order of creation, over all things of its kind.
    number: int = 0
    #: From when on lists and look-ups show it.
    visible: float = 0.0
    #: When it ceased to be; None while it is.
    gone: float | None = None


@dataclass(kw_only=True)
class Vpc(Thing):
    default_group: str = ""
    acl: str = field(default_factory=lambda: f"r006-{uuid.uuid4()}")
    routing_table: str = field(default_factory=lambda: f"r006-{uuid.uuid4()}")


@dataclass(kw_only=True)
class Subnet(Thing):
    vpc: Vpc
    zone: str
    cidr: str
    gateway: Gateway | None = None


@dataclass(kw_only=True)
class Group(Thing):
    vpc: Vpc
    #: Bodies of the rules.
    rules: list[dict[str, Any]] = field(default_factory=list)


@dataclass(kw_only=True)
class Gateway(Thing):
    vpc: Vpc
    zone: str
    address: FloatingIp


@dataclass(kw_only=True)
class Key(Thing):
    public_key: str
    type: str = "rsa"


@dataclass(kw_only=True)
class Interface(Thing):
    """A virtual network interface, or the older kind that is a part of its instance."""

    subnet: Subnet
    groups: list[Group]
    #: Part of its instance, without a life of its own.
    legacy: bool = False
    auto_delete: bool = True
    address: str = "0.0.0.0"
    instance: Instance | None = None
    #: Identifier and name of what ties it to its instance.
    attachment: str = ""
    attachment_name: str = ""


@dataclass(kw_only=True)
class Volume(Thing):
    zone: str
    #: GB.
    capacity: int
    profile: str
    tags: list[str]
    image: str
    instance: Instance | None = None
    delete_with_instance: bool = True
    attachment: str = ""
    attachment_name: str = ""


@dataclass(kw_only=True)
class FloatingIp(Thing):
    zone: str
    #: The address that it has while nothing uses it.
    reserved: str
    target: Interface | Gateway | None = None

    @property
    def address(self) -> str:
        """The machine's own, once it is a machine's: only that one can be reached here."""
        if isinstance(self.target, Interface) and self.target.address != "0.0.0.0":
            return self.target.address
        return self.reserved


@dataclass(kw_only=True)
class Instance(Thing):
    profile: Profile
    zone: str
    vpc: Vpc
    image: str
    interface: Interface
    boot: Volume
    user_data: str = ""
    spot: bool = False
    host_failure: str = "restart"
    preemption: str = "stop"
    metadata: dict[str, Any] = field(default_factory=dict)
    trusted_profile: str = ""
    keys: list[str] = field(default_factory=list)
    status: str = "pending"
    reasons: list[dict[str, str]] = field(default_factory=list)
    #: What it becomes, and when, in order.
    plan: list[tuple[float, str]] = field(default_factory=list)
    #: There is a machine under it.
    machine: bool = False
    #: Somebody else's: the tests' own hands.
    planted: bool = False


T = TypeVar("T", bound=Thing)


class Shelf(Generic[T]):
    """All things of one kind, those that are gone too, since lists may lag."""

    def __init__(self, kind: str) -> None:
        #: In the words of messages.
        self.kind = kind
        self._things: dict[str, T] = {}

    def add(self, thing: T) -> T:
        thing.number = len(self._things) + 1
        self._things[thing.id] = thing
        return thing

    def all(self) -> Iterator[T]:
        """Those that are there now, hidden ones too, in the order of creation."""
        return (thing for thing in list(self._things.values()) if thing.gone is None)

    def seen(self, now: float) -> list[T]:
        """Those that a list shows when it shows what was at `now`."""
        return [
            thing
            for thing in self._things.values()
            if thing.created <= now and thing.visible <= now and (thing.gone is None or thing.gone > now)
        ]

    def get(self, id: str) -> T | None:
        """One that is there now, hidden or not."""
        thing = self._things.get(id)
        return thing if thing is not None and thing.gone is None else None

    def named(self, name: str, region: str = "") -> T | None:
        """One that is there now; `region`: only one that is in a zone of that region."""
        for thing in self.all():
            if thing.name == name and (not region or region_of(getattr(thing, "zone", "")) == region):
                return thing
        return None


def region_of(zone: str) -> str:
    """The region that a zone is in."""
    return zone.rpartition("-")[0]


#: What is to be done to machines once the account's lock is free again.
Work = Callable[[], None]


class Account:
    """Everything, and the clock by which it changes. Whoever touches it holds `lock`."""

    def __init__(self, clock: Clock, machines: Machines, endpoint: str, pace: Pace) -> None:
        self.clock = clock
        self.machines = machines
        self.endpoint = endpoint
        #: Address of the VPC API of every region.
        self.base = f"{endpoint}/v1"
        self.pace = pace
        self.quotas = Quotas()
        self.lock = threading.RLock()
        #: Identifier to name.
        self.resource_groups = {uuid.uuid4().hex: "Default"}
        self.trusted_profiles = {f"Profile-{uuid.uuid4()}": "machines"}
        self.instances: Shelf[Instance] = Shelf("instance")
        self.interfaces: Shelf[Interface] = Shelf("virtual network interface")
        self.volumes: Shelf[Volume] = Shelf("volume")
        self.addresses: Shelf[FloatingIp] = Shelf("floating IP")
        self.vpcs: Shelf[Vpc] = Shelf("VPC")
        self.subnets: Shelf[Subnet] = Shelf("subnet")
        self.groups: Shelf[Group] = Shelf("security group")
        self.gateways: Shelf[Gateway] = Shelf("public gateway")
        self.keys: Shelf[Key] = Shelf("key")
        self._spare = 0

    @staticmethod
    def id(zone: str = "") -> str:
        """A new identifier, in a zone or of a region."""
        return f"{_ZONE_MARK[zone[-1]] if zone else 'r006'}-{uuid.uuid4()}"

    @staticmethod
    def crn(kind: str, id: str, zone: str = "") -> str:
        return f"crn:v1:bluemix:public:is:{zone or 'us-south'}:{ACCOUNT}::{kind}:{id}"

    def now(self) -> float:
        return self.clock.now()

    def default_resource_group(self) -> str:
        return next(iter(self.resource_groups))

    def spare_address(self) -> str:
        """An address that nothing answers at, from the block that is kept for documentation."""
        self._spare += 1
        return f"198.51.100.{self._spare % 254 + 1}"

    def settle(self, *, look: bool = True) -> None:
        """Let happen what has become due and, unless `look` is false, notice machines that powered themselves off."""
        for instance in self.instances.all():
            self._settle(instance, look=look)

    def _settle(self, instance: Instance, *, look: bool) -> None:
        now = self.now()
        while instance.plan and instance.plan[0][0] <= now:
            at, status = instance.plan.pop(0)
            if status == "gone":
                self._gone(instance, at)
                return
            instance.status = status
        if instance.status != "running" or not instance.machine or not look:
            return
        if self.machines.power(instance.id) is not Power.on:
            instance.status = "stopped"

    def _gone(self, instance: Instance, at: float) -> None:
        instance.gone = at
        interface, boot = instance.interface, instance.boot
        for address in self.addresses.all():
            if address.target is interface:
                address.target = None
        interface.instance = boot.instance = None
        if interface.auto_delete or interface.legacy:
            interface.gone = at
        if boot.delete_with_instance:
            boot.gone = at

    def boot(self, instance: Instance, *, doomed: bool) -> Work:
        """Start it for the first time; doomed: it will find no capacity."""

        def work() -> None:
            address = ""
            if not doomed:
                address = self.machines.boot(
                    instance.id,
                    instance.user_data,
                    vcpus=instance.profile.vcpus,
                    memory=instance.profile.gib << 30,
                )
            with self.lock:
                instance.machine = not doomed
                if address:
                    instance.interface.address = address
                if instance.status == "pending":
                    start = self.now() + self.pace.pending
                    end = (start + self.pace.starting, "failed" if doomed else "running")
                    instance.plan = [(start, "starting"), end]
                    if doomed:
                        instance.reasons = [no_capacity()]
                    return
            self.machines.destroy(instance.id)

        return work

    def start(self, instance: Instance) -> Work:
        instance.status, instance.reasons = "starting", []
        instance.plan = [(self.now() + self.pace.starting, "running")]

        def work() -> None:
            self.machines.start(instance.id)
            address = self.machines.address(instance.id)
            with self.lock:
                # Another boot may have brought another address.
                instance.interface.address = address or instance.interface.address

        return work

    def stop(self, instance: Instance) -> Work:
        instance.status = "stopping"
        instance.plan = [(self.now() + self.pace.stopping, "stopped")]
        return lambda: self.machines.stop(instance.id)

    def delete(self, instance: Instance) -> Work:
        instance.status = "deleting"
        instance.plan = [(self.now() + self.pace.deleting, "gone")]
        return lambda: self.machines.destroy(instance.id)

    def preempt(self, instance: Instance) -> Work:
        """Take a spot instance back, by the policy that it was created with."""
        work = self.delete(instance) if instance.preemption == "delete" else self.stop(instance)
        instance.reasons = [
            {"code": "stopped_by_preemption", "message": "The instance was stopped because its capacity was needed."}
        ]
        return work


def no_capacity() -> dict[str, str]:
    """Why an instance failed for which there was no room."""
    return {
        "code": "cannot_start_capacity",
        "message": "The virtual server instance could not start because of insufficient capacity for the profile.",
        "more_info": "https://cloud.ibm.com/docs/vpc?topic=vpc-instance-status-messages",
    }
