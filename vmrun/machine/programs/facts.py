"""What the machine is: Python, processors, memory, disk, boot. Argument: a directory whose disk is meant."""

from __future__ import annotations

import json
import os
import platform
import sys


def read(path: str) -> str:
    """A file's text, or nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def limits(controller: str, name: str) -> list[str]:
    """The values of one control-group file from this process's group up to the root, for either version."""
    found = []
    for line in read("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names == "":
            root = "/sys/fs/cgroup"
        elif controller in names.split(","):
            root = "/sys/fs/cgroup/" + names
        else:
            continue
        while True:
            found.append(read(f"{root}{path}/{name}"))
            if path in ("", "/"):
                break
            path = os.path.dirname(path)
    return [value for value in found if value]


def memory() -> int:
    """Bytes: what the kernel has, or less if a control group says so."""
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    named = limits("memory", "memory.max") + limits("memory", "memory.limit_in_bytes")
    return min([total] + [int(value) for value in named if value.isdigit()])


def cpus() -> int:
    """Processors that this process may use at once."""
    count = len(os.sched_getaffinity(0))
    quotas = [value.split() for value in limits("cpu", "cpu.max")]
    pairs = zip(limits("cpu", "cpu.cfs_quota_us"), limits("cpu", "cpu.cfs_period_us"))  # noqa: B905 - Python 3.8
    quotas += [[quota, period] for quota, period in pairs]
    for quota, period in quotas:
        if quota.isdigit() and int(period) > 0:
            count = min(count, max(1, int(quota) // int(period)))
    return count


def main(directory: str) -> None:
    """Print the facts."""
    disk = os.statvfs(directory)
    facts = {
        "python": platform.python_version(),
        "arch": platform.machine().replace("aarch64", "arm64"),
        "libc": "-".join(platform.libc_ver()),
        "cpus": cpus(),
        "memory": memory(),
        "disk_free": disk.f_bavail * disk.f_frsize,
        "boot_id": read("/proc/sys/kernel/random/boot_id"),
        "hostname": platform.node(),
        "uid": os.getuid(),
    }
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
