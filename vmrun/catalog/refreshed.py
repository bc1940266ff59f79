"""Catalogues read from the clouds' own APIs, kept in the cache directory: they stand in for the packaged ones."""

from __future__ import annotations

import logging
import os
import tempfile
from functools import cache
from pathlib import Path

from .packaged import CLOUDS, packaged
from .table import BadCatalog, Table, dump, parse

log = logging.getLogger(__name__)

#: More than this is no catalogue, bytes.
_LARGEST = 64 * 2**20


def table(on: str, cache_dir: Path | None) -> Table:
    """The table that holds for a cloud: the refreshed one if `cache_dir` has it, else the packaged one.

    A file that cannot be read is warned of, once, and left aside.
    """
    return packaged(on) if cache_dir is None or on not in CLOUDS else _kept(on, cache_dir) or packaged(on)


def path_of(on: str, cache_dir: Path) -> Path:
    """Where the refreshed catalogue of a cloud is kept."""
    return cache_dir / "catalog" / f"{on}.json"


@cache
def _kept(on: str, cache_dir: Path) -> Table | None:
    path = path_of(on, cache_dir)
    try:
        if path.stat().st_size > _LARGEST:
            raise BadCatalog("too large")
        found = parse(path.read_text("ascii"))
        if found.on != on:
            raise BadCatalog(f"it is of {found.on[:20]!r}")
        return found
    except FileNotFoundError:
        return None
    except (OSError, BadCatalog, UnicodeDecodeError) as error:
        log.warning(
            "the refreshed catalogue %s cannot be used (%s): the packaged one holds; "
            "`vmrun offers --refresh` writes it anew",
            path,
            error,
        )
        return None


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
    _kept.cache_clear()
    return path
