"""What there is at Compute Engine before anybody makes anything: regions, zones, machine types, images, quotas."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vmrun.catalog.packaged import packaged

from .store import ROOT

#: The zones of each region, by their letters, as they really are.
REGIONS: Mapping[str, str] = {
    "us-central1": "abcf",
    "us-east1": "bcd",
    "us-east4": "abc",
    "us-east5": "abc",
    "us-south1": "abc",
    "us-west1": "abc",
    "us-west2": "abc",
    "us-west4": "abc",
    "europe-west1": "bcd",
    "europe-west3": "abc",
    "europe-west4": "abc",
    "europe-north1": "abc",
    "asia-east1": "abc",
    "asia-southeast1": "abc",
}
_EPOCH = "2014-05-30T18:35:16.514-07:00"
GIB = 1 << 30


@dataclass(frozen=True)
class MachineType:
    name: str
    vcpus: int
    #: GiB.
    memory: float
    arch: str = "x86_64"

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]


_TYPES = (
    MachineType("e2-micro", 2, 1),
    MachineType("e2-standard-2", 2, 8),
    MachineType("e2-standard-16", 16, 64),
    MachineType("n1-standard-4", 4, 15),
    MachineType("n2-standard-4", 4, 16),
    MachineType("n2-standard-128", 128, 512),
    MachineType("n2-highmem-128", 128, 864),
    MachineType("n2d-standard-128", 128, 512),
    MachineType("c2-standard-60", 60, 240),
    MachineType("c3-highmem-176", 176, 1408),
    MachineType("c3d-highmem-180", 180, 1440),
    MachineType("c4-standard-4", 4, 15),
    MachineType("c4-highmem-144", 144, 1116),
    MachineType("c4-highmem-192", 192, 1488),
    MachineType("c4a-standard-4", 4, 16, "arm64"),
    MachineType("m1-ultramem-160", 160, 3844),
    MachineType("m3-megamem-128", 128, 1952),
    MachineType("n4-standard-80", 80, 320),
    MachineType("t2a-standard-4", 4, 16, "arm64"),
    MachineType("t2d-standard-60", 60, 240),
)
#: Zones that have no machine of a family or of a type, though their region has.
_ABSENT: Mapping[str, frozenset[str]] = {
    "c4": frozenset({"us-central1-f", "us-east4-b"}),
    "c4a": frozenset({"us-central1-f", "us-east4-b"}),
    "n2-highmem-128": frozenset({"us-central1-f", "us-east1-b", "europe-west4-c"}),
    "m3": frozenset({"us-central1-c", "us-central1-f"}),
    "t2a": frozenset({"us-central1-c"}),
}
#: Families that take no Persistent Disk, and those that take no Hyperdisk Balanced.
HYPERDISK_ONLY = frozenset(["a4", "a4x", "c4", "c4a", "c4d", "c4n", "h4d", "m4", "m4n", "n4", "n4a", "n4d", "x4"])
PD_ONLY = frozenset(["c2", "c2d", "e2", "f1", "g1", "m1", "m2", "n1", "n2", "n2d", "t2a", "t2d"])
#: Families whose machines cannot move to another host while they run.
IMMOVABLE = frozenset(["a2", "a3", "a4", "a4x", "g2", "g4", "h3", "h4d", "x4", "z3"])
DISK_TYPES = ("pd-standard", "pd-balanced", "pd-ssd", "pd-extreme", "hyperdisk-balanced", "hyperdisk-extreme")
#: Families with a quota of their own that regions.get tells; those of `_SHARED` count as CPUS, all others against the
#: one metric with a dimension for each family.
_OWN = frozenset(["a2", "c2", "c2d", "c3", "m1", "m2", "m3", "n2", "n2a", "n2d", "t2a", "t2d"])
_SHARED = frozenset(["e2", "f1", "g1", "n1"])
FAMILY_METRIC = "CPUS_PER_VM_FAMILY"
#: What an account may have at once, unless a test says otherwise. Preemptible 0: they count as the others do.
REGION_LIMITS: Mapping[str, float] = {
    "CPUS": 2000.0,
    **{f"{family.upper()}_CPUS": 2000.0 for family in sorted(_OWN)},
    "PREEMPTIBLE_CPUS": 0.0,
    "INSTANCES": 500.0,
    "IN_USE_ADDRESSES": 500.0,
    "STATIC_ADDRESSES": 100.0,
    "SSD_TOTAL_GB": 200_000.0,
    "DISKS_TOTAL_GB": 200_000.0,
    "HDB_TOTAL_GB": 200_000.0,
}
GLOBAL_LIMITS: Mapping[str, float] = {"CPUS_ALL_REGIONS": 4000.0, "NETWORKS": 15.0, "FIREWALLS": 100.0}
FAMILY_LIMIT = 2000.0

#: Image projects: name of each image, its family, its architecture.
_IMAGES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "ubuntu-os-cloud": (
        ("ubuntu-2404-noble-amd64-v20261112", "ubuntu-2404-lts-amd64", "X86_64"),
        ("ubuntu-2404-noble-arm64-v20261112", "ubuntu-2404-lts-arm64", "ARM64"),
        ("ubuntu-2204-jammy-v20261110", "ubuntu-2204-lts", "X86_64"),
    ),
    "debian-cloud": (("debian-12-bookworm-v20261111", "debian-12", "X86_64"),),
}


def zones() -> Iterator[str]:
    return (f"{region}-{letter}" for region, letters in REGIONS.items() for letter in letters)


def region_of(zone: str) -> str:
    return zone.rpartition("-")[0]


@functools.cache
def types(region: str) -> Mapping[str, MachineType]:
    """The machine types of a region: those above, and all of the packaged catalogue."""
    found = {one.name: one for one in _TYPES}
    found.update({one.name: one for one in _catalogue(region)})
    return found


def _catalogue(region: str) -> list[MachineType]:
    return [
        MachineType(row.instance_type, row.vcpus, row.memory_gib, row.arch)
        for row in packaged("gce").rows
        if row.region == region
    ]


def machine_type(name: str, zone: str) -> MachineType | None:
    """None if the zone has no machine of this type."""
    found = types(region_of(zone)).get(name)
    if found is None or zone in _ABSENT.get(name, ()) or zone in _ABSENT.get(found.family, ()):
        return None
    return found


def metric(kind: MachineType) -> tuple[str, str]:
    """The quota that its CPUs count against, and the family where that is a dimension of it ("" else)."""
    if kind.family in _SHARED:
        return "CPUS", ""
    if kind.family in _OWN:
        return f"{kind.family.upper()}_CPUS", ""
    return FAMILY_METRIC, kind.family.upper()


# --- as the API gives them ---


def number(text: str) -> str:
    """An id for a thing that has always been there: the same each time."""
    return str(1000 + sum(byte * 31**n for n, byte in enumerate(text.encode()[-12:])) % 10**15)


def zone_resource(project: str, zone: str) -> dict[str, Any]:
    region = f"{ROOT}projects/{project}/regions/{region_of(zone)}"
    return {
        "kind": "compute#zone",
        "id": number(zone),
        "creationTimestamp": _EPOCH,
        "name": zone,
        "description": zone,
        "status": "UP",
        "region": region,
        "selfLink": f"{ROOT}projects/{project}/zones/{zone}",
        "availableCpuPlatforms": ["Intel Ice Lake", "AMD Milan"],
    }


def region_resource(project: str, region: str, quotas: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": "compute#region",
        "id": number(region),
        "creationTimestamp": _EPOCH,
        "name": region,
        "description": region,
        "status": "UP",
        "zones": [f"{ROOT}projects/{project}/zones/{region}-{letter}" for letter in REGIONS[region]],
        "quotas": quotas,
        "selfLink": f"{ROOT}projects/{project}/regions/{region}",
    }


def type_resource(project: str, kind: MachineType, zone: str) -> dict[str, Any]:
    return {
        "kind": "compute#machineType",
        "id": number(kind.name),
        "creationTimestamp": _EPOCH,
        "name": kind.name,
        "description": f"{kind.vcpus} vCPUs, {kind.memory:g} GB RAM",
        "guestCpus": kind.vcpus,
        "memoryMb": int(kind.memory * 1024),
        "maximumPersistentDisks": 128,
        "maximumPersistentDisksSizeGb": "263168",
        "zone": zone,
        "architecture": "ARM64" if kind.arch == "arm64" else "X86_64",
        "isSharedCpu": kind.family in ("f1", "g1"),
        "selfLink": f"{ROOT}projects/{project}/zones/{zone}/machineTypes/{kind.name}",
    }


def images(project: str) -> list[dict[str, Any]] | None:
    """The images of a project; None if there is no such project."""
    if project not in _IMAGES:
        return None
    return [
        {
            "kind": "compute#image",
            "id": number(name),
            "creationTimestamp": "2026-11-12T03:10:00.000-08:00",
            "name": name,
            "family": family,
            "architecture": architecture,
            "status": "READY",
            "sourceType": "RAW",
            "diskSizeGb": "10",
            "archiveSizeBytes": "1000000000",
            "selfLink": f"{ROOT}projects/{project}/global/images/{name}",
        }
        for name, family, architecture in _IMAGES[project]
    ]
