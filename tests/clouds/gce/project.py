"""The project that the double plays: all that it holds, and what its caller may do in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.clouds.machines import Machines
from tests.clouds.trouble import Call as Record
from tests.clouds.trouble import Rule, Script, Trouble

from . import world
from .discovery import Method
from .faults import About, invalid
from .life import Life
from .operations import Operations
from .quotas import Quotas
from .store import ROOT, Key, Store

ID, NUMBER = "double-project", "123456789012"
CALLER = f"vmrun@{ID}.iam.gserviceaccount.com"
#: The network that a new project has, with its rules, which nobody made and nobody need tidy up.
DEFAULT_NETWORK = "default"
DEFAULT_RULES: Mapping[str, Mapping[str, Any]] = {
    "default-allow-icmp": {"allowed": [{"IPProtocol": "icmp"}], "sourceRanges": ["0.0.0.0/0"]},
    "default-allow-internal": {"allowed": [{"IPProtocol": "all"}], "sourceRanges": ["10.128.0.0/9"]},
    "default-allow-ssh": {"allowed": [{"IPProtocol": "tcp", "ports": ["22"]}], "sourceRanges": ["0.0.0.0/0"]},
}


class Project:
    """Every look at it and every change happens under `lock`, after `life.settle()`."""

    def __init__(
        self,
        machines: Machines,
        script: Script,
        *,
        now: Callable[[], float],
        pace: float,
        report: Callable[[str], None],
    ) -> None:
        self.lock = threading.RLock()
        self.machines = machines
        self.script = script
        #: Seconds that an operation takes at least.
        self.pace = pace
        self.store = Store(ID, now)
        self.operations = Operations(self.store, CALLER)
        self.quotas = Quotas(self.store)
        self.life = Life(self.store, self.operations, machines, pace, report)
        #: Permissions that the caller has not; and those that it has, None for all others.
        self.denied: set[str] = set()
        self.granted: frozenset[str] | None = None
        #: Metadata of the whole project, such as `enable-oslogin`.
        self.metadata: dict[str, str] = {}
        add_network(self.store, DEFAULT_NETWORK, automatic=True)
        for name, rule in DEFAULT_RULES.items():
            network = self.store.link(Key("networks", "global", DEFAULT_NETWORK))
            common = {"network": network, "direction": "INGRESS", "priority": 65534, "disabled": False}
            self.store.add(Key("firewalls", "global", name), {**common, **rule}, "firewall")

    def may(self, permission: str) -> bool:
        """Whether the caller has this permission."""
        return permission not in self.denied and (self.granted is None or permission in self.granted)


def add_network(store: Store, name: str, *, automatic: bool, **more: Any) -> None:
    """A network; in auto mode with a subnetwork of its own name in every region."""
    key = Key("networks", "global", name)
    subnets = []
    if automatic:
        for number, region in enumerate(world.REGIONS):
            subnet = Key("subnetworks", f"regions/{region}", name)
            subnets.append(store.link(subnet))
            add_subnetwork(store, subnet, store.link(key), f"10.{128 + number}.0.0/20")
    links = {"subnetworks": subnets} if subnets else {}
    store.add(key, {**more, "autoCreateSubnetworks": automatic, **links}, "network")


def add_subnetwork(store: Store, key: Key, network: str, cidr: str, **more: Any) -> None:
    fields = {
        "privateIpGoogleAccess": False,
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
        **more,
        "network": network,
        "ipCidrRange": cidr,
        "gatewayAddress": cidr.rpartition(".")[0] + ".1",
        "region": f"{ROOT}projects/{store.project}/{key.scope}",
        "state": "READY",
    }
    store.add(key, fields, "subnetwork")


@dataclass(frozen=True)
class Call:
    """One request that is well formed, as the methods see it."""

    method: Method
    parameters: Mapping[str, Any]
    body: Mapping[str, Any]
    about: About
    record: Record

    @property
    def scope(self) -> str:
        """Where it happens: `zones/Z`, `regions/R` or `global`."""
        if zone := self.parameters.get("zone"):
            return f"zones/{zone}"
        if region := self.parameters.get("region"):
            return f"regions/{region}"
        return "global"

    @property
    def key(self) -> Key:
        """The resource that it names: by its body, or by the last parameter in its path. Refuses a body without."""
        if self.method.verb == "insert":
            if not self.body.get("name"):
                raise invalid("resource.name", "", "No value is given, but one is required.")
            return Key(self.method.collection, self.scope, self.body["name"])
        last = list(self.method.path.groupindex)[-1]
        return Key(self.method.collection, self.scope, str(self.parameters[last]))

    @property
    def request_id(self) -> str:
        return str(self.parameters.get("requestId", ""))

    @property
    def asked(self) -> object:
        """What a repetition with the same request id must ask for as well."""
        return [self.method.id, self.scope, self.key.name, self.body]

    def rule(self, script: Script, *among: Trouble) -> Rule | None:
        """What the script says of this call."""
        about = self.about
        return script.pick(
            self.method.id, *among, instance_type=about.instance_type, zone=about.zone, region=about.region
        )
