"""The order in which offers are tried and shown, over one cloud or several. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from vmrun.core.clouds import Offer

from .machines import is_throttled

Rank = tuple[bool, bool, float, bool, int, int, str, str, str, str]


def rank(offers: Iterable[Offer]) -> list[Offer]:
    """`offers` in the order to try them: the same for the same offers, whatever order they came in.

    Spot before on-demand (both are there only when a job asked for spot with fallback); in each, cheapest first and
    unknown prices last; at the same price, types with their full processor all the time first, then the smaller.
    """
    return sorted(offers, key=_place)


def _place(offer: Offer) -> Rank:
    return (
        not offer.spot,
        offer.usd_per_hour is None,
        offer.usd_per_hour or 0.0,
        is_throttled(offer.on, offer.instance_type),
        offer.vcpus,
        offer.memory,
        offer.on,
        offer.instance_type,
        offer.region,
        offer.zone,
    )
