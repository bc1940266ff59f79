"""Catalogues read from the clouds' own APIs, kept in the cache directory: they stand in for the packaged ones."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

from vmrun.core.estates import PriceRow

from .packaged import CLOUDS, packaged
from .table import BadCatalog, Table, parse, table_of

log = logging.getLogger(__name__)
#: What is logged is for programs that ask for it; a person is told of a `problem`.
log.addHandler(logging.NullHandler())

#: More than this is no catalogue, bytes.
_LARGEST = 64 * 2**20


def table(on: str, cache_dir: Path | None) -> Table:
    """The table that holds for a cloud: the packaged one, overlaid with the refreshed one if `cache_dir` has it.

    A region that was refreshed is as its cloud told, but for prices that it did not tell; others are as packaged. A
    file that cannot be used is left aside, see `problem`.
    """
    return packaged(on) if cache_dir is None or on not in CLOUDS else _overlaid(on, cache_dir)


@cache
def _overlaid(on: str, cache_dir: Path) -> Table:
    fresh, old = refreshed(on, cache_dir), packaged(on)
    if fresh is None:
        return old
    prices = {(row.instance_type, row.region): row for row in old.rows if row.usd_per_hour is not None}
    rows = [_priced(row, prices.get((row.instance_type, row.region))) for row in fresh.rows]
    rows += [row for row in old.rows if row.region not in fresh.regions]
    return table_of(fresh.on, fresh.collected, rows)


def _priced(row: PriceRow, old: PriceRow | None) -> PriceRow:
    if row.usd_per_hour is not None or old is None:
        return row
    return replace(row, usd_per_hour=old.usd_per_hour, priced_at=old.priced_at)


def path_of(on: str, cache_dir: Path) -> Path:
    """Where the refreshed catalogue of a cloud is kept."""
    return cache_dir / "catalog" / f"{on}.json"


def refreshed(on: str, cache_dir: Path) -> Table | None:
    """The refreshed table alone; None if there is none that can be used."""
    return _read(on, cache_dir)[0]


def problem(on: str, cache_dir: Path) -> str:
    """Why the refreshed table that is there cannot be used; "" if it can, or there is none."""
    return _read(on, cache_dir)[1]


@cache
def _read(on: str, cache_dir: Path) -> tuple[Table | None, str]:
    path = path_of(on, cache_dir)
    try:
        if path.stat().st_size > _LARGEST:
            raise BadCatalog("too large")
        found = parse(path.read_text("ascii"))
        if found.on != on:
            raise BadCatalog(f"it is of {found.on[:20]!r}")
        return found, ""
    except FileNotFoundError:
        return None, ""
    except (OSError, BadCatalog, UnicodeDecodeError) as error:
        log.warning("event=catalogue-refused path=%s error=%s", path, error)
        return None, f"the refreshed catalogue {path} cannot be used ({error}); the one that comes with vmrun is"


def forget() -> None:
    """Read the files anew when they are asked for next."""
    _read.cache_clear()
    _overlaid.cache_clear()
