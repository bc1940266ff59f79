"""From the catalogue's offers, which know regions, to offers in zones that have the type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from vmrun import catalog
from vmrun.core.clouds import Need, Offer

from . import listing, machines
from .api import GoogleApi
from .config import ON, GceConfig

#: So many types are asked for in one request, whose filter is part of its address.
_TYPES_PER_REQUEST = 40
#: No submission tries more types than this; they are the cheapest.
_TYPES_MAX = 200


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
        for start in range(0, len(new), _TYPES_PER_REQUEST):
            some = new[start : start + _TYPES_PER_REQUEST]
            found: dict[str, set[str]] = {each: set() for each in some}
            for zone, name in self._located(some):
                if name in found:
                    found[name].add(zone)
            self._zones |= {name: tuple(sorted(zones)) for name, zones in found.items()}

    def _located(self, types: list[str]) -> Iterator[tuple[str, str]]:
        wanted = " OR ".join(f'(name = "{each}")' for each in types)
        regions = frozenset(self._config.regions)
        found = listing.scoped(
            self._api, "compute.machineTypes.aggregatedList", "machineTypes", regions=regions, filter=wanted
        )
        for each in found:
            if not each.get("deprecated"):
                yield machines.last(each.get("zone")), str(each.get("name", ""))
