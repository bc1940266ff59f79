"""The network of the machines and the rule that lets SSH in: found, made once, removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vmrun.core.clock import Clock
from vmrun.core.clouds import NAME_PREFIX, CloudError, Fault, Scope
from vmrun.core.errors import ConfigError

from . import errors, operations, request
from .api import GoogleApi
from .config import DEFAULT_NETWORK, NETWORK_TAG, GceConfig
from .machines import last

#: Seconds within which a network or a rule is made; a network in auto mode has a part in forty regions.
_PATIENCE = 300.0


def own_network(deployment: str) -> str:
    """The network that `vmrun init gce` makes for a deployment where there is no default one."""
    return f"{NAME_PREFIX}-{deployment}"


def rule_name(deployment: str) -> str:
    """The firewall rule of a deployment."""
    return f"{NAME_PREFIX}-{deployment}-ssh"


def split(path: str) -> tuple[str, str]:
    """Project ("" for one's own) and name of a network, which may be a bare name or a path."""
    parts = path.strip("/").split("/")
    place = parts.index("projects") + 1 if "projects" in parts[:-1] else 0
    return parts[place] if place else "", parts[-1]


def find(api: GoogleApi, path: str) -> dict[str, Any] | None:
    """A network, or None if it is not there."""
    project, name = split(path)
    try:
        return api.read("compute.networks.get", network=name, **({"project": project} if project else {}))
    except CloudError as error:
        if errors.is_absent(error, name):
            return None
        raise


def choose(api: GoogleApi, config: GceConfig, deployment: str) -> str:
    """The network of new machines: the configured one, else the default one, else the deployment's own.

    "" where a subnetwork is configured, which is of some network already.
    """
    if config.network or config.subnetwork:
        return config.network
    try:
        there = find(api, DEFAULT_NETWORK) is not None
    except CloudError as error:
        if error.fault is not Fault.permission:
            raise
        # Not allowed to look: the creation itself will tell.
        there = True
    return DEFAULT_NETWORK if there else own_network(deployment)


def configured(api: GoogleApi, config: GceConfig) -> str:
    """The network that is configured, or that the configured subnetwork is of; "" if neither is."""
    if config.network or not config.subnetwork:
        return config.network
    return str(subnet(api, config, config.regions[0]).get("network", ""))


def subnet(api: GoogleApi, config: GceConfig, region: str) -> dict[str, Any]:
    """The configured subnetwork of a region. Raises CloudError."""
    path = request.subnetwork(config, region)
    project, name = split(path)
    return api.read(
        "compute.subnetworks.get", region=region, subnetwork=name, **({"project": project} if project else {})
    )


def rule(deployment: str, network: str, sources: Iterable[str]) -> dict[str, Any]:
    """The body of the rule: SSH and nothing else, to machines of vmrun, from these networks."""
    ranges = sorted(sources)
    if any(":" in each for each in ranges):
        raise ConfigError(
            "machines on Compute Engine have no IPv6 address",
            hint="set gce.ssh_from to the IPv4 network that this computer is seen from, such as 198.51.100.7/32",
        )
    return {
        "name": rule_name(deployment),
        "description": "SSH to machines of vmrun; made by `vmrun init gce`",
        "network": network,
        "direction": "INGRESS",
        "priority": 1000,
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
        "sourceRanges": ranges,
        "targetTags": [NETWORK_TAG],
    }


class Founder:
    """Makes and removes what one deployment needs."""

    def __init__(self, api: GoogleApi, clock: Clock, config: GceConfig, deployment: str) -> None:
        self._api = api
        self._clock = clock
        self._config = config
        self._deployment = deployment

    def establish(self, sources: Iterable[str]) -> Iterator[str]:
        """The network if there is none, then the rule; each step is told when it is done."""
        wanted = rule(self._deployment, "", sources)
        named = configured(self._api, self._config)
        found = find(self._api, named or DEFAULT_NETWORK)
        if found is None and named:
            raise _no_network(named)
        if split(named)[0] not in ("", self._api.project):
            ranges = ", ".join(wanted["sourceRanges"])
            yield f"network {named} is another project's: let tcp:22 in there, from {ranges} to the tag {NETWORK_TAG}"
            return
        if found is None:
            found = yield from self._make_network()
        else:
            yield f"network {found['name']} is there"
        yield self._open(wanted | {"network": found["selfLink"]})

    def dismantle(self) -> Iterator[str]:
        """The rule, then the network if it was made."""
        for kind, name in (("firewall", rule_name(self._deployment)), ("network", own_network(self._deployment))):
            yield f"{kind} {name} {'removed' if self._remove(kind, name) else 'is not there'}"

    def _make_network(self) -> Any:
        name = own_network(self._deployment)
        found = find(self._api, name)
        if found is not None:
            yield f"network {name} is there"
            return found
        body = {"name": name, "description": "made by `vmrun init gce`", "autoCreateSubnetworks": True}
        self._make("networks", body)
        yield f"network {name} made"
        made = find(self._api, name)
        if made is None:
            raise _no_network(name)
        return made

    def _open(self, wanted: Mapping[str, Any]) -> str:
        """Make the rule, or bring it to what is wanted; what was done."""
        name, ranges = wanted["name"], ", ".join(wanted["sourceRanges"])
        found = self._rule(name)
        if found is None and self._make("firewalls", wanted):
            return f"firewall {name} made: SSH from {ranges}"
        found = found or self._rule(name) or {}
        if _same(found, wanted):
            return f"firewall {name} is there: SSH from {ranges}"
        if last(found.get("network")) != last(wanted["network"]):
            raise CloudError(
                f"the firewall rule {name} is of another network, {last(found.get('network'))}",
                fault=Fault.config,
                scope=Scope.cloud,
                hint="run `vmrun init gce --dismantle` first",
            )
        self._wait("firewalls.patch", self._api.write("compute.firewalls.patch", firewall=name, body=dict(wanted)))
        return f"firewall {name} changed: SSH from {ranges}"

    def _rule(self, name: str) -> dict[str, Any] | None:
        try:
            return self._api.read("compute.firewalls.get", firewall=name)
        except CloudError as error:
            if errors.is_absent(error, name):
                return None
            raise

    def _make(self, what: str, body: Mapping[str, Any]) -> bool:
        """Whether it was made; False if somebody was faster."""
        try:
            self._wait(f"{what}.insert", self._api.write(f"compute.{what}.insert", body=body))
        except CloudError as error:
            if errors.is_taken(error):
                return False
            raise
        return True

    def _remove(self, kind: str, name: str) -> bool:
        """Whether there was something to remove."""
        parameters: dict[str, Any] = {kind: name}
        try:
            self._wait(f"{kind}s.delete", self._api.write(f"compute.{kind}s.delete", **parameters))
        except CloudError as error:
            if errors.is_absent(error, name):
                return False
            raise
        return True

    def _wait(self, doing: str, operation: Mapping[str, Any]) -> None:
        try:
            done = operations.settle(self._api, self._clock, operation, doing=doing, patience=_PATIENCE)
        except operations.Unseen as error:
            raise error.why from error
        if not done:
            raise errors.unreachable(doing, f"not done after {_PATIENCE:.0f} s")


def _same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return (
        not found.get("disabled")
        and last(found.get("network")) == last(wanted["network"])
        and sorted(found.get("sourceRanges") or ()) == wanted["sourceRanges"]
        and all(found.get(key) == wanted[key] for key in ("allowed", "targetTags", "direction"))
    )


def _no_network(name: str) -> CloudError:
    return CloudError(
        f"there is no network {name}",
        fault=Fault.config,
        scope=Scope.cloud,
        hint="set gce.network to one that is there, or leave it out",
    )
