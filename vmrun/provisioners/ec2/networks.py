"""Where machines are placed: the VPC, a subnet for each zone, and the group that lets SSH in. Found, never made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import CloudError, Fault, Scope

from .api import Aws
from .config import Ec2Config

#: What `vmrun init ec2` made bears this tag, with the deployment's id.
TAG_ESTATE = "vmrun-estate"
_INIT = "run: vmrun init ec2"


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet that machines can be placed in."""

    id: str
    zone: str
    vpc: str


class Networks:
    """The configured network in each region, asked for once."""

    def __init__(self, aws: Aws, config: Ec2Config) -> None:
        self._aws = aws
        self._config = config
        self._subnets: dict[str, dict[str, Subnet]] = {}
        self._groups: dict[tuple[str, str], str] = {}

    def subnets(self, region: str) -> dict[str, Subnet]:
        """The subnet to use in each zone of a region. Raises CloudError (config) if there is none at all."""
        if region not in self._subnets:
            self._subnets[region] = self._look(region)
        return self._subnets[region]

    def group(self, region: str, owner: str) -> str:
        """The id of the group for this deployment's machines. Raises CloudError (config) if there is none."""
        if (region, owner) not in self._groups:
            vpcs = {subnet.vpc for subnet in self.subnets(region).values()}
            self._groups[region, owner] = str(find_group(self._aws, self._config, region, vpcs, owner)["GroupId"])
        return self._groups[region, owner]

    def _look(self, region: str) -> dict[str, Subnet]:
        wanted = self._config.subnets
        filters = [{"Name": "state", "Values": ["available"]}]
        if self._config.vpc or not wanted:
            filters.append({"Name": "vpc-id", "Values": [str(find_vpc(self._aws, self._config, region)["VpcId"])]})
        found = self._aws.pages(region, "ec2:DescribeSubnets", "Subnets", Filters=filters)
        chosen = choose_subnets(region, found, wanted, public=self._config.public_ip)
        if not chosen:
            what = f"none of the subnets {', '.join(wanted)} is" if wanted else "there is no subnet"
            raise _missing(f"{what} in {region}", "correct ec2.subnets" if wanted else _INIT)
        return chosen


def choose_subnets(
    region: str, found: Iterable[Mapping[str, Any]], wanted: tuple[str, ...], *, public: bool
) -> dict[str, Subnet]:
    """One subnet for each zone, the same one at every call.

    Of several in a zone the one that is named first in the configuration, then one that fits the wish for a public
    address, then the zone's default one. Zones that are not whole (local ones, at the edge) only count when their
    subnet is named.
    """
    chosen: dict[str, tuple[tuple[object, ...], Subnet]] = {}
    for raw in found:
        subnet, zone = str(raw["SubnetId"]), str(raw["AvailabilityZone"])
        rank = _named(raw, wanted)
        if rank is None or (not wanted and not re.fullmatch(re.escape(region) + "[a-z]", zone)):
            continue
        key = (rank, raw.get("MapPublicIpOnLaunch", False) != public, not raw.get("DefaultForAz", False), subnet)
        if zone not in chosen or key < chosen[zone][0]:
            chosen[zone] = (key, Subnet(subnet, zone, str(raw["VpcId"])))
    return {zone: chosen[zone][1] for zone in sorted(chosen)}


def _named(raw: Mapping[str, Any], wanted: tuple[str, ...]) -> int | None:
    """Where among the wanted ones it stands, by id or Name; 0 if any will do, None if it is not wanted."""
    if not wanted:
        return 0
    names = (str(raw["SubnetId"]), name_of(raw))
    return min((wanted.index(name) for name in names if name in wanted), default=None)


def vpc_of(aws: Aws, region: str, id: str) -> dict[str, Any]:
    """A VPC by its id. Raises CloudError (config)."""
    found = _vpcs(aws, region, "vpc-id", id)
    if not found:
        raise _missing(f"there is no VPC {id} in {region}", "correct ec2.vpc and ec2.subnets")
    return found[0]


def find_vpc(aws: Aws, config: Ec2Config, region: str) -> dict[str, Any]:
    """The configured VPC, else the default one, else the one of `vmrun init ec2`. Raises CloudError (config)."""
    if config.vpc:
        by = "vpc-id" if config.vpc.startswith("vpc-") else "tag:Name"
        found = _vpcs(aws, region, by, config.vpc)
        if len(found) != 1:
            count = "no VPC" if not found else f"{len(found)} VPCs"
            raise _missing(f"there are {count} {config.vpc} in {region}", "correct ec2.vpc: an id, or a unique Name")
        return found[0]
    found = _vpcs(aws, region, "is-default", "true") or _vpcs(aws, region, "tag-key", TAG_ESTATE)
    if not found:
        raise _missing(f"{region} has no default VPC, and none of vmrun's", _INIT)
    return min(found, key=lambda one: str(one["VpcId"]))


def _vpcs(aws: Aws, region: str, by: str, value: str) -> list[dict[str, Any]]:
    return aws.pages(region, "ec2:DescribeVpcs", "Vpcs", Filters=[{"Name": by, "Values": [value]}])


def find_group(aws: Aws, config: Ec2Config, region: str, vpcs: Iterable[str], owner: str) -> dict[str, Any]:
    """The configured group, else the one that `vmrun init ec2` made for this deployment. Raises CloudError (config)."""
    filters = [{"Name": "vpc-id", "Values": sorted(vpcs)}]
    wanted = config.security_group
    if wanted:
        filters.append({"Name": "group-id" if wanted.startswith("sg-") else "group-name", "Values": [wanted]})
    else:
        filters.append({"Name": f"tag:{TAG_ESTATE}", "Values": [owner]})
    found = aws.pages(region, "ec2:DescribeSecurityGroups", "SecurityGroups", Filters=filters)
    if not found:
        if wanted:
            raise _missing(
                f"there is no security group {wanted} in the VPC in {region}",
                "correct ec2.security_group: the id or name of a group in the same VPC",
            )
        raise _missing(f"{region} has no security group for vmrun's machines yet", _INIT)
    return min(found, key=lambda one: str(one["GroupId"]))


def tags_of(raw: Mapping[str, Any]) -> dict[str, str]:
    """The tags of anything that EC2 shows."""
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in raw.get("Tags") or raw.get("TagSet") or ()}


def name_of(raw: Mapping[str, Any]) -> str:
    """Its Name; "" if it has none."""
    return tags_of(raw).get("Name", "")


def _missing(message: str, hint: str) -> CloudError:
    return CloudError(message, fault=Fault.config, scope=Scope.region, hint=hint)
