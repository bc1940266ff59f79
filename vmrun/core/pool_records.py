"""The entries of a pool's journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .clouds import Need
from .record import Record


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What somebody wants to be there."""

    on: str
    need: Need
    #: VMs.
    size: int
    #: Seconds since the epoch after which it is not wanted; 0: as long as the schedule says.
    until: float = 0.0
    #: As `core.schedules` reads it; "" for all the time.
    schedule: str = ""
    #: Seconds that each of its VMs may live at most.
    max_lifetime: float = 86400.0


@dataclass(frozen=True, slots=True)
class PoolState(Record):
    """All that is known of a pool from here on: the last entry says it all."""

    TYPE: ClassVar[str] = "POOL"
    pool: str
    deployment: str
    #: None when it was taken down.
    wanted: PoolSpec | None = None
    #: Ids of its VMs, also of those that are to be made.
    members: tuple[str, ...] = ()
