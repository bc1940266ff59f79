"""What vmrun asks of a cloud, and the words for what it gets: offers, instances, capabilities, errors.

A driver is a folder under `vmrun/provisioners/`, one line in its registry, one parameter in the behaviour suite
and a page of documentation. It talks to its cloud and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Protocol

from .errors import VmrunError
from .notices import Notices

#: Names of instances: `vmrun-<deployment id>-<vm id>`; ownership can be read from the name alone.
NAME_PREFIX = "vmrun"
TAG_OWNER, TAG_VM, TAG_DEADLINE, TAG_PROOF = "vmrun-owner", "vmrun-vm", "vmrun-deadline", "vmrun-proof"


def instance_name(owner: str, vm: str) -> str:
    """The name that an intent fixes before anything is created."""
    return f"{NAME_PREFIX}-{owner}-{vm}"


class Market(Enum):
    """Which prices a job may be rented at."""

    on_demand = "on-demand"
    #: Spot prices only: cheaper, and the cloud may take the machine back at any time.
    spot = "spot"
    #: Spot first; on-demand where no spot machine is to be had.
    spot_with_fallback = "spot-with-fallback"


@dataclass(frozen=True, slots=True)
class Need:
    """What a job asks of a machine; None and 0 mean "any"."""

    cpus: int = 0
    #: Bytes that must be usable.
    memory: int = 0
    #: Bytes that one task may take, so that a machine on which not one fits is of no use.
    task_memory: int = 0
    #: Bytes.
    disk: int = 0
    arch: str = ""
    instance_type: str = ""
    region: str = ""
    zone: str = ""
    market: Market = Market.on_demand


@dataclass(frozen=True, slots=True)
class Offer:
    """An instance type in a zone at a price."""

    on: str
    instance_type: str
    region: str
    zone: str
    arch: str
    vcpus: int
    #: Physical cores.
    cores: int
    #: Bytes, as sold.
    memory: int
    #: US dollars an hour; None when unknown, 0 for machines that cost nothing.
    usd_per_hour: float | None
    spot: bool = False
    #: Date of the price, ISO.
    priced_at: str = ""
    #: The quota that the machine counts against, as its cloud names it; "" if it has none.
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """All that is fixed before the create call, so that the same call can be sent again."""

    #: The VM's id: the idempotency token.
    vm: str
    #: The deployment's id.
    owner: str
    name: str
    offer: Offer
    #: cloud-init user data; its first action arms the dead-man timer. Byte-stable for one `vm`.
    user_data: str
    #: Seconds since the epoch after which the instance must not exist.
    hard_deadline: float
    tags: dict[str, str] = field(default_factory=dict)
    #: Directories of this machine that the instance sees under the same path (a `file://` store).
    mounts: tuple[str, ...] = ()
    #: Bytes of disk; 0 for the driver's default.
    disk: int = 0
    #: Public host key that the user data installs, in OpenSSH form.
    host_key: str = ""


class InstanceState(Enum):
    """What the cloud says of an instance."""

    #: Accepted, not yet running.
    pending = "pending"
    running = "running"
    #: Powered off, still there (and perhaps still billed).
    stopped = "stopped"
    #: Being deleted.
    stopping = "stopping"
    #: Known to the cloud only as gone.
    gone = "gone"


@dataclass(frozen=True, slots=True)
class Address:
    """Where SSH answers; an empty host means that the machine is this one."""

    host: str
    port: int = 22
    user: str = "vmrun"


@dataclass(frozen=True, slots=True)
class Instance:
    """One rented machine as its cloud reports it."""

    #: The cloud's own identifier.
    id: str
    name: str
    on: str
    state: InstanceState
    region: str = ""
    zone: str = ""
    instance_type: str = ""
    address: Address | None = None
    tags: dict[str, str] = field(default_factory=dict)
    #: Seconds since the epoch, on the cloud's clock; 0 if it does not tell.
    created_at: float = 0.0
    #: Why the cloud ended it, or could not start it, as a sentence; "" when it does not tell or nothing is wrong.
    reason: str = ""
    #: What kind of failure that reason is, for the choice of what to try next; None when it is none.
    fault: Fault | None = None
    #: Public host key in OpenSSH form, where the machine has one of its own and the driver made sure of it.
    host_key: str = ""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A resource without a machine: disk, address, key, group."""

    on: str
    kind: str
    #: The cloud's own identifier, with all that `discard` needs to find it.
    id: str
    name: str
    region: str = ""
    #: Seconds since the epoch, on the cloud's clock; 0 if it does not tell.
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver's cloud can do, as data, so that no caller asks which cloud it is."""

    #: `ssh`, or `process` for machines that are a directory and a process on this one.
    transport: str = "ssh"
    #: The cloud itself deletes an instance at a time given at its creation.
    provider_ttl: bool = False
    #: A power-off from inside deletes the instance.
    poweroff_deletes: bool = False
    #: Tags are part of the create call.
    atomic_tags: bool = True
    #: A `file://` store can be seen from inside (InstanceSpec.mounts).
    mounts: bool = False
    #: The machine shares this machine's network, so it needs this machine's certificate bundle.
    shares_network: bool = False
    spot: bool = False
    #: Machines are those that the user owns: they are cleaned and never deleted.
    borrowed: bool = False
    #: Seconds after a create call of unknown outcome within which its instance may still appear in the listing.
    settle: float = 0.0
    #: A program for the user data by which a machine deletes itself at its cloud, where a power-off alone does not.
    self_delete: str = ""
    #: How a spot machine learns that it will be taken back; None where its cloud does not tell it.
    notices: Notices | None = None


