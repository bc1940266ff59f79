"""What a cloud account must hold besides machines, and whether it will do: what `doctor` and `init` ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from .clouds import Need


class Grade(Enum):
    """How a finding of `vmrun doctor` is to be taken."""

    good = "good"
    #: Works, but not as it should.
    warning = "warning"
    #: Jobs cannot run until this is mended.
    bad = "bad"
    #: Could not be found out.
    unclear = "unclear"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked, and what came out."""

    #: `credentials`, `permission ec2:RunInstances`, `quota`, `image`, `network`, `store`, …
    what: str
    grade: Grade
    message: str
    #: The next step; "" when all is good.
    hint: str = ""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A type in a region, as the cloud's own API tells it: a row of the catalogue."""

    instance_type: str
    vcpus: int
    #: Physical cores.
    cores: int
    #: GiB, as sold.
    memory_gib: float
    arch: str
    #: GB of built-in local disk.
    local_ssd_gb: int
    region: str
    #: US dollars an hour; None when unknown.
    usd_per_hour: float | None
    spot_usd_per_hour: float | None
    #: Date of the price, ISO; "" when there is none.
    priced_at: str
    #: Date of the spot price, where it is another; "" when nobody knows it.
    spot_priced_at: str | None = None


class Estate(Protocol):
    """What a cloud account must hold besides machines, and whether it will do: `vmrun doctor` and `vmrun init CLOUD`.

    Opened by `open_estate(context)` of a driver's package, apart from the provisioner, which a job waits for.
    """

    name: str

    def check(self, need: Need) -> Iterator[Finding]:
        """Credentials, each permission, quota head-room for `need`, image, network: one finding each, as they come.

        Creates nothing. Raises nothing that a finding can tell.
        """
        ...

    def policy(self) -> str:
        """The least rights that vmrun needs with the present configuration, in the cloud's own language."""
        ...

    def establish(self, deployment: str) -> Iterator[str]:
        """Make what is missing of network, group and roles, telling each step; a second call finds all in place.

        All is tagged or named as the deployment's, so that `dismantle` finds it. Raises CloudError.
        """
        ...

    def dismantle(self, deployment: str) -> Iterator[str]:
        """Remove what `establish` made, telling each step; what is not there is passed over. Raises CloudError."""
        ...

    def prices(self) -> Iterator[PriceRow]:
        """Types and prices of the configured regions from the cloud's own API. Raises CloudError."""
        ...
