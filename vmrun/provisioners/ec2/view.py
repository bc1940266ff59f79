"""From what EC2 shows of an instance to vmrun's words for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vmrun.core.clouds import Address, Instance, InstanceState

from .config import ON
from .errors import reason_of
from .networks import name_of, tags_of

_STATES = {
    "pending": InstanceState.pending,
    "running": InstanceState.running,
    # On its way to a power-off, not to its end.
    "stopping": InstanceState.stopped,
    "stopped": InstanceState.stopped,
    "shutting-down": InstanceState.stopping,
    "terminated": InstanceState.gone,
}
#: States in which EC2 still has the instance, so that somebody may pay for it.
LIVING = ["pending", "running", "shutting-down", "stopping", "stopped"]
_ENDED = (InstanceState.stopped, InstanceState.stopping, InstanceState.gone)
_ID = re.compile(r"([a-z]{2}(?:-[a-z]+){1,3}-\d{1,2})/(i-[0-9a-f]{8,17})")


def parse_id(id: str) -> tuple[str, str] | None:
    """Region and EC2's identifier of `Instance.id`; None for what is no such id."""
    found = _ID.fullmatch(id)
    return (found[1], found[2]) if found else None


def instance(raw: Mapping[str, Any], region: str, *, public_ip: bool) -> Instance:
    """One instance of DescribeInstances or RunInstances."""
    state = _STATES.get(raw.get("State", {}).get("Name", ""), InstanceState.pending)
    reason, fault = ("", None) if state not in _ENDED else _reason(raw)
    return Instance(
        id=f"{region}/{raw['InstanceId']}",
        name=name_of(raw),
        on=ON,
        state=state,
        region=region,
        zone=str(raw.get("Placement", {}).get("AvailabilityZone", "")),
        instance_type=str(raw.get("InstanceType", "")),
        address=_address(raw, state, public_ip=public_ip),
        tags=tags_of(raw),
        created_at=seconds(raw.get("LaunchTime")),
        reason=reason,
        fault=fault,
    )


def seconds(moment: object) -> float:
    """Seconds since the epoch of a time that the SDK gives; 0 for none."""
    return moment.timestamp() if isinstance(moment, datetime) else 0.0


def _reason(raw: Mapping[str, Any]) -> tuple[str, Any]:
    why = raw.get("StateReason") or {}
    text, fault = reason_of(str(why.get("Code", "")), str(why.get("Message", "")))
    return text or str(raw.get("StateTransitionReason", "")), fault


def _address(raw: Mapping[str, Any], state: InstanceState, *, public_ip: bool) -> Address | None:
    """Where SSH answers; a machine that starts is not given the address that it will not be reached by."""
    public, private = raw.get("PublicIpAddress"), raw.get("PrivateIpAddress")
    host = (public or (private if state is InstanceState.running else None)) if public_ip else private
    return Address(str(host)) if host and state in (InstanceState.pending, InstanceState.running) else None
