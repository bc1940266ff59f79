"""A person's way through one cloud: a shell set up for its double, and what was seen of the machines under it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.clouds.docker_machines import DockerMachines
from tests.clouds.double import Double
from tests.clouds.opening import open_double
from tests.clouds.trouble import Call
from tests.support.canaries import Canaries
from tests.support.journals import client_of
from tests.support.relay import relay
from tests.support.s3 import BUCKET, S3Server, s3_server
from tests.support.shell import Shell
from vmrun.client import Client

#: Bytes of a machine: enough for the jobs here, and little enough for several beside each other.
MEMORY = 1 << 30
#: Who may reach SSH: nobody, in a network for documentation.
CALLER = "198.51.100.7/32"
STORE_SECRET = "canary-secret-key"
CREATE = {"ec2": "RunInstances", "gce": "compute.instances.insert", "ibm": "create_instance"}
#: Keys of a double's table that stand for a network that somebody has; without them vmrun makes one.
_NETWORK = ("vpc", "security_group")


class WatchedMachines(DockerMachines):
    """Machines that boot, and a record of what each was booted with."""

    def __init__(self, memory: int = MEMORY, shrink: int = 1) -> None:
        super().__init__(memory_limit=memory)
        self._shrink = shrink
        #: User data by the machine's name, as the double handed it on.
        self.user_data: dict[str, str] = {}
        #: What a machine boots with instead, for tests of machines that are not what they should be.
        self.change: Callable[[str], str] = lambda user_data: user_data

    def boot(self, name: str, user_data: str, *, vcpus: int, memory: int) -> str:
        self.user_data.setdefault(name, user_data)
        return super().boot(name, self.change(user_data), vcpus=vcpus, memory=memory // self._shrink)


@dataclass
class Journey:
    """A double, the machines under it, a store, and a shell in which `vmrun --on CLOUD` means all that."""

    cloud: str
    machines: WatchedMachines
    double: Double
    store: S3Server
    shell: Shell
    canaries: Canaries

    @property
    def region(self) -> str:
        """The one that is configured."""
        regions = self.double.settings()["regions"]
        assert isinstance(regions, list)
        (region,) = regions
        return str(region)

    @property
    def client(self) -> Client:
        """A reader of the store who has the shell's configuration."""
        told = {**self.shell.environment, "VMRUN_STORE_URL": f"s3://{BUCKET}/deployment"}
        return client_of(replace(self.shell, environment=told))

    def creates(self) -> list[Call]:
        """Create calls so far."""
        return [call for call in self.double.script.calls if call.operation == CREATE[self.cloud]]

    def configure(self, store_here: str) -> None:
        """The double's table and variables; the store is at one address here and at another one for machines."""
        table = {key: value for key, value in self.double.settings().items() if key not in _NETWORK}
        table |= {"ssh_from": [CALLER], "store_endpoint": self.store.endpoint}
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        replace(self.store, endpoint=store_here).configure(self.shell)
        with (self.shell.home / "vmrun.toml").open("a") as file:
            file.write("\n".join(["", f"[{self.cloud}]", *lines, ""]))
        self.shell.environment |= self.double.environment() | self._planted()

    def _planted(self) -> dict[str, str]:
        """Secrets that are to be searched for; what the shell is told of them."""
        self.canaries.add_text("store secret", STORE_SECRET)
        given = self.double.environment()
        told: dict[str, str] = {}
        if self.cloud == "ec2":
            # Signatures are not checked by the double, so that any secret does.
            told["AWS_SECRET_ACCESS_KEY"] = "canary-of-an-aws-account"
            self.canaries.add_text("API key", told["AWS_SECRET_ACCESS_KEY"])
        elif self.cloud == "gce":
            key = json.loads(Path(given["GOOGLE_APPLICATION_CREDENTIALS"]).read_text("utf-8"))["private_key"]
            self.canaries.add_text("API key", key.splitlines()[2])
        else:
            self.canaries.add_text("API key", given["IBMCLOUD_API_KEY"])
        return told


@contextlib.contextmanager
def journey(
    cloud: str, home: Path, log: Path, *, metadata: bool = False, memory: int = MEMORY, shrink: int = 1
) -> Iterator[Journey]:
    """A journey whose cloud API answers on loopback only; machines and servers are gone afterwards.

    With `metadata` machines may ask about themselves. Each has the `shrink`th part of the rented memory, and no
    more than `memory` bytes.
    """
    machines = WatchedMachines(memory, shrink)
    with contextlib.ExitStack() as stack:
        stack.callback(machines.close)
        machines.prepare()
        double = open_double(cloud, machines)
        stack.callback(double.close)
        if metadata:
            double.open_metadata(bridge())
        store = stack.enter_context(s3_server(bridge(), log))
        made = Journey(cloud, machines, double, store, Shell(home), Canaries({}))
        made.configure(stack.enter_context(relay(store.endpoint)))
        yield made


def bridge() -> str:
    """This computer's address on the network of the machines."""
    subnet = subprocess.run(
        ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()
    # The bridge's own address is the first of its network.
    return str(ipaddress.ip_network(subnet)[1])
