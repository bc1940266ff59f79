"""What this computer has to offer."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

from vmrun.core.clouds import Need, Offer

#: Name of the driver, its only instance type, and its only region and zone.
LOCAL = "local"
_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}


def architecture(machine: str) -> str:
    """`x86_64` or `arm64`, whatever the operating system calls it; others as they are."""
    lower = machine.lower()
    return _ARCHITECTURES.get(lower, lower)


def this_computer() -> Offer:
    """The one offer: the processors that this process may use, all memory, no price."""
    usable = os.sched_getaffinity(0)
    return Offer(
        on=LOCAL,
        instance_type=LOCAL,
        region=LOCAL,
        zone=LOCAL,
        arch=architecture(platform.machine()),
        vcpus=len(usable),
        cores=_physical_cores(usable),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        usd_per_hour=0.0,
    )


def _physical_cores(usable: Iterable[int]) -> int:
    """Cores behind these logical processors; hyper-threads that cannot be told apart count as cores."""
    cores = set()
    for cpu in usable:
        path = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            cores.add(Path(path).read_text())
        except OSError:
            cores.add(path)
    return len(cores)


def free_disk(folder: Path) -> int:
    """Bytes that this user can still write where `folder` is, or will be. Raises OSError."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def fits(offer: Offer, need: Need, disk: int) -> bool:
    """Whether `offer`, with `disk` bytes free, is enough for `need`."""
    return (
        need.cpus <= offer.vcpus
        and need.memory <= offer.memory
        and need.disk <= disk
        and need.arch in ("", offer.arch)
        and need.instance_type in ("", offer.instance_type)
        and need.region in ("", offer.region)
        and need.zone in ("", offer.zone)
    )
