"""`vmrun doctor` and `vmrun init` for IBM Cloud: what the account holds, what it must hold, and whether it will do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from vmrun import catalog
from vmrun.core.clouds import CloudError, Fault, Need
from vmrun.core.errors import ConfigError
from vmrun.core.estates import Finding, Grade, PriceRow
from vmrun.provisioners.caller import networks
from vmrun.provisioners.context import ProvisionerContext

from . import policy, prices
from .api import Api, check_installed
from .config import ON, IbmConfig
from .errors import IbmError
from .foundation import Foundation, ssh_sources
from .places import Places, of_region

#: What an account may have by default. IBM has no API that tells the account's own numbers.
VCPUS_PER_REGION, ADDRESSES_PER_ZONE = 200, 40
_MORE = "ask for more at cloud.ibm.com/unifiedsupport/cases (IBM tells nobody by API what it granted)"


def open_estate(context: ProvisionerContext) -> IbmEstate:
    """The estate of the account whose API key is configured. Nothing is loaded or asked yet."""
    check_installed()
    return IbmEstate(IbmConfig.of(context.settings), context)


class IbmEstate:
    """What the account holds besides machines."""

    name = ON

    def __init__(self, config: IbmConfig, context: ProvisionerContext) -> None:
        self._config = config
        self._context = context
        self._api = Api(config, context.clock, context.rng)
        self._places = Places(self._api, config)
        self._foundation = Foundation(self._api, config, context.clock, self._places)

    def check(self, need: Need) -> Iterator[Finding]:
        """Ask for each thing that a machine needs; nothing is created, so that rights to create stay unproven."""
        credentials = _finding("credentials", self._api.token, lambda _token: "IAM gave a token for the API key")
        yield credentials
        if credentials.grade is not Grade.good:
            return
        if self._config.resource_group:
            yield _finding(
                "resource group", self._places.resource_group, lambda key: f"{self._config.resource_group} ({key})"
            )
        for region in self._config.regions:
            yield from self._check_region(region, need)
        yield self._check_profile()
        yield Finding(
            "permission to create",
            Grade.unclear,
            "IBM has no way to try a create without creating",
            "compare the access policies with those of `vmrun doctor --on ibm --policy`",
        )

    def policy(self) -> str:
        """Commands of the `ibmcloud` tool."""
        return policy.commands(self._config)

    def establish(self, deployment: str) -> Iterator[str]:
        """VPC, security group and one subnet in each zone of each configured region."""
        return self._foundation.make(deployment, lambda: networks(self._config.ssh_from, "ibm.ssh_from"))

    def dismantle(self, deployment: str) -> Iterator[str]:
        """Remove them; machines that are still there make it an error after three minutes."""
        return self._foundation.remove(deployment)

    def prices(self) -> Iterator[PriceRow]:
        """The profiles of each region with their prices; what the catalogue does not tell has none."""
        plans: dict[str, str] = {}
        sold: dict[str, list[dict[str, Any]]] = {}
        today = time.strftime("%Y-%m-%d", time.gmtime(self._context.clock.now()))
        for region in self._config.regions:
            for raw in self._api.pages(region, "list_instance_profiles", "profiles"):
                size = prices.size_of(raw, region)
                if size is None:
                    continue
                if size.instance_type not in plans:
                    plans[size.instance_type] = prices.plan_of(self._api.catalog_entry(size.instance_type))
                plan = plans[size.instance_type]
                if plan and plan not in sold:
                    sold[plan] = self._api.catalog_prices(plan)
                usd = prices.usd_per_hour(sold.get(plan, []), region, size)
                yield prices.priced(size, usd, today)

    # --- the checks ---

    def _check_region(self, region: str, need: Need) -> Iterator[Finding]:
        listing = _finding(
            f"permission to list in {region}",
            lambda: self._api.pages(region, "list_instances", "instances", **self._places.in_group()),
            lambda found: f"{len(found)} instances seen",
        )
        yield listing
        if listing.grade is not Grade.good:
            return
        yield _finding(f"image in {region}", lambda: self._places.image(region), lambda key: f"boots {key}")
        network = _finding(
            f"network in {region}",
            lambda: self._places.site(region),
            lambda site: f"VPC {site.vpc}, subnets in {', '.join(sorted(site.subnets))}",
        )
        yield network
        if network.grade is Grade.good:
            yield self._check_ssh(region)
        yield self._check_vcpus(region, need)
        if self._config.public_ip:
            yield self._check_addresses(region)

    def _check_ssh(self, region: str) -> Finding:
        what = f"SSH in {region}"
        try:
            sources = ssh_sources(self._foundation.rules(region, self._places.site(region).security_group))
            wanted = set(networks(self._config.ssh_from, "ibm.ssh_from"))
        except CloudError as error:
            return _bad(what, error)
        except ConfigError as error:
            return Finding(what, Grade.bad, error.message, error.hint)
        if not sources:
            return Finding(what, Grade.bad, "the security group lets nobody reach port 22", "vmrun init ibm")
        if wanted <= sources:
            return Finding(what, Grade.good, f"port 22 is open to {', '.join(sorted(sources))}")
        return Finding(
            what,
            Grade.warning,
            f"port 22 is open to {', '.join(sorted(sources))}, and not to {', '.join(sorted(wanted - sources))}",
            "`vmrun init ibm` adds it",
        )

    def _check_vcpus(self, region: str, need: Need) -> Finding:
        what = f"quota of vCPU in {region}"
        try:
            # All of the account's: the quota knows no resource groups.
            found = of_region(self._api.pages(region, "list_instances", "instances"), region, self._config)
        except CloudError as error:
            return _bad(what, error)
        used = sum(int((raw.get("vcpu") or {}).get("count") or 0) for raw in found)
        asked = self._asked(need, region)
        text = f"{used} of {VCPUS_PER_REGION} vCPU are in use, {asked} are asked for"
        if used + asked <= VCPUS_PER_REGION:
            return Finding(what, Grade.good, text)
        return Finding(what, Grade.unclear, f"{text}: more than IBM grants unless it was asked for more", _MORE)

    def _asked(self, need: Need, region: str) -> int:
        fitting = catalog.offers(ON, need, [region], exclude=self._config.exclude, cache_dir=self._context.cache_dir)
        return fitting[0].vcpus if fitting else need.cpus

    def _check_addresses(self, region: str) -> Finding:
        what = f"quota of floating IPs in {region}"
        try:
            found = of_region(self._api.pages(region, "list_floating_ips", "floating_ips"), region, self._config)
        except CloudError as error:
            return _bad(what, error)
        zones = [str((raw.get("zone") or {}).get("name", "")) for raw in found]
        most = max((zones.count(zone) for zone in zones), default=0)
        text = f"{most} of {ADDRESSES_PER_ZONE} are in use in the fullest zone"
        if most < ADDRESSES_PER_ZONE:
            return Finding(what, Grade.good, text)
        return Finding(what, Grade.unclear, text, _MORE)

    def _check_profile(self) -> Finding:
        what = "trusted profile"
        if not self._config.trusted_profile:
            return Finding(
                what,
                Grade.warning,
                "none: a machine that nobody reaches powers off, and its disk and address stay until a reaper comes",
                "`vmrun doctor --on ibm --policy` prints how to make one; set its id as `trusted_profile` in [ibm]",
            )
        try:
            found = self._api.trusted_profile(self._config.trusted_profile)
        except IbmError as error:
            if error.status == 404:
                return Finding(what, Grade.bad, f"there is no {self._config.trusted_profile}", error.hint)
            # To use a profile and to look at it are different rights.
            return Finding(what, Grade.unclear, error.message, "it may be there, and not be shown to this API key")
        return Finding(what, Grade.good, f"{found.get('name')} is there")


def _finding(what: str, look: Callable[[], Any], told: Callable[[Any], str]) -> Finding:
    """What came of looking: good with what is told of it, or bad with the error."""
    try:
        return Finding(what, Grade.good, told(look()))
    except CloudError as error:
        return _bad(what, error)


def _bad(what: str, error: CloudError) -> Finding:
    grade = Grade.unclear if error.fault in (Fault.unavailable, Fault.throttle, Fault.unknown) else Grade.bad
    return Finding(what, grade, error.message, error.hint)
