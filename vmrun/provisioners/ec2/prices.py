"""Types and prices from EC2's own APIs: rows of the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from vmrun.core.estates import PriceRow

from .api import Aws

#: Where the price list is served; it holds all regions.
_PRICING_REGION = "us-east-1"
#: Parts that a machine has for other work than vmrun's.
_OTHER_WORK = ("GpuInfo", "FpgaInfo", "InferenceAcceleratorInfo", "NeuronInfo", "MediaAcceleratorInfo")


def rows(aws: Aws, region: str, now: float) -> Iterator[PriceRow]:
    """The types that a region has, with their prices on demand and as spot machines. Raises CloudError."""
    current = [{"Name": "current-generation", "Values": ["true"]}, {"Name": "bare-metal", "Values": ["false"]}]
    types = aws.pages(region, "ec2:DescribeInstanceTypes", "InstanceTypes", Filters=current)
    on_demand = on_demand_prices(_price_list(aws, region))
    history = aws.pages(
        region,
        "ec2:DescribeSpotPriceHistory",
        "SpotPriceHistory",
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.fromtimestamp(now, UTC),
    )
    spot = spot_prices(history)
    date = datetime.fromtimestamp(now, UTC).date().isoformat()
    for raw in sorted(types, key=lambda one: str(one["InstanceType"])):
        row = price_row(raw, region, on_demand, spot, date)
        if row is not None:
            yield row


def _price_list(aws: Aws, region: str) -> Iterable[Any]:
    wanted = {
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "licenseModel": "No License required",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    return aws.pages(
        _PRICING_REGION, "pricing:GetProducts", "PriceList", ServiceCode="AmazonEC2", Filters=filters, MaxResults=100
    )


def on_demand_prices(products: Iterable[Any]) -> dict[str, float]:
    """Dollars an hour by type; each product is a document in JSON."""
    found: dict[str, float] = {}
    for text in products:
        product = json.loads(text) if isinstance(text, str) else text
        name = product["product"]["attributes"].get("instanceType", "")
        for term in product.get("terms", {}).get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                price = float(dimension["pricePerUnit"].get("USD", "0"))
                if name and price > 0 and dimension.get("unit") == "Hrs":
                    found[name] = price
    return found


def spot_prices(history: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The lowest price of a region's zones by type, of each zone's newest."""
    newest: dict[tuple[str, str], tuple[datetime, float]] = {}
    for one in history:
        place = (str(one["InstanceType"]), str(one["AvailabilityZone"]))
        if place not in newest or one["Timestamp"] > newest[place][0]:
            newest[place] = (one["Timestamp"], float(one["SpotPrice"]))
    found: dict[str, float] = {}
    for (name, _), (_, price) in newest.items():
        found[name] = min(price, found.get(name, price))
    return found


def price_row(
    raw: Mapping[str, Any], region: str, on_demand: Mapping[str, float], spot: Mapping[str, float], date: str
) -> PriceRow | None:
    """A row; None for what runs no Linux of vmrun's, or is paid for parts that vmrun has no use for."""
    arch = next((one for one in raw["ProcessorInfo"]["SupportedArchitectures"] if one in ("x86_64", "arm64")), "")
    if not arch or any(raw.get(part) for part in _OTHER_WORK):
        return None
    name, cpus = str(raw["InstanceType"]), raw["VCpuInfo"]
    price, spot_price = on_demand.get(name), spot.get(name)
    return PriceRow(
        instance_type=name,
        vcpus=int(cpus["DefaultVCpus"]),
        cores=int(cpus.get("DefaultCores") or cpus["DefaultVCpus"]),
        memory_gib=int(raw["MemoryInfo"]["SizeInMiB"]) / 1024,
        arch=arch,
        local_ssd_gb=int(raw.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0)),
        region=region,
        usd_per_hour=price,
        spot_usd_per_hour=spot_price,
        priced_at=date if price is not None or spot_price is not None else "",
    )
