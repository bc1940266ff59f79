"""The double as a test has it: a server, the account behind it, and hands that reach into it."""

from __future__ import annotations

import uuid
from typing import Any

from tests.clouds import control
from tests.clouds.double import Inventory
from tests.clouds.machines import Machines
from tests.clouds.server import Reply, Request, Server
from tests.clouds.trouble import Script
from vmrun.core.clock import Clock, SystemClock

from . import sdk
from .app import App
from .compute import create_instance
from .iam import Iam
from .images import IMAGES
from .network import create_security_group, create_subnet, create_vpc
from .profiles import ZONES
from .requests import Ask
from .world import Account, Instance, Pace

#: Names of what the account has from the first: a network that a user made, with SSH let in.
NETWORK, GROUP = "lab", "lab-ssh"
#: Where machines are when nobody says where.
REGION = next(iter(ZONES))


class IbmDouble:
    """A running double; see `tests.clouds.double.Double`."""

    def __init__(self, machines: Machines, host: str, script: Script, port: int, clock: Clock, pace: Pace) -> None:
        sdk.operations()
        self.script = script
        self._machines = machines
        self._app: App | None = None
        self._server = Server(self._answer, host, port)
        self.endpoint = self._server.endpoint
        self.account = Account(clock, machines, self.endpoint, pace)
        self.iam = Iam(self.account, f"double-{uuid.uuid4().hex}")
        self._furnish()
        self._app = App(self.account, script, self.iam)

    def _answer(self, request: Request) -> Reply:
        if self._app is None:
            return Reply(503)
        return control.answer(self, request) or self._app.answer(request)

    def _ask(self, **body: Any) -> Ask:
        return Ask("", self.account, Script(), {}, {}, body, "")

    def _furnish(self) -> None:
        """A network as somebody made it: a VPC, a subnet in each zone, and a group that lets SSH in."""
        vpc = {"id": create_vpc(self._ask(name=NETWORK)).body["id"]}
        for zone in (zone for zones in ZONES.values() for zone in zones):
            wanted = {"name": f"{NETWORK}-{zone}", "vpc": vpc, "zone": {"name": zone}, "total_ipv4_address_count": 256}
            create_subnet(self._ask(**wanted))
        ssh = {"direction": "inbound", "protocol": "tcp", "port_min": 22, "port_max": 22}
        out = {"direction": "outbound", "protocol": "any"}
        create_security_group(self._ask(name=GROUP, vpc=vpc, rules=[ssh, out]))

    @property
    def trusted_profile(self) -> str:
        """Identifier of the account's trusted profile, for `trusted_profile` in the driver's table."""
        return next(iter(self.account.trusted_profiles))

    # --- Double ---

    def settings(self) -> dict[str, object]:
        return {
            "endpoint": self.endpoint,
            "iam_endpoint": self.endpoint,
            "regions": [REGION],
            "vpc": NETWORK,
            "security_group": GROUP,
        }

    def environment(self) -> dict[str, str]:
        return {"IBMCLOUD_API_KEY": self.iam.api_key}

    def inventory(self) -> Inventory:
        """Without what the account had from the first."""
        account = self.account
        with account.lock:
            account.settle()
            return Inventory(
                instances={one.id: one.status for one in account.instances.all()},
                disks=[one.id for one in account.volumes.all()],
                addresses=[one.id for one in account.addresses.all()],
                keys=[one.id for one in account.keys.all()],
                groups=[
                    one.id for one in account.groups.all() if one.name != GROUP and one.vpc.default_group != one.id
                ],
                networks=[one.id for one in account.vpcs.all() if one.name != NETWORK],
            )

    def power_off(self, name: str) -> None:
        self._machines.stop(self._find(name).id)

    def delete_by_hand(self, name: str) -> None:
        with self.account.lock:
            work = self.account.delete(self._find(name))
        work()

    def stop_by_hand(self, name: str) -> None:
        with self.account.lock:
            work = self.account.stop(self._find(name))
        work()

    def preempt(self, name: str) -> None:
        """ValueError for a machine that is not a spot one: IBM takes no other back."""
        with self.account.lock:
            one = self._find(name)
            if not one.spot:
                raise ValueError(f"{name} is not a spot machine")
            work = self.account.preempt(one)
        work()

    def open_metadata(self, host: str) -> None:
        """IBM's machines are not told of their end: the 30 seconds that it may give are a power button's."""

    def announce(self, name: str, *, likely: bool = False) -> None:
        raise ValueError(f"IBM does not tell {name} that it will be taken back, nor that this is likely: {likely}")

    def plant(self, name: str, *, tags: dict[str, str] | None = None, region: str = "", zone: str = "") -> str:
        """Tags become those of its disk: IBM's machines have none at their creation."""
        account = self.account
        zone = zone or f"{region or REGION}-1"
        with account.lock:
            subnet = next(one for one in account.subnets.all() if one.zone == zone)
            volume = {"user_tags": [f"{key}:{value}" for key, value in (tags or {}).items()]}
            attachment = {"name": "eth0", "virtual_network_interface": {"subnet": {"id": subnet.id}}}
            answer = create_instance(
                self._ask(
                    name=name,
                    zone={"name": zone},
                    image={"id": IMAGES[0].id},
                    primary_network_attachment=attachment,
                    boot_volume_attachment={"volume": volume},
                )
            )
            one = account.instances.get(answer.body["id"])
            assert one is not None
            # It runs from the first, on nothing.
            one.status = "running"
        return one.id

    def close(self) -> None:
        try:
            self._server.close()
        finally:
            for one in list(self.account.instances.all()):
                self._machines.destroy(one.id)

    def _find(self, name: str) -> Instance:
        """By name or identifier. KeyError when there is none."""
        with self.account.lock:
            self.account.settle()
            for one in self.account.instances.all():
                if name in (one.name, one.id):
                    return one
        raise KeyError(name)


def open_double(
    machines: Machines,
    host: str,
    script: Script,
    port: int = 0,
    *,
    clock: Clock | None = None,
    pace: Pace | None = None,
) -> IbmDouble:
    """Start it. By `clock` states change and tokens expire; `pace` says how fast."""
    return IbmDouble(machines, host, script, port, clock or SystemClock(), pace or Pace())
