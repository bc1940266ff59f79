"""All that the clouds of an order offer, in the order in which it is worth trying."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vmrun.catalog.ranking import rank
from vmrun.core.clock import Clock, Rng
from vmrun.core.clouds import CloudError, Fault, Market, Need, Offer, Provisioner
from vmrun.core.crew import fits
from vmrun.core.errors import ConfigError

from .search import Tried
from .sending import Sending


@dataclass(frozen=True, slots=True)
class Sellers:
    """The clouds that can be asked for offers. Needs no store."""

    clock: Clock
    rng: Rng
    provisioner: Callable[[str], Provisioner]
    #: The drivers that `--on` stands for.
    clouds: Callable[[str], tuple[str, ...]]
    #: Hears whom is asked.
    tell: Callable[[str], None] = lambda _: None


def find_offers(sellers: Sellers, on: str, need: Need) -> tuple[list[Offer], list[Tried]]:
    """Offers for `need` from the clouds that `on` stands for, unranked; and the clouds that could not be asked.

    Raises ConfigError when the only cloud there is cannot be used as it is configured.
    """
    clouds = sellers.clouds(on)
    offers: list[Offer] = []
    failures: list[Tried] = []
    for name in clouds:
        try:
            offers += _ask(sellers, name, need)
        except CloudError as error:
            failures.append(Tried.of(error, name))
        except ConfigError as error:
            if len(clouds) == 1:
                raise
            failures.append(Tried(name, Fault.config, error.message, hint=error.hint))
    return offers, failures


def _ask(sellers: Sellers, name: str, need: Need) -> list[Offer]:
    sellers.tell(f"asking {name} what it offers")
    provisioner = sellers.provisioner(name)
    return Sending(sellers.clock, sellers.rng).send(lambda: list(provisioner.offers(need)))


def ranked(offers: Iterable[Offer], need: Need) -> list[Offer]:
    """What fits of these and is of the market that is asked for: spot before on-demand, cheapest first."""
    fitting = [offer for offer in offers if fits(offer.memory, need.task_memory) and _wanted(offer, need.market)]
    return rank(fitting)


def _wanted(offer: Offer, market: Market) -> bool:
    """Whether an offer is of the market asked for; a machine that costs nothing is as good as spot."""
    free = offer.usd_per_hour == 0
    return market is Market.spot_with_fallback or free or offer.spot is (market is Market.spot)
