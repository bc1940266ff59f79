"""Instances over their lives: what the account knows of each beside moto's object, and when it was what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moto.ec2.models.instances import StateReason

from tests.clouds.machines import Machines, Power

from .backend import Moto

PENDING, RUNNING, STOPPED = "pending", "running", "stopped"
SHUTTING_DOWN, STOPPING, TERMINATED = "shutting-down", "stopping", "terminated"
CODES = {PENDING: 0, RUNNING: 16, SHUTTING_DOWN: 32, TERMINATED: 48, STOPPING: 64, STOPPED: 80}
#: Why an instance is no longer what it was: EC2's code and message.
REASONS = {
    "user": ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"),
    "inside": ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown"),
    "spot": ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination"),
    "capacity": (
        "Server.InsufficientInstanceCapacity",
        "Server.InsufficientInstanceCapacity: Insufficient capacity to satisfy instance request",
    ),
    "internal": ("Server.InternalError", "Server.InternalError: Internal error on launch"),
}


@dataclass
class Record:
    """One instance."""

    id: str
    region: str
    zone: str
    instance_type: str
    vcpus: int
    token: str
    spot: bool
    #: What a power-off from inside does: `terminate` or `stop`.
    shutdown: str
    name: str
    #: Whether a machine stands under it; one of somebody else is only noted.
    machine: bool
    #: Each state with the time from which it was the one.
    history: list[tuple[float, str]]
    #: Until then no list or look-up knows it.
    visible_from: float = 0.0
    #: It will fail for want of capacity.
    doomed: bool = False
    public: bool = True
    #: moto's own object, and the id of its reservation.
    moto: Any = field(default=None, repr=False)
    moto_reservation: str = ""

    @property
    def state(self) -> str:
        return self.history[-1][1]

    @property
    def is_gone(self) -> bool:
        return self.state == TERMINATED

    def state_at(self, time: float) -> str | None:
        """What it was then; None when it was not there, or not to be seen."""
        if time < self.visible_from:
            return None
        return next((state for since, state in reversed(self.history) if since <= time), None)


class Records:
    """All instances of the account; every method holds the one lock of its moto."""

    def __init__(self, moto: Moto, machines: Machines, now: Callable[[], float]) -> None:
        self._moto = moto
        self._machines = machines
        self._now = now
        self._all: dict[str, Record] = {}
        #: Seconds for which an instance that is gone is still shown.
        self.shown = 3600.0

    @property
    def lock(self) -> threading.RLock:
        return self._moto.lock

    def add(self, record: Record) -> None:
        with self.lock:
            self._all[record.id] = record

    def find(self, id: str) -> Record | None:
        with self.lock:
            return self._all.get(id)

    def named(self, name: str) -> Record:
        """By id (with or without its region) or by name; of several the youngest, and one that lives first.

        KeyError when there is none.
        """
        plain = name.rpartition("/")[2]
        with self.lock:
            found = [record for record in self._all.values() if plain in (record.id, record.name)]
        if not found:
            raise KeyError(f"instance {name}")
        return max(found, key=lambda record: (not record.is_gone, record.history[0][0]))

    def living(self) -> Iterator[Record]:
        """Those that are not gone."""
        with self.lock:
            yield from [record for record in self._all.values() if not record.is_gone]

    def of_region(self, region: str) -> list[Record]:
        with self.lock:
            return [record for record in self._all.values() if record.region == region]

    def settle(self) -> None:
        """Notice what happened by itself: machines that powered off, requests that failed, instances long gone."""
        with self.lock:
            for record in list(self._all.values()):
                if record.doomed and record.state == PENDING:
                    self.terminate(record, "capacity")
                elif record.machine and record.state == RUNNING:
                    self._notice_power(record)
                elif record.is_gone and self._now() - record.history[-1][0] > self.shown:
                    self._forget(record)

    def move(self, record: Record, state: str, why: str = "") -> None:
        """From now on it is in this state."""
        with self.lock:
            record.history.append((self._now(), state))
            record.moto._state.name, record.moto._state.code = state, CODES[state]
            code, message = REASONS[why] if why else ("", "")
            record.moto.state_reason = StateReason(message, code)
            record.moto._reason = message

    def terminate(self, record: Record, why: str) -> None:
        """End it, and with it the machine and the disks that go with it; once is enough."""
        with self.lock:
            if record.is_gone:
                return
            record.moto.terminate()
            self.move(record, TERMINATED, why)
        if record.machine:
            self._machines.destroy(record.id)

    def stop(self, record: Record, why: str) -> None:
        """Power it off; its disks stay."""
        if record.machine:
            self._machines.stop(record.id)
        with self.lock:
            if record.state in (PENDING, RUNNING):
                self.move(record, STOPPED, why)

    def start(self, record: Record) -> None:
        """Boot it again, perhaps at another address."""
        if record.machine:
            self._machines.start(record.id)
            self.locate(record, self._machines.address(record.id))
        with self.lock:
            if record.state == STOPPED:
                self.move(record, RUNNING)

    def locate(self, record: Record, address: str) -> None:
        """It answers there: the machine's address is both its private and, where it has one, its public one."""
        if not address:
            return
        with self.lock:
            interface = record.moto.nics[0]
            interface.private_ip_address = address
            for one in interface.private_ip_addresses:
                one["PrivateIpAddress"] = address
            if record.public:
                interface.public_ip = address

    def _notice_power(self, record: Record) -> None:
        power = self._machines.power(record.id)
        if power is Power.absent or (power is Power.off and record.shutdown == "terminate"):
            self.terminate(record, "inside")
        elif power is Power.off:
            self.move(record, STOPPED, "inside")

    def _forget(self, record: Record) -> None:
        del self._all[record.id]
        reservations = self._moto.region(record.region).reservations
        for reservation in list(reservations.values()):
            reservation.instances = [one for one in reservation.instances if one.id != record.id]
            if not reservation.instances:
                del reservations[reservation.id]
