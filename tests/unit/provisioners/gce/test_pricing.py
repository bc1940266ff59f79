"""Prices of machine types from SKUs as Google writes them."""

from __future__ import annotations

from typing import Any

import pytest

from vmrun.provisioners.gce.pricing import price, rates

KIND = {"name": "n2-standard-4", "guestCpus": 4, "memoryMb": 16384}


def sku(description: str, nanos: int, *, unit: str = "", currency: str = "USD", region: str = "us-central1") -> Any:
    unit = unit or ("GiBy.h" if " Ram " in description else "h")
    rate = {"startUsageAmount": 0, "unitPrice": {"currencyCode": currency, "units": "0", "nanos": nanos}}
    expression = {"usageUnit": unit, "tieredRates": [rate]}
    return {"description": description, "serviceRegions": [region], "pricingInfo": [{"pricingExpression": expression}]}


@pytest.mark.parametrize(
    ("description", "family", "spot"),
    [
        ("N2 Instance Core running in Iowa", "n2", False),
        ("N2D AMD Instance Core running in Iowa", "n2d", False),
        ("C4A Arm Instance Core running in Iowa", "c4a", False),
        ("M3 Memory-optimized Instance Core running in Iowa", "m3", False),
        ("Compute optimized Instance Core running in Iowa", "c2", False),
        ("Spot Preemptible C4D AMD Instance Core running in Iowa", "c4d", True),
    ],
)
def test_the_name_of_a_sku_tells_family_and_market(description: str, family: str, spot: bool) -> None:
    assert rates([sku(description, 31_611_000)]) == {(family, "Core", "us-central1", spot): 0.031611}


@pytest.mark.parametrize(
    "other",
    [
        sku("N2 Custom Instance Core running in Iowa", 1),
        sku("N2 Sole Tenancy Instance Core running in Iowa", 1),
        sku("Commitment v1: N2 Cpu in Iowa for 1 Year", 1),
        sku("Memory-optimized Instance Core running in Iowa", 1),
        sku("N2 Instance Core running in Iowa", 1, unit="mo"),
        sku("N2 Instance Core running in Iowa", 1, currency="EUR"),
        {"description": "N2 Instance Core running in Iowa"},
        {},
    ],
)
def test_what_is_not_the_plain_price_of_a_part_is_passed_over(other: Any) -> None:
    assert rates([other]) == {}


def test_a_price_needs_both_parts_in_that_region_and_market() -> None:
    parts = [sku("N2 Instance Core running in Iowa", 31_611_000), sku("N2 Instance Ram running in Iowa", 4_237_000)]

    assert price(rates(parts), KIND, "us-central1", spot=False) == pytest.approx(4 * 0.031611 + 16 * 0.004237)
    assert price(rates(parts), KIND, "us-east1", spot=False) is None
    assert price(rates(parts), KIND, "us-central1", spot=True) is None
    assert price(rates(parts[:1]), KIND, "us-central1", spot=False) is None
    assert price(rates(parts), KIND | {"name": "n2d-standard-4"}, "us-central1", spot=False) is None


@pytest.mark.parametrize(
    "more",
    [
        {"isSharedCpu": True},
        {"bundledLocalSsds": {"partitionCount": 2}},
        {"accelerators": [{}]},
        {"name": "n2-x-4-lssd"},
    ],
)
def test_what_costs_more_than_its_parts_has_no_price(more: dict[str, Any]) -> None:
    parts = [sku("N2 Instance Core running in Iowa", 31_611_000), sku("N2 Instance Ram running in Iowa", 4_237_000)]
    assert price(rates(parts), KIND | more, "us-central1", spot=False) is None
