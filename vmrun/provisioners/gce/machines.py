"""Instances as Compute Engine tells them, in vmrun's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vmrun.core.clouds import NAME_PREFIX, TAG_OWNER, Address, Fault, Instance, InstanceState, instance_name

from .config import ON

_STATES = {
    "PENDING": InstanceState.pending,
    "PROVISIONING": InstanceState.pending,
    "STAGING": InstanceState.pending,
    "RUNNING": InstanceState.running,
    # The host failed and the machine is brought up elsewhere.
    "REPAIRING": InstanceState.running,
    "PENDING_STOP": InstanceState.stopping,
    "STOPPING": InstanceState.stopping,
    "SUSPENDING": InstanceState.stopping,
    "DEPROVISIONING": InstanceState.stopping,
    "STOPPED": InstanceState.stopped,
    "SUSPENDED": InstanceState.stopped,
    "TERMINATED": InstanceState.stopped,
}
_ZONE = re.compile(r"[a-z]+(-[a-z0-9]+){1,4}")
_NAME = re.compile(rf"{NAME_PREFIX}-[-a-z0-9]{{0,56}}[a-z0-9]")
_ENDED = (InstanceState.stopped, InstanceState.stopping)


def instance_id(zone: str, name: str) -> str:
    """What `get` and `delete` take: all that is needed to find the machine."""
    return f"{zone}/{name}"


def split_id(id: str) -> tuple[str, str] | None:
    """Zone and name of an id; the zone is "" for a bare name; None for what cannot be a machine of vmrun."""
    zone, slash, name = id.rpartition("/")
    if _NAME.fullmatch(name) is None or (slash and _ZONE.fullmatch(zone) is None):
        return None
    return zone, name


def last(url: object) -> str:
    """The last part of a full or partial URL, which is the thing's name."""
    return str(url or "").rstrip("/").rpartition("/")[2]


def region_of(zone: str) -> str:
    """The region that a zone is in."""
    return zone.rpartition("-")[0]


def belongs(found: Mapping[str, Any], owner: str) -> bool:
    """Whether a resource is this owner's, by its label or by its name."""
    labels = found.get("labels") or {}
    return labels.get(TAG_OWNER) == owner or str(found.get("name", "")).startswith(instance_name(owner, ""))


def seconds(timestamp: object) -> float:
    """Seconds since the epoch of an RFC 3339 timestamp; 0 for none."""
    if not timestamp:
        return 0.0
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        return 0.0


def instance(found: Mapping[str, Any], *, public: bool) -> Instance:
    """An instance resource. `public`: SSH answers at its public address, else at its private one."""
    zone, name = last(found.get("zone")), str(found.get("name", ""))
    state = _STATES.get(str(found.get("status", "")), InstanceState.pending)
    reason, fault = _ending(found, state)
    return Instance(
        id=instance_id(zone, name),
        name=name,
        on=ON,
        state=state,
        region=region_of(zone),
        zone=zone,
        instance_type=last(found.get("machineType")),
        address=_address(found, public=public),
        tags={str(key): str(value) for key, value in (found.get("labels") or {}).items()},
        created_at=seconds(found.get("creationTimestamp")),
        reason=reason,
        fault=fault,
    )


def _address(found: Mapping[str, Any], *, public: bool) -> Address | None:
    for interface in found.get("networkInterfaces") or ():
        if not public:
            return Address(str(interface["networkIP"])) if interface.get("networkIP") else None
        for access in interface.get("accessConfigs") or ():
            if access.get("natIP"):
                return Address(str(access["natIP"]))
    return None


def _ending(found: Mapping[str, Any], state: InstanceState) -> tuple[str, Fault | None]:
    """Why a machine that ended did so, as far as the resource tells."""
    said = str(found.get("statusMessage") or "")
    if state not in _ENDED:
        return "", None
    return said, Fault.preempted if "preempt" in said.lower() else None
