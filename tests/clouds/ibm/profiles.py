"""Instance profiles: sizes and zones of the families that IBM sells, in the shapes of the SDK's models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

ZONES = {
    region: tuple(f"{region}-{number}" for number in (1, 2, 3))
    for region in ("us-south", "us-east", "eu-de", "eu-gb", "jp-tok")
}
#: From this version on, `vcpu_count` is an enumeration where it was a fixed number.
VCPU_ENUM_SINCE = "2026-09-01"
#: From this version on, the list comes in pages.
PAGED_SINCE = "2026-04-07"

_GEN2 = (2, 4, 8, 16, 32, 48, 64, 96, 128)
_GEN3 = (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 176)
_FLEX = (2, 4, 8, 16, 24, 32, 48, 64)
#: Family to numbers of vCPUs, GiB for each, and whether it has disks of its own.
_FAMILIES: dict[str, tuple[tuple[int, ...], float, bool]] = {
    "bx2": (_GEN2, 4, False),
    "bx2d": (_GEN2, 4, True),
    "cx2": (_GEN2, 2, False),
    "cx2d": (_GEN2, 2, True),
    "mx2": (_GEN2, 8, False),
    "mx2d": (_GEN2, 8, True),
    "bx3d": (_GEN3, 5, True),
    "cx3d": (_GEN3, 2.5, True),
    "mx3d": (_GEN3, 10, True),
    "bx4": (_GEN3, 4, False),
    "bx4d": (_GEN3, 4, True),
    "cx4": (_GEN3, 2, False),
    "cx4d": (_GEN3, 2, True),
    "mx4": (_GEN3, 8, False),
    "mx4d": (_GEN3, 8, True),
    "vx3d": ((2, 4, 8, 16, 24, 32, 48, 64, 88, 96, 128, 176), 16, True),
    "vx2d": ((2, 4, 8, 16, 44, 88, 144, 176), 14, True),
    "ux2d": ((2, 4, 8, 16, 36, 48, 72, 100, 200), 28, True),
    "bxf": (_FLEX, 4, False),
    "cxf": (_FLEX, 2, False),
    "mxf": (_FLEX, 8, False),
}
_SPOT = {"bxf", "cxf", "mxf"}
#: Newer hardware is not everywhere: these families only in these regions.
_ONLY: dict[str, tuple[str, ...]] = dict.fromkeys(("bx4", "bx4d", "cx4", "cx4d", "mx4", "mx4d"), ("us-south",)) | {
    "ux2d": ("us-south", "us-east"),
    "vx2d": ("us-south", "us-east", "eu-de"),
}


@dataclass(frozen=True)
class Profile:
    """One size of a family."""

    name: str
    vcpus: int
    gib: int
    disks: bool
    spot: bool

    @property
    def family(self) -> str:
        return self.name.split("-")[0]

    def zones(self, region: str) -> tuple[str, ...]:
        """Where the hardware is."""
        return ZONES[region] if region in _ONLY.get(self.family, (region,)) else ()


@cache
def profiles() -> dict[str, Profile]:
    """All, by name."""
    made = [
        Profile(f"{family}-{vcpus}x{int(vcpus * gib)}", vcpus, int(vcpus * gib), disks, family in _SPOT)
        for family, (sizes, gib, disks) in _FAMILIES.items()
        for vcpus in sizes
    ]
    return {profile.name: profile for profile in made}


def _choice(values: list[Any], default: Any = None) -> dict[str, Any]:
    return {"type": "enum", "values": values, "default": values[0] if default is None else default}


def _fixed(value: Any) -> dict[str, Any]:
    return {"type": "fixed", "value": value}


def body(profile: Profile, region: str, base: str, version: str) -> dict[str, Any]:
    """As `get_instance_profile` gives it to a caller of this version of the API."""
    count = _choice([profile.vcpus]) if version >= VCPU_ENUM_SINCE else _fixed(profile.vcpus)
    disk = {
        "quantity": _fixed(1),
        "size": _fixed(profile.gib),
        "supported_interface_types": {"type": "enum", "values": ["nvme"], "default": "nvme"},
    }
    return {
        "name": profile.name,
        "href": f"{base}/instance/profiles/{profile.name}",
        "family": {"b": "balanced", "c": "compute", "m": "memory"}.get(profile.name[0], "very-high-memory"),
        "resource_type": "instance_profile",
        "status": "current",
        "availability_class": _choice(["spot", "standard"], "standard") if profile.spot else _fixed("standard"),
        "bandwidth": _fixed(min(profile.vcpus * 2000, 80000)),
        "cluster_network_attachment_count": {"type": "dependent"},
        "confidential_compute_modes": _choice(["disabled"]),
        "disks": [disk] if profile.disks else [],
        "memory": _fixed(profile.gib),
        "network_attachment_count": {"type": "range", "min": 1, "max": 15},
        "network_bandwidth_mode": _fixed("pooled"),
        "network_interface_count": {"type": "range", "min": 1, "max": 15},
        "os_architecture": _choice(["amd64"]),
        "port_speed": _fixed(16000),
        "reservation_terms": {"type": "enum", "values": ["one_year", "three_year"]},
        "secure_boot_modes": _choice([False]),
        "supported_cluster_network_profiles": [],
        "threads_per_core": _choice([2]),
        "total_volume_bandwidth": _fixed(min(profile.vcpus * 500, 20000)),
        "vcpu_architecture": _fixed("amd64"),
        "vcpu_burst_limit": _fixed(100),
        "vcpu_count": count,
        "vcpu_manufacturer": _fixed("intel"),
        "vcpu_percentage": _choice([100]),
        "volume_bandwidth_qos_modes": _choice(["pooled", "weighted"]),
        "zones": [{"name": zone, "href": f"{base}/regions/{region}/zones/{zone}"} for zone in profile.zones(region)],
    }
