"""From the spec of a machine to the body of its RunInstances call: the same spec always gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_VM, CloudError, Fault, InstanceSpec, Scope

from .config import Ec2Config
from .images import Image

#: Bytes of user data that EC2 takes, before their encoding.
USER_DATA_LIMIT = 16_384
#: Of the boot disk, in MiB a second. 125 come with a gp3 disk; the 3,000 operations a second that come with it, too,
#: carry up to 750, so only the throughput is paid for: about 0.02 dollars an hour.
DISK_THROUGHPUT = 500
DISK_IOPS = 3000
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine goes."""

    subnet: str
    group: str


def client_token(spec: InstanceSpec, *, plain: bool = False) -> str:
    """The idempotency token of the create call: at most 64 ASCII characters, one for each intent and offer.

    `plain`: of the call without what some spot markets refuse, which is another call to EC2.
    """
    offer = spec.offer
    market = "spot" if offer.spot else "on-demand"
    parts = (spec.owner, spec.vm, offer.region, offer.zone, offer.instance_type, market, "plain" if plain else "")
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{spec.vm[:31]}-{digest[:32]}"


def run_instances(
    config: Ec2Config, spec: InstanceSpec, image: Image, place: Place, *, plain: bool = False
) -> dict[str, Any]:
    """The body. `plain`: without the shutdown behaviour. Raises CloudError (config) for user data that is too long."""
    body: dict[str, Any] = {
        "ClientToken": client_token(spec, plain=plain),
        "ImageId": image.id,
        "InstanceType": spec.offer.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": _user_data(spec.user_data),
        "BlockDeviceMappings": [_disk(config, spec, image)],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": place.subnet,
                "Groups": [place.group],
                "AssociatePublicIpAddress": config.public_ip,
                "DeleteOnTermination": True,
            }
        ],
        # Only with a token that user code cannot get through a proxy or a container, and without credentials for tags.
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "enabled",
        },
        "TagSpecifications": _tag_specifications(spec),
    }
    if not plain:
        body["InstanceInitiatedShutdownBehavior"] = "terminate"
    if spec.offer.spot:
        body["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        }
    if config.instance_profile:
        by = "Arn" if config.instance_profile.startswith("arn:") else "Name"
        body["IamInstanceProfile"] = {by: config.instance_profile}
    return body


def tags(spec: InstanceSpec) -> dict[str, str]:
    """The tags of the machine and of all that is created with it."""
    own = {TAG_OWNER: spec.owner, TAG_VM: spec.vm, TAG_DEADLINE: str(int(spec.hard_deadline))}
    return {**own, **spec.tags, "Name": spec.name}


def _tag_specifications(spec: InstanceSpec) -> list[dict[str, Any]]:
    pairs = [{"Key": key, "Value": value} for key, value in sorted(tags(spec).items())]
    kinds = ["instance", "volume", "network-interface"]
    kinds += ["spot-instances-request"] if spec.offer.spot else []
    return [{"ResourceType": kind, "Tags": pairs} for kind in kinds]


def _disk(config: Ec2Config, spec: InstanceSpec, image: Image) -> dict[str, Any]:
    size = max(-(-max(config.disk, spec.disk) // _GIB), image.disk_gib)
    return {
        "DeviceName": image.root_device,
        "Ebs": {
            "VolumeType": "gp3",
            "VolumeSize": size,
            "Iops": DISK_IOPS,
            "Throughput": DISK_THROUGHPUT,
            "DeleteOnTermination": True,
        },
    }


def _user_data(text: str) -> str | bytes:
    """As it is, or compressed if it is too long; cloud-init reads both."""
    raw = text.encode()
    if len(raw) <= USER_DATA_LIMIT:
        return text
    packed = gzip.compress(raw, 9, mtime=0)
    if len(packed) > USER_DATA_LIMIT:
        raise CloudError(
            f"the machine's user data is {len(packed):,} bytes long when compressed, and EC2 takes {USER_DATA_LIMIT:,}",
            fault=Fault.config,
            scope=Scope.cloud,
            hint="this is a defect of vmrun: please report it",
        )
    return packed
