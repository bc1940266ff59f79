"""The entries of a borrowed host's journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .record import Record


@dataclass(frozen=True, slots=True)
class Borrow(Record):
    """The VM has the host from here on, whoever had it before."""

    TYPE: ClassVar[str] = "BORROW"
    vm: str
    deployment: str
    #: As the configuration of whoever borrowed it names it.
    host: str
    #: The VM's name.
    name: str
    #: Seconds since the epoch after which the VM must not exist.
    hard_deadline: float
    #: Seconds within which the VM must be ready, or it ends itself.
    boot_grace: float
    #: Those of its create call.
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Return(Record):
    """Nothing of the VM is on the host any more."""

    TYPE: ClassVar[str] = "RETURN"
    vm: str
    evidence: str
