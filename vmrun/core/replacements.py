"""Which lost VMs of a job somebody took on to replace, since when, and which VMs came in their places."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TakenOn:
    """The entry by which somebody last said so."""

    #: Its number in the job's journal.
    n: int
    #: Seconds since the epoch, by the clock of whoever wrote it.
    at: float


@dataclass(slots=True)
class Replacements:
    """As the entries of the job's journal tell it, each told in turn."""

    #: Lost VMs, in the order in which they were first taken on.
    taken: dict[str, TakenOn] = field(default_factory=dict)
    #: What was listed in the place of each.
    successors: dict[str, str] = field(default_factory=dict)

    def take(self, vm: str, n: int, at: float) -> None:
        """Somebody gets a VM in the place of this one; said again because nothing came of it before."""
        self.taken[vm] = TakenOn(n, at)
        self.successors.pop(vm, None)

    def came(self, vm: str) -> None:
        """A VM was listed: it stands in the place of the first one that has none."""
        lost = next((lost for lost in self.taken if lost not in self.successors), None)
        if lost is not None:
            self.successors[lost] = vm

    def waits(self, vm: str, failed: str) -> bool:
        """Whether it was taken on, and nothing listed in its place but what is known to have `failed` ("": none)."""
        return vm in self.taken and self.successors.get(vm, "") == failed
