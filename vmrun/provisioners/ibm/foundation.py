"""The long-lived network of a deployment: VPC, group that lets SSH in, subnet in each zone. Made once, used by all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vmrun.core.clock import Clock
from vmrun.core.clouds import NAME_PREFIX, CloudError, Fault, Scope

from .api import Api
from .config import IbmConfig
from .errors import IbmError
from .places import Places, of_region

#: Addresses in each subnet.
_ADDRESSES = 256
#: Seconds to wait for what is made or deleted, and between two looks.
_WAIT, _PAUSE = 180.0, 1.0
_ANYWHERE = "0.0.0.0/0"


def name_of(deployment: str) -> str:
    """Of the VPC and of the group; other names begin with it."""
    return f"{NAME_PREFIX}-{deployment}"


class Foundation:
    """Makes and removes it, in every configured region. What is named in the configuration is left as it is."""

    def __init__(self, api: Api, config: IbmConfig, clock: Clock, places: Places) -> None:
        self._api = api
        self._config = config
        self._clock = clock
        self._places = places

    def make(self, deployment: str, networks: Callable[[], tuple[str, ...]]) -> Iterator[str]:
        """Make what is missing, telling each step; `networks` are those that may reach SSH, asked for if needed."""
        for region in self._config.regions:
            vpc, told = self._vpc(region, deployment)
            yield told
            if not self._config.security_group:
                yield self._group(region, deployment, vpc, networks)
            if not self._config.subnets:
                yield from self._subnets(region, deployment, vpc)

    def remove(self, deployment: str) -> Iterator[str]:
        """Remove all that bears the deployment's name, from the inside out, telling each step."""
        name = name_of(deployment)
        for region in self._config.regions:
            yield from self._remove(region, "subnet", f"{name}-", "list_subnets", "subnets")
            yield from self._remove(region, "public_gateway", f"{name}-", "list_public_gateways", "public_gateways")
            yield from self._remove(region, "security_group", name, "list_security_groups", "security_groups")
            yield from self._remove(region, "vpc", name, "list_vpcs", "vpcs")
            self._places.forget(region)

    # --- making ---

    def _vpc(self, region: str, deployment: str) -> tuple[dict[str, Any], str]:
        wanted = self._config.vpc or name_of(deployment)
        for vpc in self._api.pages(region, "list_vpcs", "vpcs"):
            if wanted in (vpc["id"], vpc["name"]):
                return vpc, f"VPC {vpc['name']} in {region}: there"
        if self._config.vpc:
            raise CloudError(
                f"there is no VPC {wanted!r} in {region}",
                fault=Fault.config,
                scope=Scope.cloud,
                hint="correct `vpc` in [ibm], or leave it out and have vmrun make one",
            )
        made = self._api.change(region, "create_vpc", name=wanted, **self._in_group())
        self._await(region, "get_vpc", str(made["id"]), lambda vpc: vpc.get("status") == "available")
        return made, f"VPC {wanted} in {region}: made"

    def _group(self, region: str, deployment: str, vpc: dict[str, Any], networks: Callable[[], tuple[str, ...]]) -> str:
        name = name_of(deployment)
        allowed = networks()
        groups = self._api.pages(region, "list_security_groups", "security_groups", vpc_id=vpc["id"])
        group = next((each for each in groups if each["name"] == name), None)
        if group is None:
            rules = [*map(ssh_from, allowed), {"direction": "outbound", "protocol": "any", "remote": _cidr(_ANYWHERE)}]
            self._api.change(
                region, "create_security_group", vpc={"id": vpc["id"]}, name=name, rules=rules, **self._in_group()
            )
            return f"security group {name} in {region}: made, SSH from {', '.join(allowed)}"
        missing = sorted(set(allowed) - ssh_sources(self.rules(region, str(group["id"]))))
        for network in missing:
            self._api.change(
                region,
                "create_security_group_rule",
                security_group_id=group["id"],
                security_group_rule_prototype=ssh_from(network),
            )
        added = f", SSH from {', '.join(missing)} added" if missing else ""
        return f"security group {name} in {region}: there{added}"

    def _subnets(self, region: str, deployment: str, vpc: dict[str, Any]) -> Iterator[str]:
        zones = self._api.read(region, "list_region_zones", region_name=region).get("zones") or []
        there = self._api.pages(region, "list_subnets", "subnets", vpc_id=vpc["id"])
        if self._config.vpc and there:
            yield f"subnets in {region}: those of the VPC {vpc['name']}"
            return
        for zone in sorted(str(zone["name"]) for zone in zones):
            name = f"{name_of(deployment)}-{zone}"
            if any(subnet["name"] == name for subnet in there):
                yield f"subnet {name}: there"
                continue
            prototype = {
                "name": name,
                "vpc": {"id": vpc["id"]},
                "zone": {"name": zone},
                "ip_version": "ipv4",
                "total_ipv4_address_count": _ADDRESSES,
                **self._in_group(),
            }
            if not self._config.public_ip:
                # Without addresses of their own the machines need a way out, to the store.
                prototype["public_gateway"] = {"id": self._gateway(region, name, vpc, zone)}
            made = self._api.change(region, "create_subnet", subnet_prototype=prototype)
            self._await(region, "get_subnet", str(made["id"]), lambda subnet: subnet.get("status") == "available")
            yield f"subnet {name}: made"

    def _gateway(self, region: str, name: str, vpc: dict[str, Any], zone: str) -> str:
        """Id of the zone's public gateway; a VPC can have but one there."""
        for gateway in self._api.pages(region, "list_public_gateways", "public_gateways"):
            if gateway["vpc"]["id"] == vpc["id"] and gateway["zone"]["name"] == zone:
                return str(gateway["id"])
        made = self._api.change(
            region, "create_public_gateway", vpc={"id": vpc["id"]}, zone={"name": zone}, name=name, **self._in_group()
        )
        return str(made["id"])

    def rules(self, region: str, group: str) -> list[dict[str, Any]]:
        """The rules of a security group."""
        found = self._api.read(region, "list_security_group_rules", security_group_id=group)
        return list(found.get("rules") or [])

    def _in_group(self) -> dict[str, Any]:
        group = self._places.resource_group()
        return {"resource_group": {"id": group}} if group else {}

    # --- removing ---

    def _remove(self, region: str, kind: str, name: str, operation: str, key: str) -> Iterator[str]:
        """Remove all of a kind with this name, or, where it ends with a dash, whose name begins with it."""
        for each in of_region(self._api.pages(region, operation, key), region, self._config):
            found = str(each["name"])
            if found != name and not (name.endswith("-") and found.startswith(name)):
                continue
            self._delete(region, kind, str(each["id"]))
            yield f"{kind.replace('_', ' ')} {found} in {region}: removed"

    def _delete(self, region: str, kind: str, id: str) -> None:
        """Delete one thing, waiting for what is still in it to be gone, and see it gone."""
        give_up = self._clock.monotonic() + _WAIT
        while True:
            try:
                self._api.change(region, f"delete_{kind}", id=id)
                break
            except IbmError as error:
                if error.status == 404:
                    return
                if error.status != 409 or self._clock.monotonic() >= give_up:
                    raise
            self._clock.sleep(_PAUSE)
        self._await(region, f"get_{kind}", id, lambda _thing: False)

    def _await(self, region: str, operation: str, id: str, ready: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until it is as it should be, or gone."""
        give_up = self._clock.monotonic() + _WAIT
        while True:
            try:
                if ready(self._api.read(region, operation, id=id)):
                    return
            except IbmError as error:
                if error.status == 404:
                    return
                raise
            if self._clock.monotonic() >= give_up:
                raise CloudError(
                    f"{operation.removeprefix('get_')} {id} in {region} is not ready after {_WAIT:.0f} s",
                    fault=Fault.unavailable,
                    scope=Scope.region,
                    hint="run the command again later",
                )
            self._clock.sleep(_PAUSE)


def ssh_from(network: str) -> dict[str, Any]:
    """The rule that lets a network reach port 22."""
    return {
        "direction": "inbound",
        "protocol": "tcp",
        "port_min": 22,
        "port_max": 22,
        "ip_version": "ipv4",
        "remote": _cidr(network),
    }


def ssh_sources(rules: list[dict[str, Any]]) -> set[str]:
    """The networks from which rules let port 22 be reached."""
    found = set()
    for rule in rules:
        open_to_all = rule.get("protocol") in ("all", "any", "icmp_tcp_udp")
        includes = int(rule.get("port_min") or 1) <= 22 <= int(rule.get("port_max") or 65535)
        if rule.get("direction") == "inbound" and (open_to_all or (rule.get("protocol") == "tcp" and includes)):
            remote = rule.get("remote") or {}
            address = remote.get("address")
            found.add(str(remote.get("cidr_block") or (f"{address}/32" if address else remote.get("name", ""))))
    return found


def _cidr(network: str) -> dict[str, str]:
    return {"cidr_block": network}
