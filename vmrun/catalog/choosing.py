"""Which types of a table fit a need, as offers in the order to try them. Pure, apart from finding the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from vmrun.core.clouds import Market, Need, Offer
from vmrun.core.crew import fits as holds_task
from vmrun.core.estates import PriceRow

from .machines import bucket, has_spot, is_throttled, usable
from .ranking import rank
from .refreshed import table
from .table import GIB

#: Bytes of usable memory below which a machine has no room for system, agent and job: such types must be named.
LEAST_MEMORY = 3 * 2**29


def offers(
    on: str, need: Need, regions: Iterable[str], *, exclude: Iterable[str] = (), cache_dir: Path | None = None
) -> list[Offer]:
    """What of a cloud's catalogue fits `need` in `regions`, in the order of `rank`; `zone` of each is "".

    Prices are those of the newest catalogue: the packaged one or, when `cache_dir` is given, a refreshed one that it
    holds. `exclude` are patterns of types, such as `t4g.*`. Types that are throttled (`-flex`), or have hardly any
    memory, are there only when `need` names them. A need that nothing meets gives an empty list.
    """
    wanted, barred = frozenset(regions), tuple(exclude)
    found: list[Offer] = []
    for row in table(on, cache_dir).rows:
        if (
            row.region in wanted
            and row_fits(on, row, need)
            and not any(fnmatchcase(row.instance_type, p) for p in barred)
        ):
            found += _offers_of(on, row, need.market)
    return rank(found)


def regions(on: str, *, cache_dir: Path | None = None) -> tuple[str, ...]:
    """The regions that a cloud's catalogue has; none for a name that is no cloud."""
    return table(on, cache_dir).regions


def row_fits(on: str, row: PriceRow, need: Need) -> bool:
    """Whether a type meets a need: by usable, not by sold memory. Disk is no matter: it is attached to any type."""
    memory = usable(on, sold(row))
    return (
        need.cpus <= row.vcpus
        and need.memory <= memory
        and holds_task(memory, need.task_memory)
        and need.arch in ("", row.arch)
        and need.region in ("", row.region)
        # In all three clouds a zone's name begins with that of its region.
        and need.zone.startswith(row.region if need.zone else "")
        and (
            need.instance_type == row.instance_type
            or (not need.instance_type and memory >= LEAST_MEMORY and not is_throttled(on, row.instance_type))
        )
    )


def sold(row: PriceRow) -> int:
    """Bytes of memory that the cloud says a type has."""
    return int(row.memory_gib * GIB)


def _offers_of(on: str, row: PriceRow, market: Market) -> Iterator[Offer]:
    if market is not Market.on_demand and has_spot(on, row.instance_type):
        date = row.priced_at if row.spot_priced_at is None else row.spot_priced_at
        yield _offer(on, row, (row.spot_usd_per_hour, date), spot=True)
    if market is not Market.spot:
        yield _offer(on, row, (row.usd_per_hour, row.priced_at), spot=False)


def _offer(on: str, row: PriceRow, price: tuple[float | None, str], *, spot: bool) -> Offer:
    usd_per_hour, date = price
    return Offer(
        on=on,
        instance_type=row.instance_type,
        region=row.region,
        zone="",
        arch=row.arch,
        vcpus=row.vcpus,
        cores=row.cores,
        memory=sold(row),
        usd_per_hour=usd_per_hour,
        spot=spot,
        priced_at=date if usd_per_hour is not None else "",
        bucket=bucket(on, row.instance_type, spot=spot),
    )
