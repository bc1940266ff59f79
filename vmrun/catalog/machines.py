"""What the clouds' types are beyond vCPUs and sold memory: usable memory, physical cores, quotas, markets. Pure rules.

Sources and dates stand in docs/explanation/catalog.md.
"""

from __future__ import annotations

import re

#: Of the memory that a cloud sells, this many hundredths count as usable: the rest is the kernel's table of pages
#: (1/64), firmware, crash kernel and what the hypervisor takes; 6 to 7 are what comparable systems settled on.
#: A terabyte (10^12 bytes) fits a machine sold with 1024 GiB.
USABLE_PERCENT = 93

#: GCE families whose vCPU is a whole core; elsewhere two vCPUs are the threads of one core.
_GCE_WHOLE_CORES = frozenset({"c4a", "h3", "h4d", "n4a", "t2a", "t2d"})
#: AMD families of EC2 from the seventh generation on run without hyper-threads.
_EC2_AMD = re.compile(r"[a-z]+(\d+)a")
_EC2_AMD_WHOLE_CORES = 7
#: A high-memory type of EC2 that is sold without hyper-threads.
_EC2_WHOLE_CORES = frozenset({"u-6tb1.56xlarge"})

#: EC2 quotas by the first letters of a type: code of the on-demand quota, code of the spot one ("": no spot).
_EC2_STANDARD = ("L-1216C47A", "L-34B43A08")
_EC2_QUOTAS = {
    **dict.fromkeys("acdhimrtz", _EC2_STANDARD),
    "x": ("L-7295265B", "L-E3A00192"),
    "u": ("L-43DA4232", ""),
}
#: Names under which AWS shows these quotas.
EC2_QUOTA_NAMES = {
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    "L-7295265B": "Running On-Demand X instances",
    "L-E3A00192": "All X Spot Instance Requests",
    "L-43DA4232": "Running On-Demand High Memory instances",
}
#: GCE families with a regional quota metric of their own, such as `N2_CPUS`.
_GCE_OWN_QUOTA = frozenset({"c2", "c2d", "c3", "m1", "m2", "m3", "n2", "n2d", "t2a", "t2d"})
#: GCE families that share `CPUS`.
_GCE_SHARED_QUOTA = frozenset({"e2", "n1"})
#: The metric of all newer families, one limit for each: `CPUS_PER_VM_FAMILY/C4`.
_GCE_PER_FAMILY = "CPUS_PER_VM_FAMILY"
_GCE_SPOT = "PREEMPTIBLE_CPUS"
_IBM_QUOTA, _IBM_SPOT_QUOTA = "vCPU per region", "spot instances per region"
#: IBM sells spot machines of these families only.
_IBM_SPOT = frozenset({"bxf", "cxf", "mxf"})
#: GCE families without spot machines.
_GCE_NO_SPOT = frozenset({"m2"})


def usable(on: str, memory_bytes: int) -> int:
    """Bytes that a system can use on a machine sold with `memory_bytes`, by a rule that does not promise too much."""
    del on  # one margin holds for the three clouds
    return memory_bytes * USABLE_PERCENT // 100


def family(on: str, instance_type: str) -> str:
    """The family of a type: `r6a` of `r6a.32xlarge`, `c4` of `c4-highmem-144`, `mx2` of `mx2-128x1024`."""
    return instance_type.partition("." if on == "ec2" else "-")[0]


def physical_cores(on: str, instance_type: str, vcpus: int, arch: str) -> int:
    """How many cores are behind the vCPUs of a type."""
    return vcpus if _has_whole_cores(on, instance_type, arch) else max(1, vcpus // 2)


def _has_whole_cores(on: str, instance_type: str, arch: str) -> bool:
    group = family(on, instance_type)
    if arch == "arm64" or (on == "gce" and group in _GCE_WHOLE_CORES):
        return True
    if on != "ec2":
        return False
    amd = _EC2_AMD.match(group)
    return instance_type in _EC2_WHOLE_CORES or (amd is not None and int(amd[1]) >= _EC2_AMD_WHOLE_CORES)


def bucket(on: str, instance_type: str, *, spot: bool = False) -> str:
    """The quota that a type counts against, as its cloud names it; "" if it is not known."""
    group = family(on, instance_type)
    if on == "ec2":
        codes = _EC2_QUOTAS.get("u" if re.match(r"u\d*-|u\d", group) else re.split(r"\d", group)[0], ("", ""))
        return codes[1] if spot else codes[0]
    if on == "gce":
        return _GCE_SPOT if spot else _gce_bucket(group)
    if on == "ibm":
        return _IBM_SPOT_QUOTA if spot else _IBM_QUOTA
    return ""


def _gce_bucket(group: str) -> str:
    if group in _GCE_SHARED_QUOTA:
        return "CPUS"
    return f"{group.upper()}_CPUS" if group in _GCE_OWN_QUOTA else f"{_GCE_PER_FAMILY}/{group.upper()}"


def has_spot(on: str, instance_type: str) -> bool:
    """Whether the cloud rents machines of this type at spot prices."""
    group = family(on, instance_type)
    if on == "ec2":
        return bucket(on, instance_type, spot=True) != ""
    if on == "gce":
        return group not in _GCE_NO_SPOT
    return on == "ibm" and group in _IBM_SPOT


def is_throttled(on: str, instance_type: str) -> bool:
    """Whether the type has its full processor only part of the time, so that a job on all cores would be slowed."""
    return on == "ec2" and family(on, instance_type).endswith("-flex")
