"""What `vmrun init ec2` makes once in each region, and removes again: a group, and a VPC where there is none."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vmrun.core.clock import Clock
from vmrun.core.clouds import CloudError, Fault, Scope

from .api import Aws
from .networks import TAG_ESTATE, tags_of

#: Of a VPC that is made; seldom used by others, so that it can be joined with their networks.
_CIDR = ipaddress.ip_network("10.211.0.0/16")
_SUBNET_BITS = 20
#: Seconds for what was just made to be known everywhere, or for what used a group to be gone, and between looks.
_PATIENCE, _PAUSE = 90.0, 3.0
_ANYWHERE = "0.0.0.0/0"


def group_name(deployment: str) -> str:
    """What the group of a deployment is called; unique in its VPC."""
    return f"vmrun-{deployment}"


class Founder:
    """Makes and removes in one region, for one deployment. Every step finds what an earlier one has done."""

    def __init__(self, aws: Aws, clock: Clock, region: str, deployment: str) -> None:
        self._aws = aws
        self._clock = clock
        self._region = region
        self._deployment = deployment

    def make_vpc(self) -> Iterator[str]:
        """A VPC with a subnet in each zone and a way to the internet."""
        vpc = self._vpc()
        yield f"{self._region}: VPC {vpc} is vmrun's"
        yield from self._make_subnets(vpc)
        gateway = self._gateway(vpc)
        table = self._pages("DescribeRouteTables", "RouteTables", {"vpc-id": vpc, "association.main": "true"})[0]
        if not any(route.get("GatewayId") == gateway for route in table.get("Routes", ())):
            self._quietly(
                ("RouteAlreadyExists",),
                "CreateRoute",
                RouteTableId=table["RouteTableId"],
                DestinationCidrBlock=_ANYWHERE,
                GatewayId=gateway,
            )
        yield f"{self._region}: {gateway} leads to the internet"

    def is_mine(self, raw: dict[str, Any]) -> bool:
        """Whether this deployment's `init` made it."""
        return tags_of(raw).get(TAG_ESTATE) == self._deployment

    def make_group(self, vpc: str) -> str:
        """The id of the deployment's group in a VPC, made if it is not there."""
        name = group_name(self._deployment)
        wanted = {"vpc-id": vpc, "group-name": name}
        found = self._pages("DescribeSecurityGroups", "SecurityGroups", wanted)
        if not found:
            self._quietly(
                ("InvalidGroup.Duplicate",),
                "CreateSecurityGroup",
                GroupName=name,
                Description="SSH to the machines of vmrun",
                VpcId=vpc,
                TagSpecifications=self._tags("security-group", name),
            )
            # Read again in any case: of two that made it at the same time, one was told that it is there.
            self._until(lambda: bool(self._pages("DescribeSecurityGroups", "SecurityGroups", wanted)), f"group {name}")
            found = self._pages("DescribeSecurityGroups", "SecurityGroups", wanted)
        return str(found[0]["GroupId"])

    def open_ssh(self, group: str, networks: Iterable[str]) -> Iterator[str]:
        """Let these networks reach port 22 of the group's machines, and nobody reach anything else."""
        (raw,) = self._pages("DescribeSecurityGroups", "SecurityGroups", {"group-id": group})
        missing, surplus = rule_changes(raw.get("IpPermissions", ()), networks)
        for permission in missing:
            self._quietly(
                ("InvalidPermission.Duplicate",),
                "AuthorizeSecurityGroupIngress",
                GroupId=group,
                IpPermissions=[permission],
            )
            yield f"{self._region}: {group} lets {', '.join(_sources(permission))} reach SSH"
        for permission in surplus:
            self._quietly(
                ("InvalidPermission.NotFound",), "RevokeSecurityGroupIngress", GroupId=group, IpPermissions=[permission]
            )
            yield f"{self._region}: {group} is closed to {', '.join(_sources(permission)) or 'another group'}"

    def remove(self) -> Iterator[str]:
        """Everything of the deployment's; what is used still is waited for, for a while. Raises CloudError."""
        mine = {f"tag:{TAG_ESTATE}": self._deployment}
        for group in self._pages("DescribeSecurityGroups", "SecurityGroups", mine):
            self._remove("DeleteSecurityGroup", GroupId=group["GroupId"])
            yield f"{self._region}: group {group['GroupId']} removed"
        for vpc in self._pages("DescribeVpcs", "Vpcs", mine):
            yield from self._remove_vpc(str(vpc["VpcId"]), mine)

    def _remove_vpc(self, vpc: str, mine: dict[str, str]) -> Iterator[str]:
        for gateway in self._pages("DescribeInternetGateways", "InternetGateways", mine):
            id_of_gateway = gateway["InternetGatewayId"]
            if any(one.get("VpcId") == vpc for one in gateway.get("Attachments", ())):
                self._remove("DetachInternetGateway", InternetGatewayId=id_of_gateway, VpcId=vpc)
            self._remove("DeleteInternetGateway", InternetGatewayId=id_of_gateway)
        for subnet in self._pages("DescribeSubnets", "Subnets", {**mine, "vpc-id": vpc}):
            self._remove("DeleteSubnet", SubnetId=subnet["SubnetId"])
        self._remove("DeleteVpc", VpcId=vpc)
        yield f"{self._region}: VPC {vpc} removed"

    def _vpc(self) -> str:
        """The one of an earlier, broken-off call, or a new one; of two made at the same time the first by its id."""
        mine = {f"tag:{TAG_ESTATE}": self._deployment}
        found = self._pages("DescribeVpcs", "Vpcs", mine)
        if not found:
            made = self._call(
                "CreateVpc", CidrBlock=str(_CIDR), TagSpecifications=self._tags("vpc", group_name(self._deployment))
            )["Vpc"]["VpcId"]
            self._until(lambda: bool(self._pages("DescribeVpcs", "Vpcs", mine)), f"VPC {made}")
            found = self._pages("DescribeVpcs", "Vpcs", mine)
            first = min(str(one["VpcId"]) for one in found)
            if first != made:
                self._remove("DeleteVpc", VpcId=made)
        return min(str(one["VpcId"]) for one in found)

    def _make_subnets(self, vpc: str) -> Iterator[str]:
        there = {str(one["AvailabilityZone"]) for one in self._pages("DescribeSubnets", "Subnets", {"vpc-id": vpc})}
        zones = self._pages(
            "DescribeAvailabilityZones", "AvailabilityZones", {"zone-type": "availability-zone", "state": "available"}
        )
        blocks = _CIDR.subnets(new_prefix=_SUBNET_BITS)
        for zone, block in zip(sorted(str(one["ZoneName"]) for one in zones), blocks, strict=False):
            if zone in there:
                continue
            made = self._quietly(
                ("InvalidSubnet.Conflict",),
                "CreateSubnet",
                VpcId=vpc,
                AvailabilityZone=zone,
                CidrBlock=str(block),
                TagSpecifications=self._tags("subnet", group_name(self._deployment)),
            )
            if made is not None:
                subnet = made["Subnet"]["SubnetId"]
                self._call("ModifySubnetAttribute", SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
                yield f"{self._region}: subnet {subnet} made in {zone}"

    def _gateway(self, vpc: str) -> str:
        wanted = {"attachment.vpc-id": vpc}
        found = self._pages("DescribeInternetGateways", "InternetGateways", wanted)
        if not found:
            made = self._call(
                "CreateInternetGateway",
                TagSpecifications=self._tags("internet-gateway", group_name(self._deployment)),
            )["InternetGateway"]["InternetGatewayId"]
            attached = self._quietly(
                ("Resource.AlreadyAssociated",), "AttachInternetGateway", InternetGatewayId=made, VpcId=vpc
            )
            if attached is None:
                self._remove("DeleteInternetGateway", InternetGatewayId=made)
            found = self._pages("DescribeInternetGateways", "InternetGateways", wanted)
        return str(found[0]["InternetGatewayId"])

    def _tags(self, kind: str, name: str) -> list[dict[str, Any]]:
        tags = [{"Key": TAG_ESTATE, "Value": self._deployment}, {"Key": "Name", "Value": name}]
        return [{"ResourceType": kind, "Tags": tags}]

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return self._aws.call(self._region, f"ec2:{operation}", **parameters)

    def _pages(self, operation: str, key: str, wanted: dict[str, str]) -> list[dict[str, Any]]:
        filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
        return self._aws.pages(self._region, f"ec2:{operation}", key, Filters=filters)

    def _quietly(self, expected: tuple[str, ...], operation: str, **parameters: Any) -> dict[str, Any] | None:
        """The answer, or None if AWS says what was to be expected: somebody else has done it."""
        try:
            return self._call(operation, **parameters)
        except CloudError as error:
            if error.cloud_code in expected:
                return None
            raise

    def _remove(self, operation: str, **parameters: Any) -> None:
        """Delete something; not found is success, and what still uses it is given time to go."""
        give_up = self._clock.monotonic() + _PATIENCE
        while True:
            try:
                self._call(operation, **parameters)
                return
            except CloudError as error:
                if error.cloud_code.endswith((".NotFound", ".NotAttached")):
                    return
                if error.cloud_code not in ("DependencyViolation", "ResourceInUse", "InvalidGroup.InUse"):
                    raise
                if self._clock.monotonic() > give_up:
                    raise CloudError(
                        f"{operation} in {self._region}: still used: {error.message}",
                        fault=Fault.config,
                        scope=Scope.region,
                        cloud_code=error.cloud_code,
                        hint="end the machines that use it (vmrun reap --all), and try again",
                    ) from error
            self._clock.sleep(_PAUSE)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        give_up = self._clock.monotonic() + _PATIENCE
        while not condition():
            if self._clock.monotonic() > give_up:
                raise CloudError(
                    f"{what} in {self._region} was made and does not appear",
                    fault=Fault.unavailable,
                    scope=Scope.region,
                    hint="run the command again",
                )
            self._clock.sleep(_PAUSE)


def rule_changes(
    present: Iterable[dict[str, Any]], networks: Iterable[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What to allow and what to revoke, so that these networks reach SSH, and nobody reaches anything else."""
    wanted = set(networks)
    kept: set[str] = set()
    surplus = []
    for permission in present:
        is_ssh = (permission.get("IpProtocol"), permission.get("FromPort"), permission.get("ToPort")) == ("tcp", 22, 22)
        bare: dict[str, Any] = {
            key: permission[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in permission
        }
        for family, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
            for source in permission.get(family, ()):
                if is_ssh and source[key] in wanted:
                    kept.add(source[key])
                else:
                    surplus.append({**bare, family: [{key: source[key]}]})
        for family in ("UserIdGroupPairs", "PrefixListIds"):
            surplus += [{**bare, family: [source]} for source in permission.get(family, ())]
    return [_ssh_from(network) for network in sorted(wanted - kept)], surplus


def _ssh_from(network: str) -> dict[str, Any]:
    ssh: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    if ":" in network:
        return {**ssh, "Ipv6Ranges": [{"CidrIpv6": network, "Description": "vmrun: SSH"}]}
    return {**ssh, "IpRanges": [{"CidrIp": network, "Description": "vmrun: SSH"}]}


def _sources(permission: dict[str, Any]) -> list[str]:
    return [one["CidrIp"] for one in permission.get("IpRanges", ())] + [
        one["CidrIpv6"] for one in permission.get("Ipv6Ranges", ())
    ]


def ssh_sources(group: dict[str, Any]) -> list[str]:
    """The networks that a group lets reach port 22."""
    found = []
    for permission in group.get("IpPermissions", ()):
        anything = permission.get("IpProtocol") == "-1"
        first, last = permission.get("FromPort", 0), permission.get("ToPort", 65535)
        if anything or (permission.get("IpProtocol") == "tcp" and first <= 22 <= last):
            found += _sources(permission)
    return found
