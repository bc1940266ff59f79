"""What would fit if a little less were asked for: the hint of a search that found nothing. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vmrun.core.clouds import Market, Need, Offer
from vmrun.core.units import format_size

from .choosing import offers, regions
from .machines import usable
from .ranking import rank
from .refreshed import table


@dataclass(frozen=True, slots=True)
class Where:
    """What a search looks through."""

    clouds: Sequence[str]
    #: Regions to look in; none: all.
    regions: Sequence[str] = ()
    exclude: Sequence[str] = ()
    cache_dir: Path | None = None

    def search(self, need: Need) -> list[Offer]:
        """What fits in any of the clouds, ranked."""
        found: list[Offer] = []
        for on in self.clouds:
            there = self.regions or regions(on, cache_dir=self.cache_dir)
            found += offers(on, need, there, exclude=self.exclude, cache_dir=self.cache_dir)
        return rank(found)


def nearest(where: Where, need: Need) -> str:
    """A sentence that names what comes closest to `need`, which nothing meets; the first way out that there is."""
    if need.instance_type and (unknown := _unknown_type(where, need.instance_type)):
        return unknown
    for change, words in _relaxed(need):
        if found := where.search(change):
            return f"{words}, {describe(found[0])} would fit"
    if (need.region or where.regions) and (found := replace(where, regions=()).search(replace(need, region=""))):
        return f"in another region, {describe(found[0])} would fit"
    closest = _closest(where.search(replace(need, cpus=0, memory=0, task_memory=0)), need)
    return f"the nearest is {describe(closest)}" if closest else "ask for less, or look in other regions and clouds"


def describe(offer: Offer) -> str:
    """`r6a.32xlarge on ec2 in us-east-1 (128 vCPUs, 1.02 TB usable)`."""
    memory = format_size(usable(offer.on, offer.memory))
    return f"{offer.instance_type} on {offer.on} in {offer.region} ({offer.vcpus} vCPUs, {memory} usable)"


def _relaxed(need: Need) -> Iterator[tuple[Need, str]]:
    if need.market is Market.spot:
        yield replace(need, market=Market.on_demand), "at the on-demand price"
    if need.arch:
        yield replace(need, arch=""), "with another architecture"


def _unknown_type(where: Where, name: str) -> str:
    known = {row.instance_type for on in where.clouds for row in table(on, where.cache_dir).rows}
    if name in known:
        return ""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"no catalogue has a type {name}" + (f"; did you mean {close[0]}?" if close else "")


def _closest(found: Iterable[Offer], need: Need) -> Offer | None:
    """The offer that has the largest part of each thing that is asked for; the first in rank of several such."""
    memory = max(need.memory, need.task_memory)

    def part(offer: Offer) -> float:
        return min(
            offer.vcpus / need.cpus if need.cpus else 1.0,
            usable(offer.on, offer.memory) / memory if memory else 1.0,
        )

    return max(found, key=part, default=None)
