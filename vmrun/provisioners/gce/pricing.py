"""From Google's price list to the price of a machine type: so much for each vCPU and each GiB of memory. Pure.

Only families that are sold that way, by SKUs whose names tell all of it, have a price here. What has built-in local
disks, shared cores or a surcharge of its own has none, rather than a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: `N2 Instance Core running in Iowa`, `Spot Preemptible C4A Arm Instance Ram running in Iowa`.
_SKU = re.compile(
    r"(?P<spot>Spot Preemptible )?(?P<family>[A-Z]\d+[A-Z]?|Compute optimized)(?: AMD| Arm| Intel)?"
    r"(?: Memory-optimized)? Instance (?P<part>Core|Ram) running in .+"
)
_NAMES = {"Compute optimized": "c2"}
#: The unit in which each part is sold.
_UNITS = {"Core": "h", "Ram": "GiBy.h"}

#: By family, part, region, and whether it is spot: dollars an hour.
Rates = dict[tuple[str, str, str, bool], float]


def rates(skus: Iterable[Mapping[str, Any]]) -> Rates:
    """What the parts of machines cost, by the SKUs of Compute Engine."""
    found: Rates = {}
    for sku in skus:
        named = _SKU.fullmatch(str(sku.get("description", "")))
        price = _dollars(sku) if named else None
        if named is None or price is None:
            continue
        family = _NAMES.get(named["family"], named["family"].lower())
        for region in sku.get("serviceRegions") or ():
            found[family, named["part"], str(region), bool(named["spot"])] = price
    return found


def _dollars(sku: Mapping[str, Any]) -> float | None:
    """Dollars an hour of the unit that is expected; None for anything else."""
    part = "Ram" if " Ram " in str(sku.get("description")) else "Core"
    for info in sku.get("pricingInfo") or ():
        expression = info.get("pricingExpression") or {}
        tiers = expression.get("tieredRates") or ()
        if expression.get("usageUnit") != _UNITS[part] or not tiers:
            return None
        price = tiers[-1].get("unitPrice") or {}
        if price.get("currencyCode") != "USD":
            return None
        return int(price.get("units") or 0) + int(price.get("nanos") or 0) / 1e9
    return None


def price(found: Rates, kind: Mapping[str, Any], region: str, *, spot: bool) -> float | None:
    """Dollars an hour for a machine type resource, or None where the list does not tell."""
    name = str(kind.get("name", ""))
    if kind.get("isSharedCpu") or kind.get("bundledLocalSsds") or kind.get("accelerators") or name.endswith("-lssd"):
        return None
    family = name.partition("-")[0]
    core, memory = (found.get((family, part, region, spot)) for part in _UNITS)
    if core is None or memory is None:
        return None
    return round(core * int(kind["guestCpus"]) + memory * int(kind["memoryMb"]) / 1024, 6)
