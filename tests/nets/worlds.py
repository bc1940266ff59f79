"""Worlds in which machines boot: Docker itself, and a cloud's double with Docker machines under it.

Machines get at the double's API and at the metadata service under its real address, so that they can delete themselves
where their cloud lets them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tests.clouds.docker_machines import DockerMachines
from tests.clouds.double import Double, Inventory
from tests.clouds.gce.project import CALLER
from tests.clouds.ibm import IbmDouble
from tests.clouds.journeys import bridge
from tests.clouds.opening import open_double
from tests.docker.machines import open_provisioner
from tests.nets import holdings
from tests.nets.holdings import Thing
from tests.nets.index import Index
from tests.support.journals import client_of
from tests.support.s3 import BUCKET, S3Server, s3_server
from tests.support.shell import Shell
from vmrun.client import Client
from vmrun.core.clock import Clock
from vmrun.core.folds import VmFold

#: Bytes of a machine.
MEMORY = 1 << 30
#: Who may reach SSH: nobody, in a network for documentation.
CALLER_NETWORK = "198.51.100.7/32"
#: What makes the metadata service answer inside a machine: its address, and a way from there to the double.
_METADATA = """\
ip addr add 169.254.169.254/32 dev lo
echo 169.254.169.254 metadata.google.internal >> /etc/hosts
exec python3 -c '
import socket, sys, threading
def pump(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.shutdown(socket.SHUT_WR)
with socket.create_server(("169.254.169.254", 80)) as server:
    while True:
        near, _ = server.accept()
        far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()
' "$@"
"""


class Place(Protocol):
    """Where the machines are: the cloud's own books, and a way into each machine that needs no network."""

    def inventory(self) -> Inventory:
        """All that somebody pays for."""
        ...

    def machine(self, fold: VmFold) -> str:
        """What the books call the VM's machine. KeyError if they never had it."""
        ...

    def state(self, machine: str) -> str:
        """What the books say it is, in the cloud's own words; "" when it is not in them."""
        ...

    def held(self, machine: str) -> list[Thing]:
        """Its disks, its addresses, its keys, by the same books."""
        ...

    def left(self, held: list[Thing]) -> list[Thing]:
        """What is still there of what a machine had."""
        ...

    def delete(self, machine: str) -> None:
        """As a person does who does not know of vmrun."""
        ...

    def container(self, machine: str) -> str:
        """The name of the container that is the machine."""
        ...


@dataclass
class World:
    """One deployment in one world."""

    on: str
    place: Place
    store: S3Server
    index: Index
    shell: Shell

    @property
    def client(self) -> Client:
        """A reader of the store who has the shell's configuration."""
        return self.client_by()

    def client_by(self, clock: Clock | None = None) -> Client:
        """The same with a clock of its own, by which the store's server goes, too."""
        client = client_of(self.told(), clock)
        if clock is not None:
            client._wiring.store_time = clock.now  # type: ignore[method-assign]
        return client

    def told(self, **more: str) -> Shell:
        """The shell with further variables."""
        environment = {**self.shell.environment, "VMRUN_STORE_URL": f"s3://{BUCKET}/deployment", **more}
        return replace(self.shell, environment=environment)

    def enter(self, machine: str, script: str) -> None:
        """Run a script as root inside a machine."""
        container = self.place.container(machine)
        done = subprocess.run(
            ["docker", "exec", container, "/bin/sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{container}: {done.stdout}{done.stderr}"


class Engine:
    """Docker itself, seen through the names of one deployment's containers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def inventory(self) -> Inventory:
        states = self._states()
        return Inventory(states, addresses=[each for each, name in self._addresses().items() if name in states])

    def machine(self, fold: VmFold) -> str:
        assert fold.intent is not None
        return fold.intent.name

    def state(self, machine: str) -> str:
        return self._states().get(machine, "")

    def held(self, machine: str) -> list[Thing]:
        (found,) = json.loads(_docker("inspect", "--type", "container", machine))
        volumes = [str(mount["Name"]) for mount in found["Mounts"] if mount["Type"] == "volume"]
        addresses = [each for each, name in self._addresses().items() if name == machine]
        # Its disk is what it wrote, under its own identifier.
        return [
            *(Thing("address", each, machine) for each in addresses),
            *(Thing("disk", each, machine) for each in (found["Id"], *volumes)),
        ]

    def left(self, held: list[Thing]) -> list[Thing]:
        disks = {*_docker("ps", "-a", "-q", "--no-trunc").split(), *_docker("volume", "ls", "-q").split()}
        there = [Thing("disk", each) for each in disks] + [Thing("address", each) for each in self._addresses()]
        return holdings.left(held, there)

    def delete(self, machine: str) -> None:
        _docker("rm", "--force", machine)

    def container(self, machine: str) -> str:
        return machine

    def _states(self) -> dict[str, str]:
        names = ("--filter", f"name=^/?vmrun-{self._client.deployment}-", "--format", "{{.Names}} {{.State}}")
        return dict(line.split() for line in _docker("ps", "-a", *names).splitlines())

    def _addresses(self) -> dict[str, str]:
        """Identifiers of the ends of the bridge, each with the name of the container that has it."""
        (bridge_,) = json.loads(_docker("network", "inspect", "bridge"))
        return {str(end["EndpointID"]): str(end["Name"]) for end in bridge_["Containers"].values()}


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=120).stdout


class Cloud:
    """A double and the machines under it."""

    def __init__(self, double: Double, machines: DockerMachines) -> None:
        self._double = double
        self._machines = machines

    def inventory(self) -> Inventory:
        return self._double.inventory()

    def machine(self, fold: VmFold) -> str:
        assert fold.intent is not None
        return holdings.named(self._double, fold.intent.name)

    def state(self, machine: str) -> str:
        states = self.inventory().instances
        return next((states[key] for key in states if key.rpartition("/")[2] == machine), "")

    def held(self, machine: str) -> list[Thing]:
        return holdings.held_by(machine, holdings.things(self._double))

    def left(self, held: list[Thing]) -> list[Thing]:
        return holdings.left(held, holdings.things(self._double))

    def delete(self, machine: str) -> None:
        self._double.delete_by_hand(machine)

    def container(self, machine: str) -> str:
        return self._machines.container(machine)


class MetadataMachines(DockerMachines):
    """Machines that find the metadata service of the double at `metadata`, as HOST and PORT."""

    metadata: tuple[str, str] = ("", "")

    def boot(self, name: str, user_data: str, *, vcpus: int, memory: int) -> str:
        address = super().boot(name, user_data, vcpus=vcpus, memory=memory)
        command = ["docker", "exec", "--detach", self.container(name), "/bin/sh", "-c", _METADATA, "sh", *self.metadata]
        subprocess.run(command, capture_output=True, check=True, timeout=120)
        return address


@contextlib.contextmanager
def open_world(on: str, home: Path, tmp: Path, *, trusted: bool = True) -> Iterator[World]:
    """A world with a deployment in it; machines and servers are gone afterwards.

    `trusted`: machines may delete themselves where their cloud asks for a right of its own for that.
    """
    with contextlib.ExitStack() as stack:
        host = bridge()
        store = stack.enter_context(s3_server(host, tmp / "s3.log"))
        index = Index(host, tmp / "wheels")
        stack.callback(index.close)
        shell = Shell(home)
        if on == "docker":
            open_provisioner().prepare()
            _configure(shell, store, index, on, {})
            shell.run("status")
            stack.callback(shell.run, "reap", "--all", "--yes", exit_code=None)
            yield World(on, Engine(client_of(_with_store(shell))), store, index, shell)
            return
        machines = MetadataMachines(memory_limit=MEMORY)
        stack.callback(machines.close)
        machines.prepare()
        double = open_double(on, machines, host)
        stack.callback(double.close)
        address, _, port = double.endpoint.removeprefix("http://").partition(":")
        machines.metadata = (address, port)
        _configure(shell, store, index, on, _table(double, trusted=trusted))
        shell.environment |= double.environment()
        shell.run("init", on, "--yes")
        yield World(on, Cloud(double, machines), store, index, shell)


def _with_store(shell: Shell) -> Shell:
    return replace(shell, environment={**shell.environment, "VMRUN_STORE_URL": f"s3://{BUCKET}/deployment"})


def _table(double: Double, *, trusted: bool) -> dict[str, object]:
    """The driver's table, with the right of machines to delete themselves where that takes one."""
    table = {key: value for key, value in double.settings().items() if key not in ("vpc", "security_group")}
    table["ssh_from"] = [CALLER_NETWORK]
    if not trusted:
        return table
    if isinstance(double, IbmDouble):
        table["trusted_profile"] = double.trusted_profile
    elif "project" in table:
        table["service_account"] = CALLER
    return table


def _configure(shell: Shell, store: S3Server, index: Index, on: str, table: dict[str, object]) -> None:
    store.configure(shell)
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**table, "store_endpoint": store.endpoint}.items()]
    environment = f'\n[environment]\nindex_url = "{index.url}"\n'
    with (shell.home / "vmrun.toml").open("a") as file:
        file.write("\n".join(["", f"[{on}]", *lines, environment]))
