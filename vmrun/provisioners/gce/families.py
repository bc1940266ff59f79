"""What differs between families of machine types: disks and maintenance. Pure.

A family is the part of a type's name before its first dash: `c4-highmem-144` is of `c4`.
"""

from __future__ import annotations

#: Families whose machines take Hyperdisk only, not Persistent Disk.
_HYPERDISK = frozenset(("a4", "a4x", "c4", "c4a", "c4d", "c4n", "g4", "h4d", "m4", "m4n", "n4", "n4a", "n4d", "x4"))
#: Families whose machines cannot move to another host while they run.
_IMMOVABLE = frozenset(("a2", "a3", "a4", "a4x", "g2", "g4", "h3", "h4d", "x4", "z3"))
#: The quota of the newer families is one metric, which has a value for each family.
FAMILY_METRIC = "CPUS_PER_VM_FAMILY"


def family(instance_type: str) -> str:
    """The family of a type."""
    return instance_type.partition("-")[0]


def _is_metal(instance_type: str) -> bool:
    return instance_type.endswith("-metal")


def disk_type(instance_type: str) -> str:
    """The type of boot disk that is right for a machine of this type."""
    hyperdisk = family(instance_type) in _HYPERDISK or _is_metal(instance_type)
    return "hyperdisk-balanced" if hyperdisk else "pd-balanced"


def can_migrate(instance_type: str) -> bool:
    """Whether a machine of this type can move to another host while it runs."""
    return family(instance_type) not in _IMMOVABLE and not _is_metal(instance_type)
