"""What every double is to a test: an address, a script, an inventory, and hands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from .trouble import Script


@dataclass
class Inventory:
    """All that the account holds and somebody pays for or must tidy up, by the cloud's own identifiers."""

    #: Not those that are gone for good; what a cloud still shows of them does not count.
    instances: dict[str, str] = field(default_factory=dict)
    """Identifier to state, in the cloud's own words."""
    disks: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)


class Double(Protocol):
    """A running double of one cloud."""

    #: `http://host:port` for `endpoint` in the driver's table of the configuration.
    endpoint: str
    script: Script

    def settings(self) -> dict[str, object]:
        """What the driver's table (`[ec2]`, `[gce]`, `[ibm]`) must hold to work against this double."""
        ...

    def environment(self) -> dict[str, str]:
        """Variables that give the SDK credentials that this double takes."""
        ...

    def inventory(self) -> Inventory:
        """What there is now."""
        ...

    def power_off(self, name: str) -> None:
        """Power the machine off from inside, as its agent or timer does; the double then does as its cloud would."""
        ...

    def delete_by_hand(self, name: str) -> None:
        """As a person does in the console."""
        ...

    def stop_by_hand(self, name: str) -> None:
        """As a person does in the console."""
        ...

    def preempt(self, name: str) -> None:
        """Take a spot machine back, in the cloud's own way."""
        ...

    def open_metadata(self, host: str) -> None:
        """Answer, at an address of this computer that machines reach, what they ask about themselves.

        `settings` then says where. Nothing, for a cloud that tells its machines nothing of their end.
        """
        ...

    def announce(self, name: str, *, likely: bool = False) -> None:
        """Tell a spot machine, from inside, that it will be taken back, or is `likely` to be.

        ValueError where the cloud does not.
        """
        ...

    def plant(self, name: str, *, tags: dict[str, str] | None = None, region: str = "", zone: str = "") -> str:
        """A machine of somebody else with this name; its identifier."""
        ...

    def close(self) -> None:
        """End the server and remove every machine."""
        ...
