"""What may stay behind of a machine: disks and reserved addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vmrun.core.clouds import TAG_OWNER, CloudError, Leftover, instance_name

from . import errors, listing, machines
from .api import GoogleApi
from .config import ON

_PART = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
#: For each kind: the listing, the resources' name in it, the method that deletes, and its parameters.
_KINDS = {
    "disk": ("compute.disks", "disks", "zone", "disk"),
    "address": ("compute.addresses", "addresses", "region", "address"),
}


def leftovers(api: GoogleApi, owner: str, regions: frozenset[str]) -> Iterator[Leftover]:
    """Resources with the owner's label or name that no machine uses. Complete, or CloudError."""
    for kind, (resource, key, place, _) in _KINDS.items():
        seen = set()
        for wanted in (f'labels.{TAG_OWNER} = "{owner}"', f'name eq "{instance_name(owner, "")}.*"'):
            for found in listing.scoped(api, f"{resource}.aggregatedList", key, regions=regions, filter=wanted):
                one = _leftover(kind, place, found)
                if one.id not in seen and machines.belongs(found, owner) and not found.get("users"):
                    seen.add(one.id)
                    yield one


def _leftover(kind: str, place: str, found: dict[str, Any]) -> Leftover:
    where, name = machines.last(found.get(place)), str(found.get("name", ""))
    return Leftover(
        on=ON,
        kind=kind,
        id=f"{where}/{name}",
        name=name,
        region=where if place == "region" else machines.region_of(where),
        created_at=machines.seconds(found.get("creationTimestamp")),
    )


def discard(api: GoogleApi, leftover: Leftover) -> None:
    """Delete a disk or an address, unless it is gone, or in use."""
    where, _, name = leftover.id.partition("/")
    if leftover.kind not in _KINDS or not _PART.fullmatch(where) or not _PART.fullmatch(name):
        return
    resource, _, place, parameter = _KINDS[leftover.kind]
    parameters: dict[str, Any] = {place: where, parameter: name}
    try:
        api.write(f"{resource}.delete", **parameters)
    except CloudError as error:
        if not errors.is_absent(error, name) and not errors.is_used(error):
            raise
