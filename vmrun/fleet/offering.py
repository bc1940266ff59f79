"""All that the clouds of an order offer, in the order in which it is worth trying."""

from __future__ import annotations

from collections.abc import Iterable

from vmrun.core.clouds import CloudError, Fault, Market, Need, Offer
from vmrun.core.crew import fits
from vmrun.core.errors import ConfigError

from .deck import Deck
from .search import Tried
from .sending import Sending


def find_offers(deck: Deck, on: str, need: Need) -> tuple[list[Offer], list[Tried]]:
    """Offers for `need` from the clouds that `on` stands for, unranked; and the clouds that could not be asked.

    Raises ConfigError when the only cloud there is cannot be used as it is configured.
    """
    clouds = deck.clouds(on)
    offers: list[Offer] = []
    failures: list[Tried] = []
    for name in clouds:
        try:
            provisioner = deck.provisioner(name)
            offers += Sending(deck.desk).send(lambda ask=provisioner.offers: list(ask(need)))  # type: ignore[misc]
        except CloudError as error:
            failures.append(Tried.of(error, name))
        except ConfigError as error:
            if len(clouds) == 1:
                raise
            failures.append(Tried(name, Fault.config, error.message, hint=error.hint))
    return offers, failures


def ranked(offers: Iterable[Offer], need: Need) -> list[Offer]:
    """What fits of these and is of the market that is asked for: spot before on-demand, cheapest first."""
    fitting = [offer for offer in offers if fits(offer.memory, need.task_memory) and _wanted(offer, need.market)]
    return sorted(fitting, key=_rank)


def _wanted(offer: Offer, market: Market) -> bool:
    return market is Market.spot_with_fallback or offer.spot is (market is Market.spot)


def _rank(offer: Offer) -> tuple[bool, bool, float, int]:
    """Spot is what was asked for where there is any; an offer without a price comes last."""
    return not offer.spot, offer.usd_per_hour is None, offer.usd_per_hour or 0.0, offer.vcpus
