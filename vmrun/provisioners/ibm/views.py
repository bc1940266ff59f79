"""From what the API shows to the words of vmrun. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from vmrun.core.clouds import (
    NAME_PREFIX,
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_VM,
    Address,
    Instance,
    InstanceState,
    Leftover,
)
from vmrun.core.ids import DEPLOYMENT_CHARACTERS

from . import request
from .config import ON
from .errors import of_reasons

_NAME = re.compile(rf"{NAME_PREFIX}-([0-9a-z]{{{DEPLOYMENT_CHARACTERS}}})-([0-9a-z]{{26}})")
_STATES = {
    "pending": InstanceState.pending,
    "starting": InstanceState.pending,
    "restarting": InstanceState.pending,
    "running": InstanceState.running,
    "deleting": InstanceState.stopping,
    "stopping": InstanceState.stopped,
    "stopped": InstanceState.stopped,
    # It does not run, still holds its name, disk and quota, and must be deleted.
    "failed": InstanceState.stopped,
}
#: What an interface has before it has an address.
_NO_ADDRESS = "0.0.0.0"  # noqa: S104 - compared with, never listened on


def owner_and_vm(name: str) -> tuple[str, str] | None:
    """What a name tells; None if it is not the name of one of vmrun's machines."""
    found = _NAME.fullmatch(name)
    return (found[1], found[2]) if found is not None else None


def is_ours(raw: Mapping[str, Any]) -> bool:
    """Whether vmrun made this instance: by its name, and by the mark that nobody else gives."""
    return owner_and_vm(str(raw.get("name", ""))) is not None and deadline(raw) is not None


def mark_of(raw: Mapping[str, Any]) -> str:
    """The name of the boot volume's attachment; "" if there is none (yet)."""
    return str((raw.get("boot_volume_attachment") or {}).get("name", ""))


def deadline(raw: Mapping[str, Any]) -> str | None:
    """The hard deadline, as decimal text, or None."""
    return request.deadline_of(mark_of(raw))


def interface(raw: Mapping[str, Any]) -> str:
    """Id of the primary virtual network interface; "" if it is not known yet."""
    attachment = raw.get("primary_network_attachment") or {}
    return str((attachment.get("virtual_network_interface") or {}).get("id", ""))


def private_address(raw: Mapping[str, Any]) -> str:
    """The address inside the VPC; "" if there is none yet."""
    for key in ("primary_network_attachment", "primary_network_interface"):
        address = str(((raw.get(key) or {}).get("primary_ip") or {}).get("address", ""))
        if address not in ("", _NO_ADDRESS):
            return address
    return ""


def public_address(floating_ips: Iterable[Mapping[str, Any]], target: str) -> str:
    """The address that is bound to this interface; "" if none is."""
    for each in floating_ips:
        if target and str((each.get("target") or {}).get("id", "")) == target:
            return str(each.get("address", ""))
    return ""


def instance(region: str, raw: Mapping[str, Any], address: str) -> Instance:
    """One machine; `address` is where SSH answers, "" if nowhere yet."""
    name = str(raw["name"])
    owner, vm = owner_and_vm(name) or ("", "")
    tags = {TAG_OWNER: owner, TAG_VM: vm} if owner else {}
    if (until := deadline(raw)) is not None:
        tags[TAG_DEADLINE] = until
    reason, fault = of_reasons(raw)
    state = _STATES.get(str(raw.get("status", "")), InstanceState.pending)
    if fault is not None and state is InstanceState.pending:
        state = InstanceState.stopped  # it will not come up any more
    return Instance(
        id=f"{region}/{raw['id']}",
        name=name,
        on=ON,
        state=state,
        region=region,
        zone=zone_of(raw),
        instance_type=str((raw.get("profile") or {}).get("name", "")),
        address=Address(address) if address else None,
        tags=tags,
        created_at=seconds(raw.get("created_at")),
        reason=reason,
        fault=fault,
    )


def leftover(kind: str, region: str, raw: Mapping[str, Any]) -> Leftover:
    """A resource without a machine."""
    return Leftover(
        on=ON,
        kind=kind,
        id=f"{region}/{raw['id']}",
        name=str(raw.get("name", "")),
        region=region,
        created_at=seconds(raw.get("created_at")),
    )


def zone_of(raw: Mapping[str, Any]) -> str:
    """Name of the zone of a resource that is in one."""
    return str((raw.get("zone") or {}).get("name", ""))


def seconds(created_at: object) -> float:
    """Seconds since the epoch of a date of the API; 0 if it is none."""
    try:
        return datetime.fromisoformat(str(created_at)).timestamp()
    except ValueError:
        return 0.0
