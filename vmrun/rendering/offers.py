"""Offers as a table for people and as JSON: what a machine has, what it costs, and how old its price is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from vmrun.catalog.machines import usable
from vmrun.core.clouds import Offer
from vmrun.core.units import format_size

from .tables import Column, table
from .text import Style, money, visible

_GIB = 2**30
_DAY = 86400.0
_COLUMNS = (
    Column("ON"),
    Column("TYPE", flexible=True),
    Column("REGION", flexible=True),
    Column("ARCH"),
    Column("VCPUS", right=True),
    Column("CORES", right=True),
    Column("MEMORY", right=True),
    Column("USABLE", right=True),
    Column("$/HOUR", right=True),
    Column("$/CORE", right=True),
    Column("MARKET"),
    Column("PRICE OF"),
)


def offer_document(offer: Offer, now: float) -> dict[str, Any]:
    """One offer. `now` is in seconds since the epoch."""
    return {
        "on": offer.on,
        "instance_type": offer.instance_type,
        "region": offer.region,
        "arch": offer.arch,
        "vcpus": offer.vcpus,
        "cores": offer.cores,
        "memory_gib": round(offer.memory / _GIB, 2),
        "usable_memory_gib": round(usable(offer.on, offer.memory) / _GIB, 2),
        "usd_per_hour": offer.usd_per_hour,
        "usd_per_core_hour": None if offer.usd_per_hour is None else round(offer.usd_per_hour / offer.cores, 6),
        "spot": offer.spot,
        "priced_at": offer.priced_at,
        "price_age_days": age_days(offer.priced_at, now),
        "quota": offer.bucket,
    }


def offers_table(offers: Sequence[Offer], now: float, style: Style) -> list[str]:
    """Offers, one a row, in the order given."""
    mixed = any(offer.spot for offer in offers)
    rows = [
        (
            offer.on,
            visible(offer.instance_type),
            visible(offer.region),
            offer.arch,
            str(offer.vcpus),
            str(offer.cores),
            format_size(offer.memory),
            format_size(usable(offer.on, offer.memory)),
            money(offer.usd_per_hour, digits=4),
            money(None if offer.usd_per_hour is None else offer.usd_per_hour / offer.cores, digits=4),
            ("spot" if offer.spot else "on-demand") if mixed else "",
            age_text(offer.priced_at, now) or "unknown",
        )
        for offer in offers
    ]
    return table(_COLUMNS, rows, style) if rows else []


def age_days(date: str, now: float) -> int | None:
    """Days since a date, which may lack the day (then: since the first of that month); None for no date."""
    if not date:
        return None
    try:
        then = dt.date.fromisoformat(date if len(date) > len("2026-02") else f"{date}-01")
    except ValueError:
        return None
    return max(0, (dt.date(1970, 1, 1) + dt.timedelta(days=int(now // _DAY)) - then).days)


def age_text(date: str, now: float) -> str:
    """`today`, `12 days ago`, `4 months ago`, `2 years ago`; "" for no date."""
    days = age_days(date, now)
    if days is None:
        return ""
    if days < 1:
        return "today"
    for unit, length, most in (("day", 1, 60), ("month", 30.44, 730)):
        if days < most:
            number = round(days / length)
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    return f"{round(days / 365.25)} years ago"
