"""What a double's instances are: machines that boot from user data, or, where nothing need boot, paper."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Power(Enum):
    """What a machine is, as its host sees it."""

    on = "on"
    #: Powered off, from inside or outside; its disk is still there.
    off = "off"
    absent = "absent"


class Machines(Protocol):
    """The hosts under a double. Every call is idempotent, and safe from several threads."""

    def boot(self, name: str, user_data: str, *, vcpus: int, memory: int) -> str:
        """Make and start a machine (`memory` in bytes); the address at which its port 22 will answer.

        More vCPUs or memory than this computer has become what it has.
        """
        ...

    def address(self, name: str) -> str:
        """Where it answers now, which another boot may have changed; "" while it is not on."""
        ...

    def power(self, name: str) -> Power:
        """What it is now; a machine that powered itself off is `off`, not `absent`."""
        ...

    def stop(self, name: str) -> None:
        """Power it off as a cloud does, without asking it for long."""
        ...

    def start(self, name: str) -> None:
        """Power it on again: another boot of the same machine."""
        ...

    def destroy(self, name: str) -> None:
        """Remove it with its disk."""
        ...

    def console(self, name: str) -> str:
        """The last of what it wrote to its console."""
        ...


class PaperMachines:
    """Machines that are only noted: they boot at once, answer nowhere, and do as they are told."""

    def __init__(self) -> None:
        self._power: dict[str, Power] = {}
        #: What each was booted with, for a test to look at.
        self.user_data: dict[str, str] = {}

    def boot(self, name: str, user_data: str, *, vcpus: int, memory: int) -> str:
        del vcpus, memory
        self._power.setdefault(name, Power.on)
        self.user_data.setdefault(name, user_data)
        return "127.0.0.1"

    def address(self, name: str) -> str:
        return "127.0.0.1" if self.power(name) is Power.on else ""

    def power(self, name: str) -> Power:
        return self._power.get(name, Power.absent)

    def stop(self, name: str) -> None:
        if name in self._power:
            self._power[name] = Power.off

    def start(self, name: str) -> None:
        if name in self._power:
            self._power[name] = Power.on

    def destroy(self, name: str) -> None:
        self._power.pop(name, None)

    def console(self, name: str) -> str:
        return f"{name}: paper has no console\n" if name in self._power else ""
