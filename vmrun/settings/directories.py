"""Whether vmrun's own directories can be used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from vmrun.core.errors import ConfigError

from . import Settings


def check_directories(settings: Settings) -> None:
    """Refuse a directory of vmrun's own that cannot be made or written to, before anything is begun."""
    for name, directory in (("cache", settings.cache_dir), ("state", settings.state_dir)):
        _check(name, directory)


def _check(name: str, directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(
            f"the {name} directory {directory} cannot be used: {error.strerror or error}",
            hint=f"make it writable for this user, or set VMRUN_{name.upper()}_DIR to another one",
        ) from error
