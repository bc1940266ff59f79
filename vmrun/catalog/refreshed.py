"""Catalogues read from the clouds' own APIs, kept in the cache directory: they stand in for the packaged ones."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

from vmrun.core.clock import Clock
from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.core.estates import Estate, PriceRow

from .packaged import CLOUDS, packaged
from .table import BadCatalog, Table, dump, parse, table_of

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
    fresh = None if cache_dir is None or on not in CLOUDS else refreshed(on, cache_dir)
    return packaged(on) if fresh is None else _overlaid(fresh, packaged(on))


def _overlaid(fresh: Table, old: Table) -> Table:
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


def keep(table: Table, cache_dir: Path) -> Path:
    """Write a refreshed table, whole or not at all; its path. Raises OSError."""
    path = path_of(table.on, cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".keeping.")
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(dump(table))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _read.cache_clear()
    return path


def refresh(estate: Estate, clock: Clock, cache_dir: Path) -> Table:
    """Read a cloud's types and prices from its own API and keep them. Raises CloudError, OSError."""
    today = time.strftime("%Y-%m-%d", time.gmtime(clock.now()))
    told = table_of(estate.name, today, estate.prices())
    if not told.rows:
        raise CloudError(
            f"{estate.name} told of no types in its configured regions",
            fault=Fault.config,
            scope=Scope.cloud,
            hint=f"check {estate.name}.regions; the catalogue stays as it was",
        )
    keep(told, cache_dir)
    return told
