"""The configuration of a deployment: one TOML file, then the environment, then what a caller sets; later wins.

Importing this package is cheap; pydantic is loaded with the first settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmrun.core.errors import UsageError

if TYPE_CHECKING:
    from .clouds import Ec2Section, GceSection, IbmSection, SshSection
    from .fields import Section, VmSection
    from .models import BudgetSection, Defaults, DockerSection, EnvironmentSection, LocalSection, StoreSection

__all__ = ["DEFAULT_STORE", "Settings", "cache_dir", "config_dir", "load_settings", "state_dir"]

#: In the configuration directory: the URL of the default store, once it is in use.
DEFAULT_STORE = "default-store"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked. Its repr shows no secret."""

    defaults: Defaults
    #: Its `url` is never empty.
    store: StoreSection
    vm: VmSection
    budget: BudgetSection
    local: LocalSection
    docker: DockerSection
    ssh: SshSection
    ec2: Ec2Section
    gce: GceSection
    ibm: IbmSection
    environment: EnvironmentSection
    #: Holds the file and the deployment's keys.
    config_dir: Path
    #: What must survive: machines, records of failures.
    state_dir: Path
    #: What may be deleted at any time.
    cache_dir: Path
    #: Whether nobody said where the store is.
    store_is_default: bool = False
    #: Files that were read.
    source: tuple[Path, ...] = field(default=())

    def section_for(self, on: str) -> VmSection:
        """The times that hold for VMs of the driver `on`: `[vm]`, overlaid with what the driver's own table sets."""
        own = self.driver_table(on)
        return self.vm.model_copy(update={key: own[key] for key in type(self.vm).model_fields if key in own})

    def driver_table(self, on: str) -> dict[str, Any]:
        """The driver's own table, without what is unset; empty for a driver that has none."""
        section: Section | None = {
            "local": self.local,
            "docker": self.docker,
            "ssh": self.ssh,
            "ec2": self.ec2,
            "gce": self.gce,
            "ibm": self.ibm,
        }.get(on)
        return {} if section is None else section.model_dump(exclude_none=True)


def config_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The configuration directory: `VMRUN_CONFIG_DIR`, else the platform's."""
    return _directory("config", environ)


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The state directory: `VMRUN_STATE_DIR`, else the platform's."""
    return _directory("state", environ)


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The cache directory: `VMRUN_CACHE_DIR`, else the platform's."""
    return _directory("cache", environ)


def _directory(kind: str, environ: Mapping[str, str] | None) -> Path:
    import platformdirs

    given = (os.environ if environ is None else environ).get(f"VMRUN_{kind.upper()}_DIR")
    if given:
        return Path(os.path.abspath(os.path.expanduser(given)))
    return Path(getattr(platformdirs, f"user_{kind}_path")("vmrun"))


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """The settings that hold in `cwd` (default: the current directory) with `environ` (default: this process's).

    `overrides` are values by dotted key, such as `{"store.url": "file:///tmp/s"}`. Nothing is created on disk. Raises
    ConfigError, naming the file and line or the variable, for whatever cannot be used.
    """
    from .loading import load

    try:
        here = cwd or Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the current directory does not exist any more", hint="cd to one that does") from error
    return load(overrides or {}, environ=os.environ if environ is None else environ, cwd=here)
