"""What may be left of machines that are gone: disks, interfaces, addresses, keys, requests for spot machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import TAG_OWNER, CloudError, Leftover

from .api import Aws
from .config import ON
from .networks import name_of
from .view import seconds


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of resource: how to list it, when it is unused, and how to delete it."""

    name: str
    list_action: str
    list_key: str
    id_key: str
    #: Key of the time of its creation; "" if EC2 does not tell it.
    created_key: str
    #: Whether no instance uses it.
    is_unused: Callable[[Mapping[str, Any]], bool]
    delete_action: str
    #: Parameter of the deletion that takes the id, or a list of ids.
    delete_key: str
    #: Parameter of the list that narrows it to ids.
    ids_key: str
    delete_by_list: bool = False


def _is_available(raw: Mapping[str, Any]) -> bool:
    return raw.get("Status") == "available" or raw.get("State") == "available"


def _is_idle_request(raw: Mapping[str, Any]) -> bool:
    """A request that could still be met, by a machine that nobody waits for."""
    return raw.get("State") == "open" or (raw.get("State") == "active" and not raw.get("InstanceId"))


_KINDS = (
    _Kind(
        *("volume", "ec2:DescribeVolumes", "Volumes", "VolumeId", "CreateTime", _is_available),
        *("ec2:DeleteVolume", "VolumeId", "VolumeIds"),
    ),
    _Kind(
        *("network-interface", "ec2:DescribeNetworkInterfaces", "NetworkInterfaces", "NetworkInterfaceId", ""),
        *(_is_available, "ec2:DeleteNetworkInterface", "NetworkInterfaceId", "NetworkInterfaceIds"),
    ),
    _Kind(
        *("address", "ec2:DescribeAddresses", "Addresses", "AllocationId", ""),
        *(lambda raw: not raw.get("AssociationId"), "ec2:ReleaseAddress", "AllocationId", "AllocationIds"),
    ),
    _Kind(
        *("key-pair", "ec2:DescribeKeyPairs", "KeyPairs", "KeyPairId", "CreateTime", lambda _raw: True),
        *("ec2:DeleteKeyPair", "KeyPairId", "KeyPairIds"),
    ),
    _Kind(
        *("spot-request", "ec2:DescribeSpotInstanceRequests", "SpotInstanceRequests", "SpotInstanceRequestId"),
        *("CreateTime", _is_idle_request, "ec2:CancelSpotInstanceRequests", "SpotInstanceRequestIds"),
        *("SpotInstanceRequestIds", True),
    ),
)


def find(aws: Aws, region: str, owner: str) -> list[Leftover]:
    """All of them in one region with this owner's tag. Raises CloudError."""
    owned = [{"Name": f"tag:{TAG_OWNER}", "Values": [owner]}]
    return [
        Leftover(
            on=ON,
            kind=kind.name,
            id=f"{region}/{raw[kind.id_key]}",
            name=name_of(raw) or str(raw.get("KeyName", "")),
            region=region,
            created_at=seconds(raw.get(kind.created_key)),
        )
        for kind in _KINDS
        for raw in aws.pages(region, kind.list_action, kind.list_key, Filters=owned)
        if kind.is_unused(raw)
    ]


def discard(aws: Aws, leftover: Leftover) -> None:
    """Delete one unless it is used by now; not found is success. Raises CloudError."""
    region, _, identifier = leftover.id.partition("/")
    kind = next((each for each in _KINDS if each.name == leftover.kind), None)
    if kind is None or not identifier:
        return
    try:
        if not any(kind.is_unused(raw) for raw in _again(aws, kind, region, identifier)):
            return
        which: dict[str, Any] = {kind.delete_key: [identifier] if kind.delete_by_list else identifier}
        aws.call(region, kind.delete_action, **which)
    except CloudError as error:
        if not _is_harmless(error.cloud_code):
            raise


def _again(aws: Aws, kind: _Kind, region: str, id: str) -> Iterator[Mapping[str, Any]]:
    yield from aws.pages(region, kind.list_action, kind.list_key, **{kind.ids_key: [id]})


def _is_harmless(code: str) -> bool:
    """Gone already, or taken by an instance between the look and the deletion."""
    return code.endswith((".NotFound", ".InUse", ".Malformed")) or code in ("VolumeInUse", "IncorrectState")
