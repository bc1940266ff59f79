"""The drivers that come with vmrun, by name. A driver is imported when it is opened, never before."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from vmrun.core.clouds import Provisioner
from vmrun.core.errors import ConfigError, UsageError
from vmrun.provisioners.context import ProvisionerContext


@dataclass(frozen=True, slots=True)
class Entry:
    """One driver: a module with a function `open_driver(context) -> Provisioner`."""

    module: str
    #: One line for people.
    summary: str
    #: The extra of the distribution that brings its SDK; empty when nothing else is needed.
    extra: str = ""


PROVISIONERS: Mapping[str, Entry] = MappingProxyType(
    {
        "local": Entry("vmrun.provisioners.local.driver", "this computer; nothing to configure, costs nothing"),
        "docker": Entry("vmrun.provisioners.docker.driver", "containers on this computer that boot like VMs"),
    }
)


def provisioner_names() -> tuple[str, ...]:
    """What `--on` takes, the default first."""
    return tuple(PROVISIONERS)


def summary(name: str) -> str:
    """One line about a driver. Raises UsageError for a name that is none."""
    return _entry(name).summary


def load_provisioner(name: str, context: ProvisionerContext) -> Provisioner:
    """Import and open a driver.

    Raises UsageError for an unknown name, ConfigError when its SDK is not installed, and what the driver itself
    raises when its configuration will not do.
    """
    entry = _entry(name)
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vmrun":
            raise  # a defect of vmrun, not of the installation
        raise ConfigError(
            f"{name} needs the Python package {error.name}, which is not installed",
            hint=f"pip install 'vmrun[{entry.extra}]'" if entry.extra else "install vmrun again",
        ) from error
    return cast(Provisioner, module.open_driver(context))


def _entry(name: str) -> Entry:
    entry = PROVISIONERS.get(name)
    if entry is None:
        raise UsageError(
            f"there is no provisioner named {name[:80]!r}", hint=f"choose one of: {', '.join(PROVISIONERS)}"
        )
    return entry
