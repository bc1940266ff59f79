"""What the catalogue has for IBM, in the zones where a machine can stand and its profile exists. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vmrun.core.clouds import CloudError, Fault, Need, Offer, Scope


@dataclass(frozen=True, slots=True)
class Profile:
    """What a region says of a profile."""

    #: Zones with hardware for it; none where the API does not tell.
    zones: frozenset[str]
    spot: bool


def profile_of(raw: Mapping[str, Any]) -> Profile:
    """From the API's own words."""
    availability = raw.get("availability_class") or {}
    classes = availability.get("values") or [availability.get("value")]
    zones = frozenset(str(zone.get("name", "")) for zone in raw.get("zones") or [])
    return Profile(zones, "spot" in classes)


def in_zones(
    offers: Iterable[Offer], need: Need, zones: Iterable[str], profiles: Mapping[str, Profile]
) -> Iterator[Offer]:
    """One region's offers of the catalogue, each once for every zone of `zones` that will do."""
    usable = [zone for zone in zones if need.zone in ("", zone)]
    for offer in offers:
        profile = profiles.get(offer.instance_type)
        if profile is None or (offer.spot and not profile.spot):
            continue
        for zone in usable:
            if not profile.zones or zone in profile.zones:
                yield dataclasses.replace(offer, zone=zone)


def no_spot(what: str) -> CloudError:
    """The error for a spot machine of a profile that has none, said before the API says it in its own way."""
    return CloudError(
        f"no spot on IBM at this size: {what} on demand only",
        fault=Fault.not_offered,
        scope=Scope.offer,
        hint="IBM has spot machines of flexible profiles only, of up to 64 vCPUs: use --on-demand, or another cloud",
    )
