"""From the catalogue's offers, which know regions, to offers in zones that have the type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vmrun import catalog
from vmrun.core.clouds import Need, Offer

from . import listing, machines
from .api import GoogleApi
from .config import ON, GceConfig

#: Types that are asked for, in one request whose filter is part of its address. They are the cheapest that fit; no
#: submission tries more.
_TYPES_MAX = 60


class ZonedOffers:
    """Offers of the configured regions. What a zone has is asked once for each type."""

    def __init__(self, api: GoogleApi, config: GceConfig, cache_dir: Path) -> None:
        """`cache_dir` is where a refreshed catalogue may be."""
        self._api = api
        self._cache_dir = cache_dir
        self._config = config
        #: By type: the zones that have it.
        self._zones: dict[str, tuple[str, ...]] = {}

    def fitting(self, need: Need) -> list[Offer]:
        """One offer for each type, zone and market that fits `need`, in the catalogue's order."""
        known = catalog.offers(ON, need, self._config.regions, exclude=self._config.exclude, cache_dir=self._cache_dir)
        types = list(dict.fromkeys(offer.instance_type for offer in known))[:_TYPES_MAX]
        self._learn(types)
        return [
            replace(offer, zone=zone)
            for offer in known
            for zone in self._zones.get(offer.instance_type, ())
            if machines.region_of(zone) == offer.region and need.zone in ("", zone)
        ]

    def _learn(self, types: Iterable[str]) -> None:
        """Ask for the zones of those types that have not been asked for."""
        new = [each for each in types if each not in self._zones]
        if not new:
            return
        found: dict[str, set[str]] = {each: set() for each in new}
        for kind in listing.scoped(
            self._api,
            "compute.machineTypes.aggregatedList",
            "machineTypes",
            regions=frozenset(self._config.regions),
            # The shortest form: a longer address would be sent in another way.
            filter=f'name eq "{"|".join(new)}"',
        ):
            if kind.get("name") in found and not kind.get("deprecated"):
                found[kind["name"]].add(machines.last(kind.get("zone")))
        self._zones |= {name: tuple(sorted(zones)) for name, zones in found.items()}
