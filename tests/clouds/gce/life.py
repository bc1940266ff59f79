"""The life of instances: from the create call to the last trace, by the double's clock and what their machines do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.clouds.machines import Machines, PaperMachines, Power

from . import links
from .building import Built
from .faults import Failure, Refusal
from .operations import Operations
from .store import Key, Resource, Store

#: Machines that are made, stopped or removed at the same time.
_HANDS = 32


@dataclass
class Host:
    """What is under one instance."""

    key: Key
    #: As `Machines` knows it; "": nothing, the instance only looks like one.
    machine: str
    #: What is being done to the machine, one thing after the other.
    work: Future[str] | None = None
    #: When the run time that was asked for is over.
    ends_at: float | None = None
    #: Until when look-ups and lists do not show it.
    hidden_until: float = 0.0
    #: Operations that are done when it is gone; there is one as soon as it is being deleted.
    deletions: list[Key | None] = field(default_factory=list)


@dataclass(frozen=True)
class _Due:
    """Something that happens when it is time, and the work that it waits for is over."""

    at: float
    work: Future[str] | None
    then: Callable[[], None]


class Life:
    """All instances. Its owner holds a lock at every call, and calls `settle` before it looks at anything."""

    def __init__(
        self, store: Store, operations: Operations, machines: Machines, pace: float, report: Callable[[str], None]
    ) -> None:
        self._store = store
        self._operations = operations
        self._machines = machines
        #: Seconds that everything takes at least that a cloud does not do at once.
        self._pace = pace
        self._report = report
        self._pool = ThreadPoolExecutor(_HANDS, "gce-machines")
        self._due: list[_Due] = []
        self.hosts: dict[Key, Host] = {}

    # --- what calls do ---

    def create(self, key: Key, built: Built, operation: Key, hidden_until: float = 0.0) -> None:
        """Accept an instance; it boots."""
        taken = {host.machine for host in self.hosts.values()}
        name = key.name if key.name not in taken else f"{key.name}.{key.scope.rpartition('/')[2]}"
        host = Host(key, name, hidden_until=hidden_until)
        self._show(host, built)
        memory = int(built.kind.memory * (1 << 30))
        host.work = self._begin(
            lambda: self._machines.boot(name, built.user_data, vcpus=built.kind.vcpus, memory=memory)
        )
        self._later(self._pace / 2, None, lambda: self._stage(host))
        self._later(self._pace, host.work, lambda: self._booted(host, operation))

    def create_in_vain(self, key: Key, built: Built, operation: Key, failure: Failure, seconds: float) -> None:
        """Accept an instance, show it, and let it fail after `seconds`."""
        host = Host(key, "")
        self._show(host, built)
        self._later(seconds / 2, None, lambda: self._stage(host))

        def fail() -> None:
            if self.hosts.get(key) is host:
                self._forget(host)
            self._operations.finish(operation, failure)

        self._later(seconds, None, fail)

    def plant(self, key: Key, resource: Resource) -> None:
        """An instance of somebody else that runs already, on nothing."""
        self._store.add(key, {**resource, "status": "RUNNING"}, "instance")
        self.hosts[key] = Host(key, "")

    def delete(self, key: Key, operation: Key | None = None) -> None:
        host = self.hosts[key]
        host.deletions.append(operation)
        if len(host.deletions) > 1:
            return
        host.ends_at = None
        self._store.update(key, status="STOPPING")
        host.work = self._after(host.work, lambda: self._machines.destroy(host.machine) if host.machine else None)
        self._later(self._pace, host.work, lambda: self._gone(host))

    def stop(self, key: Key, operation: Key | None = None) -> None:
        """Refuses when it is not running."""
        host = self.hosts[key]
        self._must_be(key, "RUNNING")
        host.ends_at = None
        self._store.update(key, status="STOPPING")
        host.work = self._after(host.work, lambda: self._machines.stop(host.machine) if host.machine else None)
        self._later(self._pace, host.work, lambda: self._stopped(host, operation))

    def start(self, key: Key, operation: Key) -> None:
        """Refuses when it is not stopped."""
        host = self.hosts[key]
        self._must_be(key, "TERMINATED")
        self._store.update(key, status="PROVISIONING")

        def again() -> str:
            if not host.machine:
                return ""
            self._machines.start(host.machine)
            return self._machines.address(host.machine)

        host.work = self._after(host.work, again)
        self._later(self._pace, host.work, lambda: self._booted(host, operation))

    def preempt(self, key: Key) -> None:
        """Take it back, as its termination action says. ValueError when it is not a spot machine that runs."""
        instance = self._store.find(key)
        scheduling = instance["scheduling"] if instance else {}
        if instance is None or instance["status"] != "RUNNING" or scheduling.get("provisioningModel") != "SPOT":
            raise ValueError(f"{key.path} is no spot instance that runs")
        self._operations.finish(self._operations.start("compute.instances.preempted", key))
        self._end(key, scheduling.get("instanceTerminationAction", "STOP"))

    def later(self, then: Callable[[], None]) -> None:
        """As soon as an operation may be over."""
        self._later(self._pace, None, then)

    # --- what time and machines do ---

    def settle(self) -> None:
        """Let everything happen that is due."""
        now = self._store.now()
        while ready := [due for due in self._due if due.at <= now and (due.work is None or due.work.done())]:
            first = min(ready, key=lambda due: due.at)
            self._due.remove(first)
            first.then()
        for host in list(self.hosts.values()):
            if host.ends_at is not None and host.ends_at <= now:
                self._end(host.key, self._store_of(host)["scheduling"]["instanceTerminationAction"])

    def running(self) -> list[tuple[Key, str]]:
        """Instances that run, and the machines under them."""
        return [
            (key, host.machine)
            for key, host in self.hosts.items()
            if host.machine and not host.deletions and self._store_of(host)["status"] == "RUNNING"
        ]

    def noticed(self, key: Key, power: Power) -> None:
        """A machine that powers itself off leaves its instance behind, stopped, disk and all."""
        host = self.hosts.get(key)
        if power is Power.on or host is None or host.deletions or self._store_of(host)["status"] != "RUNNING":
            return
        self._operations.finish(self._operations.start("compute.instances.guestTerminate", key))
        self._store.update(key, status="STOPPING")
        self._stopped(host, None)

    def hidden(self, key: Key) -> bool:
        """Whether it is not shown yet."""
        host = self.hosts.get(key)
        return host is not None and host.hidden_until > self._store.now()

    def close(self) -> None:
        """Remove every machine. Needs no lock."""
        self._pool.shutdown(wait=True)
        for host in self.hosts.values():
            if host.machine:
                self._machines.destroy(host.machine)

    # --- steps ---

    def _show(self, host: Host, built: Built) -> None:
        self._store.add(host.key, built.instance, "instance")
        for key, disk in built.disks:
            self._store.add(key, disk, "disk")
        self.hosts[host.key] = host

    def _stage(self, host: Host) -> None:
        if self.hosts.get(host.key) is host and self._store_of(host)["status"] == "PROVISIONING":
            self._store.update(host.key, status="STAGING")

    def _booted(self, host: Host, operation: Key) -> None:
        assert host.work is not None
        if self.hosts.get(host.key) is not host or host.deletions:
            self._operations.finish(operation)
            return
        if error := host.work.exception():
            self._report(f"{host.key.path} did not boot: {error!r}")
            self._forget(host)
            self._operations.finish(operation, Failure("INTERNAL_ERROR", f"Internal error. ({error})", 500))
            return
        instance = self._store_of(host)
        host.ends_at = self._end_of(instance["scheduling"])
        changes: dict[str, Any] = {
            "status": "RUNNING",
            "lastStartTimestamp": self._store.timestamp(),
            "cpuPlatform": "Intel Ice Lake",
            "networkInterfaces": [_addressed(one, host.work.result()) for one in instance["networkInterfaces"]],
        }
        if host.ends_at is not None:
            changes["resourceStatus"] = {"scheduling": {"terminationTimestamp": self._store.timestamp(host.ends_at)}}
        self._store.update(host.key, **changes)
        self._operations.finish(operation)

    def _end_of(self, scheduling: Resource) -> float | None:
        """The clock runs from when the instance does; a point in time that is over when it starts ends it at once."""
        if duration := scheduling.get("maxRunDuration"):
            return self._store.now() + int(duration["seconds"])
        if moment := scheduling.get("terminationTime"):
            return datetime.fromisoformat(moment).timestamp()
        return None

    def _end(self, key: Key, action: str) -> None:
        self.hosts[key].ends_at = None
        if action == "DELETE":
            self.delete(key)
        else:
            self.stop(key)

    def _stopped(self, host: Host, operation: Key | None) -> None:
        if self.hosts.get(host.key) is host and not host.deletions:
            instance = self._store_of(host)
            host.ends_at = None
            self._store.update(
                host.key,
                status="TERMINATED",
                lastStopTimestamp=self._store.timestamp(),
                networkInterfaces=[_without_public(one) for one in instance["networkInterfaces"]],
                resourceStatus={"scheduling": {}},
            )
        if operation:
            self._operations.finish(operation)

    def _gone(self, host: Host) -> None:
        if host.work is not None and (error := host.work.exception()):
            self._report(f"{host.key.path} was not removed: {error!r}")
        self._forget(host)
        for operation in host.deletions:
            if operation:
                self._operations.finish(operation)

    def _forget(self, host: Host) -> None:
        """The instance is gone, with the disks that were to go with it; others stay, of no use to anybody."""
        for disk in self._store_of(host).get("disks", ()):
            key = links.read("source", disk["source"], "disks").key
            if disk.get("autoDelete"):
                self._store.remove(key)
            elif self._store.find(key):
                self._store.update(key, users=None, lastDetachTimestamp=self._store.timestamp())
        self._store.remove(host.key)
        del self.hosts[host.key]

    # --- small things ---

    def _store_of(self, host: Host) -> Resource:
        found = self._store.find(host.key)
        assert found is not None, host.key
        return found

    def _must_be(self, key: Key, status: str) -> None:
        instance = self._store.find(key)
        assert instance is not None
        if instance["status"] != status:
            message = f"The resource '{self._store.path(key)}' is not ready: it is {instance['status']}."
            raise Refusal(400, "resourceNotReady", message)

    def _after(self, before: Future[str] | None, work: Callable[[], str | None]) -> Future[str]:
        """Do it when the machine's last work is over, however that went."""

        def run() -> str:
            if before is not None:
                before.exception()
            return work() or ""

        return self._begin(run)

    def _begin(self, work: Callable[[], str]) -> Future[str]:
        """Have it done by a thread of its own; of machines of paper it is done at once.

        Under a clock in hand no time passes until a thread comes to it, and whoever waits by that clock gives up first.
        """
        begun = self._pool.submit(work)
        if isinstance(self._machines, PaperMachines):
            wait([begun])
        return begun

    def _later(self, seconds: float, work: Future[str] | None, then: Callable[[], None]) -> None:
        self._due.append(_Due(self._store.now() + seconds, work, then))


def _addressed(interface: Resource, address: str) -> dict[str, Any]:
    """With the machine's one address, inside and, where one was asked for, outside."""
    found = {**interface, "networkIP": address}
    if configs := interface.get("accessConfigs"):
        found["accessConfigs"] = [{**one, "natIP": address} for one in configs]
    return found


def _without_public(interface: Resource) -> dict[str, Any]:
    """A stopped instance keeps its inner address and loses the outer one."""
    found = dict(interface)
    if configs := interface.get("accessConfigs"):
        found["accessConfigs"] = [{k: v for k, v in one.items() if k != "natIP"} for one in configs]
    return found
