"""Prices from IBM's Global Catalog, which tells them by plan and meter. Pure.

A profile's entry names its plan. A plan has a price for an hour of the whole profile (generation 3 on), or prices for
an hour of one vCPU, of one GB of memory and of one GB of local disk (generation 2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from vmrun.core.estates import PriceRow

_CPU, _MEMORY, _DISK = "VCPU_HOURS", "MEMORY_HOURS", "IS_STORAGE_GIGABYTE_HOURS"
_WHOLE, _WHOLE_ID = "INSTANCE_HOURS_MULTI_TENANT", "part-is.instance-hours"
#: The same by the identifiers of the meters.
_METERS = {"part-is.cpu-hours": _CPU, "part-is.ram-hours": _MEMORY, "part-is.instance-storage-hours": _DISK}
#: Families whose local disk is free of charge.
_FREE_DISK = ("ux2d", "vx2d")
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}


def plan_of(entry: Mapping[str, Any]) -> str:
    """The plan by which a profile's catalogue entry says that it is rented on shared hosts; "" if it says none."""
    profile = ((entry.get("metadata") or {}).get("other") or {}).get("profile") or {}
    for measure in profile.get("measures") or []:
        if measure.get("component") == "instance":
            for deployment in measure.get("deployments") or []:
                if deployment.get("type") == "multi-tenant":
                    return str(deployment.get("plan", ""))
    return ""


def usd_per_hour(deployments: Iterable[Mapping[str, Any]], region: str, size: PriceRow) -> float | None:
    """The price of a profile of this size in a region, by its plan's deployments; None when it is not told."""
    for deployment in deployments:
        if region in (deployment.get("deployment_location"), deployment.get("deployment_region")):
            return _of_meters(_meters(deployment.get("metrics") or []), size)
    return None


def size_of(raw: Mapping[str, Any], region: str) -> PriceRow | None:
    """A profile of the VPC API as a row without a price; None for what no job is run on: GPU, other architectures."""
    arch = _ARCHITECTURES.get(str((raw.get("vcpu_architecture") or {}).get("value", "")))
    vcpus, memory = _value(raw.get("vcpu_count")), _value(raw.get("memory"))
    if arch is None or not vcpus or not memory or raw.get("gpu_count"):
        return None
    disks = [(_value(disk.get("quantity")), _value(disk.get("size"))) for disk in raw.get("disks") or []]
    threads = _value(raw.get("threads_per_core")) or 2
    return PriceRow(
        instance_type=str(raw["name"]),
        vcpus=vcpus,
        cores=max(1, vcpus // threads),
        memory_gib=float(memory),
        arch=arch,
        local_ssd_gb=sum(count * size for count, size in disks),
        region=region,
        usd_per_hour=None,
        spot_usd_per_hour=None,
        priced_at="",
    )


def _value(field: object) -> int:
    """A number of the API: one that is fixed, or the default of a choice; 0 if there is none."""
    if not isinstance(field, Mapping):
        return 0
    number = field.get("value", field.get("default"))
    return number if isinstance(number, int) else 0


def _meters(metrics: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """US dollars for one unit of each meter."""
    found = {}
    for metric in metrics:
        identifier = str(metric.get("metric_id", ""))
        name = _METERS.get(identifier, str(metric.get("charge_unit_name", "")))
        if identifier.startswith(_WHOLE_ID) and "-dh-" not in identifier:
            name = _WHOLE
        price = _dollars(metric.get("amounts") or [])
        if price:
            found[name] = price / (metric.get("charge_unit_quantity") or 1)
    return found


def _dollars(amounts: Iterable[Mapping[str, Any]]) -> float | None:
    for amount in amounts:
        if (amount.get("country"), amount.get("currency")) == ("USA", "USD"):
            tiers = sorted(amount.get("prices") or [], key=lambda tier: int(tier.get("quantity_tier") or 0))
            return float(tiers[0]["price"]) if tiers else None
    return None


def _of_meters(meters: Mapping[str, float], size: PriceRow) -> float | None:
    if _WHOLE in meters:
        return round(meters[_WHOLE], 6)
    if _CPU not in meters or _MEMORY not in meters:
        return None
    price = meters[_CPU] * size.vcpus + meters[_MEMORY] * size.memory_gib
    if size.local_ssd_gb and not size.instance_type.startswith(_FREE_DISK):
        if _DISK not in meters:
            return None
        price += meters[_DISK] * size.local_ssd_gb
    return round(price, 6)


def priced(size: PriceRow, usd: float | None, day: str) -> PriceRow:
    """The row with its price, as read on this day."""
    return dataclasses.replace(size, usd_per_hour=usd, priced_at=day if usd is not None else "")
