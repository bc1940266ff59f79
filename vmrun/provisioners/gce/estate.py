"""The project around the machines: what it must hold, and whether it will do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from vmrun import catalog
from vmrun.core.clock import Clock
from vmrun.core.clouds import Need
from vmrun.core.estates import Finding, PriceRow
from vmrun.provisioners import caller
from vmrun.provisioners.context import ProvisionerContext

from . import config as configuration
from . import machines, policy, pricing
from .api import GoogleApi
from .checks import Checks
from .config import GceConfig
from .network import Founder

#: Compute Engine in Google's price list.
_SERVICE = "services/6F81-5844-456A"
#: GB of one built-in local disk.
_LOCAL_SSD_GB = 375
_ARCHITECTURES = {"ARM64": "arm64", "X86_64": "x86_64"}


def open_estate(context: ProvisionerContext) -> GceEstate:
    """The estate of the configured project. Nothing is sent yet. Raises ConfigError."""
    config = configuration.read(context.settings)
    return GceEstate(GoogleApi(config, context.clock, context.rng), config, context.clock)


class GceEstate:
    """One project."""

    name = configuration.ON

    def __init__(
        self, api: GoogleApi, config: GceConfig, clock: Clock, *, opener: caller.Opener = caller.fetch
    ) -> None:
        """`opener` finds out the caller's address."""
        self._api = api
        self._config = config
        self._clock = clock
        self._opener = opener

    def check(self, need: Need) -> Iterator[Finding]:
        """Credentials, project, permissions, quota, image, network, SSH, as they come; nothing is created."""
        return Checks(self._api, self._config, self._sources).all(need)

    def policy(self) -> str:
        """A custom role in YAML, with the commands of gcloud that make and grant it."""
        return policy.document(self._config, self._config.project or "PROJECT")

    def establish(self, deployment: str) -> Iterator[str]:
        """A network, where there is none, and the rule that lets this computer, or gce.ssh_from, in by SSH."""
        return self._founder(deployment).establish(self._sources())

    def dismantle(self, deployment: str) -> Iterator[str]:
        """Remove the rule and the network that `establish` made."""
        return self._founder(deployment).dismantle()

    def prices(self) -> Iterator[PriceRow]:
        """The machine types of the configured regions, with what their cores and memory cost."""
        pages = self._api.pages("cloudbilling.services.skus.list", parent=_SERVICE, pageSize=5000, currencyCode="USD")
        found = pricing.rates(sku for page in pages for sku in page.get("skus") or ())
        today = datetime.fromtimestamp(self._clock.now(), UTC).date().isoformat()
        for region in self._config.regions:
            for kind in self._types(region):
                yield _row(kind, region, found, today)

    def _types(self, region: str) -> Iterator[dict[str, Any]]:
        """Each type of a region once, whichever of its zones have it."""
        seen = set()
        for url in self._api.read("compute.regions.get", region=region).get("zones") or ():
            zone = machines.last(url)
            for page in self._api.pages("compute.machineTypes.list", zone=zone, maxResults=500):
                for kind in page.get("items") or ():
                    if kind["name"] not in seen and not kind.get("deprecated"):
                        seen.add(kind["name"])
                        yield kind

    def _founder(self, deployment: str) -> Founder:
        return Founder(self._api, self._clock, self._config, deployment)

    def _sources(self) -> tuple[str, ...]:
        return caller.networks(self._config.ssh_from, "gce.ssh_from", self._opener)


def _row(kind: dict[str, Any], region: str, found: pricing.Rates, today: str) -> PriceRow:
    name, vcpus = str(kind["name"]), int(kind["guestCpus"])
    arch = _ARCHITECTURES.get(str(kind.get("architecture")), "x86_64")
    disks = kind.get("bundledLocalSsds") or {}
    usd = pricing.price(found, kind, region, spot=False)
    spot = pricing.price(found, kind, region, spot=True)
    return PriceRow(
        instance_type=name,
        vcpus=vcpus,
        cores=catalog.physical_cores(configuration.ON, name, vcpus, arch),
        memory_gib=int(kind["memoryMb"]) / 1024,
        arch=arch,
        local_ssd_gb=int(disks.get("partitionCount") or 0) * _LOCAL_SSD_GB,
        region=region,
        usd_per_hour=usd,
        spot_usd_per_hour=spot,
        priced_at=today if usd is not None or spot is not None else "",
    )
