"""What is paid for beside a machine: its boot disk and its public address, at list prices that come with vmrun.

One rate for each cloud, whatever the region; sources and dates stand in docs/how-to/costs.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from .packaged import CLOUDS, DATA

#: Hours of the month by which clouds turn monthly prices into hourly ones.
HOURS_A_MONTH = 730.0
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Extras:
    """Dollars an hour; None where the price is not known, 0 for what is free or not there."""

    disk: float | None = 0.0
    address: float | None = 0.0


#: On machines that nobody rents.
NO_EXTRAS = Extras()


def extras(on: str, *, disk: int, address: bool) -> Extras:
    """What a boot disk of `disk` bytes and, with `address`, a public address cost on a cloud.

    A name that is no cloud's has no extras.
    """
    if on not in CLOUDS:
        return NO_EXTRAS
    rates = _rates()[on]
    size, base = rates["disk_usd_per_gib_month"], rates["disk_usd_per_hour"]
    per_hour = None if size is None or base is None else base + size * (disk / _GIB) / HOURS_A_MONTH
    return Extras(disk=per_hour, address=rates["address_usd_per_hour"] if address else 0.0)


@cache
def _rates() -> dict[str, dict[str, Any]]:
    return dict(json.loads((DATA / "extras.json").read_text("ascii")))
