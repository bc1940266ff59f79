"""Reads a catalogue from a cloud's own API and keeps it in the cache directory."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from vmrun.core.clock import Clock
from vmrun.core.clouds import CloudError, Fault, Scope
from vmrun.core.errors import ConfigError
from vmrun.core.estates import Estate

from .refreshed import forget, path_of
from .table import Table, dump, table_of


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
    forget()
    return path


def refresh(estate: Estate, clock: Clock, cache_dir: Path) -> Table:
    """Read a cloud's types and prices from its own API and keep them. Raises CloudError, ConfigError."""
    today = time.strftime("%Y-%m-%d", time.gmtime(clock.now()))
    told = table_of(estate.name, today, estate.prices())
    if not told.rows:
        raise CloudError(
            f"{estate.name} told of no types in its configured regions",
            fault=Fault.config,
            scope=Scope.cloud,
            hint=f"check {estate.name}.regions; the catalogue stays as it was",
        )
    try:
        keep(told, cache_dir)
    except OSError as error:
        raise ConfigError(
            f"the catalogue of {estate.name} cannot be written below {cache_dir}: {error.strerror or error}",
            hint="make the directory writable, or set VMRUN_CACHE_DIR to another one",
        ) from error
    return told