class Fault(Enum):
    """Kinds of cloud errors; failover goes by them."""

    stockout = "stockout"
    quota = "quota"
    not_offered = "not-offered"
    throttle = "throttle"
    permission = "permission"
    config = "config"
    billing = "billing"
    #: Something that was not made for this intent has the machine's name. It is left alone; another name will do.
    name_taken = "name-taken"
    #: The cloud took a spot machine back while it was made ready.
    preempted = "preempted"
    #: No answer, or a failure of the cloud's own: what was asked for may or may not have happened.
    unavailable = "unavailable"
    unknown = "unknown"


class Scope(Enum):
    """How far a fault reaches: which other offers it rules out."""

    #: This type in this zone and market.
    offer = "offer"
    zone = "zone"
    #: Every type of the same quota bucket in this region.
    bucket = "bucket"
    region = "region"
    cloud = "cloud"


class CloudError(VmrunError):
    """A cloud refused or failed."""

    code = "cloud"
    exit_code: ClassVar[int] = 4

    def __init__(
        self,
        message: str,
        *,
        fault: Fault = Fault.unknown,
        scope: Scope = Scope.offer,
        cloud_code: str = "",
        bucket: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.fault = fault
        self.scope = scope
        #: The cloud's own name of the error, such as `InsufficientInstanceCapacity`; "" if it gave none.
        self.cloud_code = cloud_code
        #: For a quota: its name at the cloud, which is what to ask for more of.
        self.bucket = bucket


class InstanceNotFound(CloudError):
    """The cloud does not know this instance (any more)."""

    code = "instance-not-found"


class Provisioner(Protocol):
    """The driver of one cloud. Every call is idempotent and returns, or raises CloudError, in bounded time."""

    name: str
    capabilities: Capabilities

    def offers(self, need: Need) -> Iterable[Offer]:
        """What could be rented for `need`, in any order."""
        ...

    def prepare(self) -> None:
        """Do what must be done once before the first create, such as building an image; instant when it is done."""
        ...

    def create(self, spec: InstanceSpec) -> Instance:
        """Create the instance named in `spec`, or return the one that an earlier call with this spec created.

        Returns as soon as the cloud accepted; the instance may be pending and without an address.
        """
        ...

    def get(self, id: str) -> Instance:
        """One instance, uncached. Raises InstanceNotFound."""
        ...

    def instances(self, owner: str) -> Iterator[Instance]:
        """Every instance of this owner, from the cloud, uncached, complete or CloudError; stopped ones too."""
        ...

    def delete(self, id: str) -> None:
        """Delete one instance and all that was created with it; not found is success."""
        ...

    def leftovers(self, owner: str) -> Iterator[Leftover]:
        """Resources of this owner that no instance uses, from the cloud, complete or CloudError."""
        ...

    def discard(self, leftover: Leftover) -> None:
        """Delete a leftover; not found is success, and one that an instance uses by now is left alone."""
        ...

    def boot_log(self, id: str) -> str:
        """The last of what the machine wrote to its console, for a report of a failed boot; "" if there is none."""
        ...
