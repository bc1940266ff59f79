"""What the account may have at once, what it has, and whether one instance more is too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from . import world
from .building import Built
from .faults import Failure, quota_failure
from .store import Store

#: States in which an instance takes none of the quotas for CPUs.
_OFF = ("TERMINATED", "STOPPED", "SUSPENDED")


class Quotas:
    """Limits and use, by region (`""`: the whole project) and metric; a metric of a family is `METRIC:FAMILY`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._limits: dict[tuple[str, str], float] = {}

    def limit(self, region: str, metric: str, limit: float) -> None:
        """From now on; `CPUS_PER_VM_FAMILY:C4` is what the family C4 may have."""
        self._limits[region, metric] = limit

    def limit_of(self, region: str, metric: str) -> float:
        known = world.REGION_LIMITS if region else world.GLOBAL_LIMITS
        return self._limits.get((region, metric), known.get(metric, world.FAMILY_LIMIT))

    def refusal(self, built: Built, region: str) -> Failure | None:
        """Why this instance is one too many, as its operation will say; None if it is not."""
        used, everywhere = self._used(region), self._used("")
        for metric, amount in _needs(built, preemptible=self.limit_of(region, "PREEMPTIBLE_CPUS") > 0):
            limit = self.limit_of(region, metric)
            if used[metric] + amount > limit:
                name, _, family = metric.partition(":")
                return quota_failure(name, limit, region, family)
        limit = self.limit_of("", "CPUS_ALL_REGIONS")
        if everywhere["CPUS_ALL_REGIONS"] + built.kind.vcpus > limit:
            return quota_failure("CPUS_ALL_REGIONS", limit, "")
        return None

    def of_region(self, region: str) -> list[dict[str, Any]]:
        """As regions.get tells them: without those that have a value for each family."""
        return self._told(region, world.REGION_LIMITS)

    def of_project(self) -> list[dict[str, Any]]:
        """As projects.get tells them."""
        return self._told("", world.GLOBAL_LIMITS)

    def _told(self, region: str, metrics: Mapping[str, float]) -> list[dict[str, Any]]:
        used = self._used(region)
        return [
            {"metric": metric, "limit": self.limit_of(region, metric), "usage": float(used[metric])}
            for metric in metrics
        ]

    def _used(self, region: str) -> Counter[str]:
        used: Counter[str] = Counter()
        for key, one in self._store.of("instances"):
            zone = key.scope.partition("/")[2]
            if region not in ("", world.region_of(zone)):
                continue
            used["INSTANCES"] += 1
            if one["status"] in _OFF:
                continue
            kind = world.machine_type(one["machineType"].rpartition("/")[2], zone)
            assert kind is not None, one["machineType"]
            used[_metric(kind)] += kind.vcpus
            used["CPUS_ALL_REGIONS"] += kind.vcpus
            if one["scheduling"].get("provisioningModel") == "SPOT":
                used["PREEMPTIBLE_CPUS"] += kind.vcpus
            used["IN_USE_ADDRESSES"] += _addresses(one)
        for key, one in self._store.of("disks"):
            if region in ("", world.region_of(key.scope.partition("/")[2])):
                used[_disk_metric(one)] += int(one["sizeGb"])
        used["STATIC_ADDRESSES"] = sum(
            region in ("", key.scope.partition("/")[2]) for key, _ in self._store.of("addresses")
        )
        used["NETWORKS"] = sum(1 for _ in self._store.of("networks"))
        used["FIREWALLS"] = sum(1 for _ in self._store.of("firewalls"))
        return used


def _needs(built: Built, *, preemptible: bool) -> Iterator[tuple[str, int]]:
    """Spot machines count against the quota for them if there is any, and else as all others do."""
    metric = "PREEMPTIBLE_CPUS" if built.spot and preemptible else _metric(built.kind)
    yield metric, built.kind.vcpus
    yield "INSTANCES", 1
    yield "IN_USE_ADDRESSES", _addresses(built.instance)
    for _, disk in built.disks:
        yield _disk_metric(disk), int(disk["sizeGb"])


def _metric(kind: world.MachineType) -> str:
    name, family = world.metric(kind)
    return f"{name}:{family}" if family else name


def _disk_metric(disk: Mapping[str, Any]) -> str:
    name = disk["type"].rpartition("/")[2]
    if name.startswith("hyperdisk-"):
        return "HDB_TOTAL_GB"
    return "DISKS_TOTAL_GB" if name == "pd-standard" else "SSD_TOTAL_GB"


def _addresses(instance: Mapping[str, Any]) -> int:
    return sum(len(interface.get("accessConfigs", ())) for interface in instance["networkInterfaces"])
