"""The drivers that come with vmrun, by name. A driver is imported when it is opened, never before."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType, ModuleType
from typing import cast

from vmrun.core.clouds import Provisioner
from vmrun.core.errors import ConfigError, UsageError
from vmrun.core.estates import Estate
from vmrun.provisioners.context import ProvisionerContext


@dataclass(frozen=True, slots=True)
class Entry:
    """One driver: a module with a function `open_driver(context) -> Provisioner`.

    That of a cloud has a module `estate` beside it, with `open_estate(context) -> Estate`.
    """

    module: str
    #: One line for people.
    summary: str
    #: The extra of the distribution that brings its SDK; empty when nothing else is needed.
    extra: str = ""


PROVISIONERS: Mapping[str, Entry] = MappingProxyType(
    {
        "local": Entry("vmrun.provisioners.local.driver", "this computer; nothing to configure, costs nothing"),
        "docker": Entry("vmrun.provisioners.docker.driver", "containers on this computer that boot like VMs"),
        "ssh": Entry("vmrun.provisioners.ssh.driver", "hosts that you have: leased for a job, never deleted"),
        "ec2": Entry("vmrun.provisioners.ec2.driver", "machines on Amazon EC2", extra="ec2"),
        "gce": Entry("vmrun.provisioners.gce.driver", "machines on Google Compute Engine", extra="gce"),
        "ibm": Entry("vmrun.provisioners.ibm.driver", "machines on IBM Cloud VPC Gen2", extra="ibm"),
    }
)

#: What `--on` takes for the best offer of all configured clouds.
AUTO = "auto"
#: The drivers that `auto` chooses among: those that rent machines.
CLOUDS = ("ec2", "gce", "ibm")
#: The cloud whose account lends machines, also those of other clouds, keys for a store at s3://: a module
#: `store_credentials` beside its driver, with `store_credentials(context, url, lifetime, on) -> dict[str, str]`.
EC2 = "ec2"


def provisioner_names() -> tuple[str, ...]:
    """What `--on` takes, the default first."""
    return tuple(PROVISIONERS)


def summary(name: str) -> str:
    """One line about a driver. Raises UsageError for a name that is none."""
    if name == AUTO:
        return "the best offer of all configured clouds"
    return _entry(name).summary


def load_provisioner(name: str, context: ProvisionerContext) -> Provisioner:
    """Import and open a driver.

    Raises UsageError for an unknown name, ConfigError when its SDK is not installed, and what the driver itself
    raises when its configuration will not do.
    """
    entry = _entry(name)
    return cast(Provisioner, _load(name, entry, entry.module).open_driver(context))


def load_estate(name: str, context: ProvisionerContext) -> Estate:
    """Import and open what `doctor`, `init` and `offers --refresh` ask of a cloud's account.

    Raises as `load_provisioner` does, and UsageError for a driver that needs no account.
    """
    entry = _entry(name)
    if name not in CLOUDS:
        raise UsageError(f"{name} needs no account at a cloud", hint=f"choose one of: {', '.join(CLOUDS)}")
    module = _load(name, entry, f"{entry.module.rpartition('.')[0]}.estate")
    return cast(Estate, module.open_estate(context))


def lend_store_access(
    on: str, context: ProvisionerContext, url: str, lifetime: float, *, region: str = ""
) -> dict[str, str]:
    """Keys of `lifetime` seconds for a machine of the driver `on` to the store at `url`, by the names of its options.

    `context` is that of the cloud that lends, `region` the store's if it is known. {}: the machine has an identity that
    does. Raises as `load_provisioner` does, and CloudError when the cloud refuses.
    """
    entry = _entry(EC2)
    module = _load(EC2, entry, f"{entry.module.rpartition('.')[0]}.store_credentials")
    if region and on != EC2:
        context = replace(context, settings={**context.settings, "regions": (region,)})
    return cast(dict[str, str], module.store_credentials(context, url, lifetime, on))


def _load(name: str, entry: Entry, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vmrun":
            raise  # a defect of vmrun, not of the installation
        raise ConfigError(
            f"{name} needs the Python package {error.name}, which is not installed",
            hint=f"pip install 'vmrun[{entry.extra}]'" if entry.extra else "install vmrun again",
        ) from error


def _entry(name: str) -> Entry:
    entry = PROVISIONERS.get(name)
    if entry is None:
        raise UsageError(
            f"there is no provisioner named {name[:80]!r}", hint=f"choose one of: {', '.join((*PROVISIONERS, AUTO))}"
        )
    return entry
