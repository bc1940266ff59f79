"""A double of IBM Cloud VPC on paper, with a clock in hand and a client of the real SDK: what its tests work with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from ibm_vpc import VpcV1

from tests.clouds.ibm import IbmDouble, Pace, open_double
from tests.clouds.machines import PaperMachines
from tests.clouds.trouble import Rule, Script, Trouble
from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clock import SystemClock

VERSION = "2026-06-30"
#: Seconds after which everything that was begun is over.
SETTLED = 10.0


@dataclass
class World:
    """A double on paper, with a clock in hand, and a client of it."""

    double: IbmDouble
    machines: PaperMachines
    script: Script
    clock: ManualClock
    clients: list[VpcV1] = field(default_factory=list)

    def client(self, *, version: str = VERSION, authenticator: Any = None, generation: int = 2) -> VpcV1:
        chosen = authenticator or IAMAuthenticator(self.double.iam.api_key, url=self.double.endpoint)
        client = VpcV1(version=version, authenticator=chosen, generation=generation)
        client.set_service_url(f"{self.double.endpoint}/v1")
        self.clients.append(client)
        return client

    @property
    def api(self) -> VpcV1:
        return self.clients[0]

    def do(self, operation: str, **arguments: Any) -> Any:
        """The result of a call of the first client."""
        return getattr(self.api, operation)(**arguments).get_result()

    def refusal(self, operation: str, **arguments: Any) -> tuple[int, str]:
        """Status and code with which a call is refused."""
        refused, error = self.refused(operation, **arguments)
        return refused.status_code, error["code"]

    def refused(self, operation: str, **arguments: Any) -> tuple[ApiException, dict[str, Any]]:
        with pytest.raises(ApiException) as caught:
            getattr(self.api, operation)(**arguments)
        body = caught.value.http_response.json()
        assert body["trace"]
        (error,) = body["errors"]
        return caught.value, error

    def subnet(self, zone: str) -> dict[str, Any]:
        (found,) = self.do("list_subnets", zone_name=zone)["subnets"]
        return found

    def body(self, name: str = "one", *, zone: str = "us-south-1", **more: Any) -> dict[str, Any]:
        """A prototype of an instance."""
        interface = {"auto_delete": True, "subnet": {"id": self.subnet(zone)["id"]}}
        image = next(i for i in self.do("list_images", name="ibm-ubuntu-24-04-3-minimal-amd64-9")["images"])
        return {
            "name": name,
            "profile": {"name": "bx2-2x8"},
            "zone": {"name": zone},
            "image": {"id": image["id"]},
            "user_data": "#cloud-config\n",
            "primary_network_attachment": {"name": "eth0", "virtual_network_interface": interface},
            "boot_volume_attachment": {
                "name": "a-mark",
                "delete_volume_on_instance_delete": True,
                "volume": {
                    "name": name,
                    "capacity": 100,
                    "profile": {"name": "general-purpose"},
                    "user_tags": ["owner:me"],
                },
            },
            **more,
        }

    def create(self, name: str = "one", **more: Any) -> dict[str, Any]:
        return self.do("create_instance", instance_prototype=self.body(name, **more))

    def running(self, name: str = "one", **more: Any) -> dict[str, Any]:
        made = self.create(name, **more)
        self.clock.sleep(SETTLED)
        found = self.do("get_instance", id=made["id"])
        assert found["status"] == "running"
        return found

    def status(self, made: dict[str, Any]) -> str:
        return str(self.do("get_instance", id=made["id"])["status"])

    def names(self) -> set[str]:
        return {one["name"] for one in self.do("list_instances")["instances"]}

    def trouble(self, trouble: Trouble, operation: str = "", **more: Any) -> None:
        self.script.add(Rule(trouble, operation, **more))


@contextmanager
def opened() -> Iterator[World]:
    """A world for one test."""
    machines, script, clock = PaperMachines(), Script(), ManualClock(SystemClock().now())
    double = open_double(machines, "127.0.0.1", script, clock=clock, pace=Pace(1, 1, 1, 1))
    made = World(double, machines, script, clock)
    made.client()
    yield made
    for client in made.clients:
        client.http_client.close()
    double.close()


def interface_of(instance: dict[str, Any]) -> str:
    return str(instance["primary_network_attachment"]["virtual_network_interface"]["id"])
