"""Where machines go, by region: VPC, subnets, group, image, resource group; looked up once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import NAME_PREFIX, CloudError, Fault, Scope
from vmrun.core.ids import DEPLOYMENT_CHARACTERS

from . import views
from .api import Api
from .config import IbmConfig

_UBUNTU = re.compile(r"ibm-ubuntu-24-04(-\d+)?-minimal-amd64-\d+")
_ESTABLISHED = re.compile(rf"{NAME_PREFIX}-[0-9a-z]{{{DEPLOYMENT_CHARACTERS}}}")
_INIT = "make one with `vmrun init ibm`, or name one in [ibm]"


@dataclass(frozen=True, slots=True)
class Site:
    """What there is in one region."""

    vpc: str
    security_group: str
    #: Zone to the id of its subnet with the most free addresses.
    subnets: Mapping[str, str]


class Places:
    """The sites and images of all regions, remembered for as long as the driver is open."""

    def __init__(self, api: Api, config: IbmConfig) -> None:
        self._api = api
        self._config = config
        self._sites: dict[tuple[str, str], Site] = {}
        self._images: dict[str, str] = {}
        self._group: str | None = None

    def resource_group(self) -> str:
        """Id of the resource group that all is made in; "" for the account's default. Raises CloudError (config)."""
        if self._group is None:
            wanted = self._config.resource_group
            known = not wanted or re.fullmatch(r"[0-9a-f]{32}", wanted)
            self._group = wanted if known else choose_resource_group(self._api.resource_groups(wanted), wanted)
        return self._group

    def in_group(self) -> dict[str, str]:
        """Parameters that narrow a list to the resource group; none for the default, whose id is not known."""
        group = self.resource_group()
        return {"resource_group_id": group} if group else {}

    def site(self, region: str, owner: str = "") -> Site:
        """The site in a region; `owner` chooses where several deployments have one. Raises CloudError (config)."""
        # Whose it is matters only where `vmrun init ibm` made it.
        key = (region, "" if self._config.vpc and self._config.security_group else owner)
        if key not in self._sites:
            vpcs = self._api.pages(region, "list_vpcs", "vpcs")
            vpc = choose_vpc(vpcs, self._config.vpc, owner, region)
            groups = self._api.pages(region, "list_security_groups", "security_groups", vpc_id=vpc["id"])
            subnets = self._api.pages(region, "list_subnets", "subnets", vpc_id=vpc["id"])
            self._sites[key] = Site(
                vpc=str(vpc["id"]),
                security_group=choose_group(groups, self._config.security_group, str(vpc["name"]), region),
                subnets=choose_subnets(of_region(subnets, region, self._config), self._config.subnets, region),
            )
        return self._sites[key]

    def image(self, region: str) -> str:
        """Id of the image to boot. Raises CloudError (config)."""
        if region not in self._images:
            self._images[region] = self._find_image(region)
        return self._images[region]

    def forget(self, region: str) -> None:
        """Look everything of this region up anew next time, because the cloud did not take it."""
        self._images.pop(region, None)
        for key in [key for key in self._sites if key[0] == region]:
            del self._sites[key]

    def _find_image(self, region: str) -> str:
        wanted = self._config.image
        if re.fullmatch(r"r\d{3}-[0-9a-f-]{36}", wanted):
            return wanted
        if wanted:
            return choose_image(self._api.pages(region, "list_images", "images", name=wanted), wanted, region)
        return choose_image(self._api.pages(region, "list_images", "images", visibility="public"), "", region)


def of_region(items: Iterable[dict[str, Any]], region: str, config: IbmConfig) -> list[dict[str, Any]]:
    """The items of this region, where one server answers for all regions; all of them elsewhere.

    What is in no zone cannot be told apart, and stays.
    """
    if not config.one_server:
        return list(items)
    return [item for item in items if (views.zone_of(item) or f"{region}-").startswith(f"{region}-")]


def choose_resource_group(groups: Iterable[Mapping[str, Any]], wanted: str) -> str:
    """Id of the resource group of this name. Raises CloudError (config)."""
    for group in groups:
        if wanted in (group.get("id"), group.get("name")):
            return str(group["id"])
    raise _missing(f"no resource group {wanted!r}", "`ibmcloud resource groups` lists them")


def choose_vpc(vpcs: list[dict[str, Any]], wanted: str, owner: str, region: str) -> dict[str, Any]:
    """The VPC that is named, or else the one that `vmrun init ibm` made. Raises CloudError (config)."""
    if wanted:
        found = [vpc for vpc in vpcs if wanted in (vpc["id"], vpc["name"])]
    else:
        made = [vpc for vpc in vpcs if _ESTABLISHED.fullmatch(str(vpc["name"]))]
        found = [vpc for vpc in made if vpc["name"] == f"{NAME_PREFIX}-{owner}"] or made
    if not found:
        raise _missing(f"no VPC {wanted!r} in {region}" if wanted else f"no VPC of vmrun in {region}", _INIT)
    return found[0]


def choose_group(groups: list[dict[str, Any]], wanted: str, vpc_name: str, region: str) -> str:
    """Id of the group that is named, or else the one of `vmrun init ibm`. Raises CloudError (config)."""
    if wanted:
        found = [group for group in groups if wanted in (group["id"], group["name"])]
    else:
        made = [group for group in groups if _ESTABLISHED.fullmatch(str(group["name"]))]
        found = [group for group in made if group["name"] == vpc_name] or made
    if not found:
        what = f"no security group {wanted!r}" if wanted else "no security group of vmrun"
        raise _missing(f"{what} in the VPC {vpc_name} in {region}", f"one must let SSH in: {_INIT}")
    return str(found[0]["id"])


def choose_subnets(subnets: list[dict[str, Any]], wanted: Iterable[str], region: str) -> dict[str, str]:
    """Zone to subnet, of those that are named or else all. Raises CloudError (config) when there is none."""
    names = set(wanted)
    usable = [
        each
        for each in subnets
        if each.get("status", "available") == "available"
        and (not names or names & {each["id"], each["name"]})
        and int(each.get("available_ipv4_address_count", 1)) > 0
    ]
    if not usable:
        which = f"none of the subnets {', '.join(sorted(names))}" if names else "no subnet"
        raise _missing(f"{which} in {region} has a free address", _INIT)
    usable.sort(key=lambda each: (int(each.get("available_ipv4_address_count", 1)), str(each["id"])))
    return {views.zone_of(each): str(each["id"]) for each in usable}  # the last of a zone is the one that stays


def choose_image(images: list[dict[str, Any]], wanted: str, region: str) -> str:
    """Id of the image that is named, or else of the newest Ubuntu 24.04. Raises CloudError (config)."""
    usable = [image for image in images if image.get("status") in ("available", "deprecated")]
    if wanted:
        found = [image for image in usable if wanted in (image["id"], image["name"])]
    else:
        found = [image for image in usable if _UBUNTU.fullmatch(str(image["name"]))]
    if not found:
        text = f"no image {wanted!r} in {region}" if wanted else f"no image of Ubuntu 24.04 in {region}"
        raise _missing(text, "`ibmcloud is images` lists them; name one as `image` in [ibm]")
    return str(max(found, key=lambda image: views.seconds(image.get("created_at")))["id"])


def _missing(message: str, hint: str) -> CloudError:
    return CloudError(message, fault=Fault.config, scope=Scope.cloud, hint=hint)
