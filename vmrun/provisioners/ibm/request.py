"""From a spec to the bodies of requests. Pure; equal for equal specs, so that a create can be sent again."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import CloudError, Fault, InstanceSpec, Scope, instance_name

#: GB that a boot volume has at least.
_LEAST = 10
#: GB up to which a boot volume may be of the first generation of storage, and what its profile is then and beyond.
_FIRST_GENERATION_MAX, _FIRST_GENERATION, _SECOND_GENERATION = 250, "general-purpose", "sdp"
_MARK = re.compile(r"vmrun-until-(\d{1,11})-([0-9a-f]{20})")


@dataclass(frozen=True, slots=True)
class Place:
    """Identifiers of what an instance is put into and made of."""

    vpc: str
    subnet: str
    security_group: str
    image: str
    resource_group: str = ""
    trusted_profile: str = ""


def mark(spec: InstanceSpec) -> str:
    """Name of the boot volume's attachment.

    IBM takes no tags with a create call, and does not show user data again. This name is taken, is shown in every
    list, and tells what the instance's own name has no room for: its hard deadline, and which user data it boots.
    """
    digest = hashlib.sha256(spec.user_data.encode()).hexdigest()[:20]
    return f"vmrun-until-{math.floor(spec.hard_deadline)}-{digest}"


def deadline_of(mark: str) -> str | None:
    """The hard deadline that a mark tells, as decimal text; None if it is not one."""
    found = _MARK.fullmatch(mark)
    return found[1] if found is not None else None


def check_name(spec: InstanceSpec) -> None:
    """CloudError (config) unless the name is the one by which owner and VM are recognised later."""
    if spec.name != instance_name(spec.owner, spec.vm):
        raise CloudError(
            f"an instance named {spec.name[:80]} could not be recognised as {spec.vm} of {spec.owner}",
            fault=Fault.config,
            scope=Scope.cloud,
            hint="on IBM ownership is in the name: vmrun-<deployment>-<vm>",
        )


def instance(spec: InstanceSpec, place: Place, *, disk: int) -> dict[str, Any]:
    """The prototype of an instance with one network interface and one volume, both deleted with it.

    `disk`: bytes of the boot volume when the spec does not say.
    """
    offer = spec.offer
    body: dict[str, Any] = {
        "name": spec.name,
        "profile": {"name": offer.instance_type},
        "zone": {"name": offer.zone},
        "vpc": {"id": place.vpc},
        "image": {"id": place.image},
        "user_data": spec.user_data,
        "primary_network_attachment": {
            "name": "eth0",
            "virtual_network_interface": {
                "auto_delete": True,
                "allow_ip_spoofing": False,
                "subnet": {"id": place.subnet},
                "security_groups": [{"id": place.security_group}],
            },
        },
        "boot_volume_attachment": {
            "name": mark(spec),
            "delete_volume_on_instance_delete": True,
            "volume": _volume(spec, disk),
        },
        # The job's own user is kept away from it by the machine's firewall.
        "metadata_service": {"enabled": True, "protocol": "http", "response_hop_limit": 1},
        # A restarted machine would have lost its memory; one that stays stopped is seen and deleted.
        "availability_policy": {"host_failure": "stop"},
    }
    if offer.spot:
        body["availability"] = {"class": "spot"}
        body["availability_policy"]["preemption"] = "delete"
    if place.resource_group:
        body["resource_group"] = {"id": place.resource_group}
    if place.trusted_profile:
        body["default_trusted_profile"] = {"target": {"id": place.trusted_profile}, "auto_link": True}
    return body


def floating_ip(name: str, interface: str, resource_group: str) -> dict[str, Any]:
    """The prototype of a public address that is bound to a virtual network interface from the first."""
    body: dict[str, Any] = {"name": name, "target": {"id": interface}}
    if resource_group:
        body["resource_group"] = {"id": resource_group}
    return body


def _volume(spec: InstanceSpec, disk: int) -> dict[str, Any]:
    capacity = max(_LEAST, math.ceil((spec.disk or disk) / 10**9))
    return {
        "name": spec.name,
        "capacity": capacity,
        "profile": {"name": _FIRST_GENERATION if capacity <= _FIRST_GENERATION_MAX else _SECOND_GENERATION},
        "user_tags": [f"{key}:{value}" for key, value in sorted(spec.tags.items())],
    }
