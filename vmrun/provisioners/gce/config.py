"""The table `[gce]` of the configuration, as the driver uses it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The name of the driver.
ON = "gce"
#: The VPC network that a project has unless somebody removed it, and the one that `vmrun init gce` makes else.
DEFAULT_NETWORK = "default"
#: Network tag of all machines: what the firewall rule for SSH applies to.
NETWORK_TAG = "vmrun"
_DISK = 100 * 10**9


@dataclass(frozen=True, slots=True)
class GceConfig:
    """What a user may say of Compute Engine; the meaning of each key stands in `vmrun.settings.clouds`."""

    endpoint: str = ""
    metadata_endpoint: str = ""
    project: str = ""
    regions: tuple[str, ...] = ("us-central1",)
    credentials_file: str = ""
    network: str = ""
    subnetwork: str = ""
    image: str = ""
    service_account: str = ""
    #: Bytes.
    disk: int = _DISK
    public_ip: bool = True
    ssh_from: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def read(settings: Mapping[str, object]) -> GceConfig:
    """The table, which the settings have checked; keys that are missing have their defaults."""

    def text(key: str) -> str:
        return str(settings.get(key) or "")

    def texts(key: str) -> tuple[str, ...]:
        value = settings.get(key)
        return tuple(str(each) for each in value) if isinstance(value, list | tuple) else ()

    disk = settings.get("disk")
    return GceConfig(
        endpoint=text("endpoint").rstrip("/"),
        metadata_endpoint=text("metadata_endpoint"),
        project=text("project"),
        regions=texts("regions") or ("us-central1",),
        credentials_file=text("credentials_file"),
        network=text("network"),
        subnetwork=text("subnetwork"),
        image=text("image"),
        service_account=text("service_account"),
        disk=disk if isinstance(disk, int) else _DISK,
        public_ip=settings.get("public_ip", True) is not False,
        ssh_from=texts("ssh_from"),
        exclude=texts("exclude"),
    )
