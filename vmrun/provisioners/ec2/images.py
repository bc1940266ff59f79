"""Which image machines boot from, in each region; only images of the accounts that are trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import CloudError, Fault, Scope

from .api import Aws
from .config import Ec2Config

#: The public parameter by which Canonical names its newest Ubuntu 24.04.
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
_CANONICAL_ARCH = {"x86_64": "amd64", "arm64": "arm64"}
_AMI = re.compile(r"ami-[0-9a-f]{8,17}")


@dataclass(frozen=True, slots=True)
class Image:
    """What a create call must know of an image."""

    id: str
    root_device: str
    #: GiB that its disk has at least.
    disk_gib: int


class Images:
    """The configured image in each region and architecture, asked for once."""

    def __init__(self, aws: Aws, config: Ec2Config) -> None:
        self._aws = aws
        self._config = config
        self._known: dict[tuple[str, str], Image] = {}

    def find(self, region: str, arch: str) -> Image:
        """Raises CloudError (config) if there is none, or if it is not to be trusted or of another architecture."""
        if (region, arch) not in self._known:
            self._known[region, arch] = self._look(region, arch)
        return self._known[region, arch]

    def _look(self, region: str, arch: str) -> Image:
        wanted = self._config.image
        if not wanted or wanted.startswith("ssm:"):
            found = self._by_id(region, self._parameter(region, parameter_path(wanted, arch)))
        elif _AMI.fullmatch(wanted):
            found = self._by_id(region, wanted)
        else:
            found = self._by_name(region, wanted)
        if found.get("Architecture", arch) != arch:
            raise _unusable(
                f"the image {found['ImageId']} in {region} is for {found['Architecture']} machines, not {arch}",
                f"leave ec2.image out, or ask for --arch {found['Architecture']}",
            )
        return _image(found)

    def _parameter(self, region: str, path: str) -> str:
        answer = self._aws.call(region, "ssm:GetParameter", Name=path)
        return str(answer["Parameter"]["Value"])

    def _by_id(self, region: str, id: str) -> Mapping[str, Any]:
        found = self._aws.pages(region, "ec2:DescribeImages", "Images", ImageIds=[id])
        if not found:
            raise _unusable(
                f"there is no image {id} in {region}", "correct ec2.image; an AMI exists in one region only"
            )
        if not self._is_trusted(region, found[0]):
            raise _unusable(
                f"the image {id} in {region} belongs to the account {found[0].get('OwnerId')}, "
                "which is not among those whose images may be booted",
                "if that account is to be trusted, add it to ec2.image_owners",
            )
        return found[0]

    def _is_trusted(self, region: str, image: Mapping[str, Any]) -> bool:
        trusted = self._config.image_owners
        owner = image.get("OwnerId")
        if owner in trusted or image.get("ImageOwnerAlias") in trusted:
            return True
        return "self" in trusted and owner == self._aws.call(region, "sts:GetCallerIdentity")["Account"]

    def _by_name(self, region: str, name: str) -> Mapping[str, Any]:
        found = self._aws.pages(
            region,
            "ec2:DescribeImages",
            "Images",
            Owners=list(self._config.image_owners),
            Filters=[{"Name": "name", "Values": [name]}, {"Name": "state", "Values": ["available"]}],
        )
        if not found:
            raise _unusable(
                f"none of {', '.join(self._config.image_owners)} has an image named {name} in {region}",
                "correct ec2.image or ec2.image_owners",
            )
        return max(found, key=lambda one: (str(one.get("CreationDate", "")), str(one["ImageId"])))


def parameter_path(wanted: str, arch: str) -> str:
    """The path of the SSM parameter for `ec2.image`; `{arch}` in it is `amd64` or `arm64`."""
    path = wanted.removeprefix("ssm:") if wanted else UBUNTU
    return path.replace("{arch}", _CANONICAL_ARCH.get(arch, arch))


def _image(found: Mapping[str, Any]) -> Image:
    root = str(found.get("RootDeviceName") or "/dev/sda1")
    return Image(str(found["ImageId"]), root, _root_size(root, found.get("BlockDeviceMappings", ())))


def _root_size(root: str, disks: Iterable[Mapping[str, Any]]) -> int:
    return next((int(one.get("Ebs", {}).get("VolumeSize", 0)) for one in disks if one.get("DeviceName") == root), 0)


def _unusable(message: str, hint: str) -> CloudError:
    return CloudError(message, fault=Fault.config, scope=Scope.region, hint=hint)
