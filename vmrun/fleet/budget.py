"""How a limit in dollars bounds what may be rented, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from vmrun.catalog.extras import Extras
from vmrun.core.clouds import Offer
from vmrun.core.errors import BudgetError
from vmrun.core.folds import VmFold
from vmrun.core.money import reserved

from .order import Order

#: Seconds of a machine that a limit must pay for: less is no use to anybody.
LEAST = 5.0


def price(offer: Offer, extras: Extras) -> float | None:
    """Dollars an hour for a machine and, as far as their prices are known, its disk and address; None: not known."""
    if offer.usd_per_hour is None:
        return None
    return offer.usd_per_hour + (extras.disk or 0.0) + (extras.address or 0.0)


def lifetime(order: Order, usd_per_hour: float | None) -> float:
    """Seconds that a machine may live: its maximum lifetime, or less if what the job may cost is spent before."""
    if not order.max_cost or not usd_per_hour:
        return order.max_lifetime
    return min(order.max_lifetime, order.max_cost * 3600 / usd_per_hour)


def told(usd_per_hour: float | None, seconds: float) -> str:
    """What a machine costs, for people, right before it is rented; "" for a free one."""
    if usd_per_hour is None:
        return ", at a price that is not known"
    if not usd_per_hour:
        return ""
    return f" for ${usd_per_hour:.4f} an hour, ${usd_per_hour * seconds / 3600:.2f} at most"


def affordable(
    offers: Iterable[Offer],
    max_cost: float,
    priced: Callable[[Offer], float | None],
    *,
    allow_unknown: bool,
    budgeted: bool = False,
) -> list[Offer]:
    """The offers that a limit in dollars allows, in the order given; all for 0, which is none.

    `budgeted`: the deployment has a limit for all its jobs, which needs to know what they cost.
    Raises BudgetError if that leaves none of them.
    """
    offers = list(offers)
    if not (max_cost or budgeted) or not offers:
        return offers
    prices = [(offer, priced(offer)) for offer in offers]
    known = [each for each in prices if each[1] is not None or allow_unknown]
    if not known:
        raise BudgetError(
            f"the price of {offers[0].instance_type} on {offers[0].on} is not known, so no limit in dollars can hold",
            hint="--allow-unknown-price, or defaults.allow_unknown_price in vmrun.toml, rents it all the same, bounded "
            "by --max-lifetime alone",
        )
    found = [offer for offer, usd in known if not usd or not max_cost or max_cost * 3600 / usd >= LEAST]
    if not found:
        least = min(usd for _, usd in known if usd)
        raise BudgetError(
            f"${max_cost:g} pays for less than {LEAST:.0f} seconds of a machine at ${least:.4f} an hour",
            hint="raise --max-cost, or ask for a smaller machine",
        )
    return found


def share(order: Order, machines: int, folds: Iterable[VmFold], now: float) -> Order:
    """The order for one of so many machines, which together keep to what the job's other machines left of its money.

    `now` in seconds since the epoch. Raises BudgetError if that is nothing.
    """
    if not order.max_cost:
        return order
    left = order.max_cost - sum(reserved(fold, order.job, now) for fold in folds)
    if left <= 0:
        raise BudgetError(
            "the job's machines have, or have spent, all that it may cost", hint="a higher --max-cost pays for more"
        )
    return replace(order, max_cost=left / machines)


def in_place_of(
    losses: Sequence[str], order: Order, folds: Mapping[str, VmFold], now: float
) -> tuple[Order, list[str]]:
    """The order for each machine that replaces one of the `losses`, and which of them left money for that.

    It may cost no more than the lost one left: others may be replacing others, and what they may cost is in no
    journal before their machines are. Raises BudgetError if nothing is left.
    """
    one = share(order, len(losses), folds.values(), now)
    if not order.max_cost:
        return one, list(losses)
    left = {vm: folds[vm].max_cost - reserved(folds[vm], order.job, now) for vm in losses if vm in folds}
    paid = [vm for vm in left if left[vm] > 0]
    if not paid:
        raise BudgetError("the lost machines had spent all that they might cost")
    return replace(one, max_cost=min(one.max_cost, *(left[vm] for vm in paid))), paid
