"""Which offers a job may be rented at."""

from __future__ import annotations

import pytest

from vmrun.core.clouds import Market, Need, Offer
from vmrun.fleet.offering import ranked


def offer(name: str, price: float | None, *, spot: bool = False) -> Offer:
    return Offer("cloud", name, "east", "east-1", "x86_64", 4, 2, 8 << 30, price, spot)


OFFERS = [offer("dear", 2.0), offer("spot", 0.5, spot=True), offer("unknown", None), offer("own", 0.0)]


@pytest.mark.parametrize(
    ("market", "names"),
    [
        (Market.on_demand, ["own", "dear", "unknown"]),
        (Market.spot, ["own", "spot"]),
        (Market.spot_with_fallback, ["spot", "own", "dear", "unknown"]),
    ],
)
def test_a_market_takes_its_own_offers_and_what_costs_nothing(market: Market, names: list[str]) -> None:
    assert sorted(each.instance_type for each in ranked(OFFERS, Need(market=market))) == sorted(names)
