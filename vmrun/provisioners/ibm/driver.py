"""IBM Cloud VPC Gen2: names instead of tokens and tags, failures that come after acceptance, addresses that stay."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vmrun import catalog
from vmrun.core.clock import Clock
from vmrun.core.clouds import (
    Capabilities,
    CloudError,
    Fault,
    Instance,
    InstanceNotFound,
    InstanceSpec,
    InstanceState,
    Leftover,
    Market,
    Need,
    Offer,
    Scope,
    instance_name,
)
from vmrun.provisioners.context import ProvisionerContext

from . import request, views
from .addresses import Addresses
from .api import Api, check_installed
from .config import ON, IbmConfig
from .errors import IbmError
from .offers import Profile, in_zones, no_spot, profile_of
from .places import Places, of_region
from .self_delete import program

#: Seconds after a create call of unknown outcome within which its instance may still appear.
SETTLE = 30.0
#: Seconds for which a delete is tried anew while the instance is in the middle of something else.
_BUSY = 60.0
_PAUSE_MAX = 2.0
_REGION = re.compile(r"[a-z]{2}-[a-z]{2,8}\d{0,2}")
_KEY = re.compile(r"[0-9a-z][0-9a-z_-]{0,62}")


def open_driver(context: ProvisionerContext) -> IbmProvisioner:
    """The driver of the account whose API key is configured. Nothing is loaded or asked yet."""
    check_installed()
    config = IbmConfig.of(context.settings)
    api = Api(config, context.clock, context.rng)
    return IbmProvisioner(api, config, context.clock, context.cache_dir)


class IbmProvisioner:
    """Instances of IBM Cloud VPC Gen2 in the configured regions.

    `Instance.id` is `region/identifier`. The public address is given by `create` as soon as the instance is accepted,
    and by `get` if the cloud was not ready for it then.
    """

    name = ON

    def __init__(self, api: Api, config: IbmConfig, clock: Clock, cache_dir: Path) -> None:
        self.capabilities = Capabilities(
            atomic_tags=False,
            spot=True,
            settle=SETTLE,
            self_delete=program(config.endpoint, config.trusted_profile) if config.trusted_profile else "",
        )
        self._api = api
        self._config = config
        self._clock = clock
        self._cache_dir = cache_dir
        self._places = Places(api, config)
        self._addresses = Addresses(api, self._places)
        self._profiles: dict[str, dict[str, Profile]] = {}
        #: Names by id, for what is to be tidied when the instance itself cannot be asked any more.
        self._names: dict[str, str] = {}

    def prepare(self) -> None:
        """Nothing need be done ahead."""

    def offers(self, need: Need) -> Iterable[Offer]:
        """The catalogue's offers, once for each zone with a subnet and the profile.

        Raises CloudError (not offered) when spot alone is wanted and what fits is rented on demand only.
        """
        regions = [region for region in self._config.regions if need.region in ("", region)]
        fitting = catalog.offers(ON, need, regions, exclude=self._config.exclude, cache_dir=self._cache_dir)
        found: list[Offer] = []
        for region in regions:
            here = [offer for offer in fitting if offer.region == region]
            if here:
                zones = sorted(self._places.site(region).subnets)
                found += in_zones(here, need, zones, self._profiles_of(region))
        if not found and need.market is Market.spot and not fitting:
            self._refuse_spot(need, regions)
        return found

    def create(self, spec: InstanceSpec) -> Instance:
        """Create the instance, or adopt the one that an earlier call with this spec made.

        An address that can never be had ends the instance again, so that an error leaves nothing behind; where that
        fails too, or the answer was lost, the fault is `unavailable`.
        """
        request.check_name(spec)
        region = spec.offer.region
        if spec.offer.spot:
            profile = self._profiles_of(region).get(spec.offer.instance_type)
            if profile is None or not profile.spot:
                raise no_spot(f"{spec.offer.instance_type} is rented in {region}")
        body = request.instance(spec, self._place(spec), disk=self._config.disk)
        try:
            raw = self._api.change(region, "create_instance", instance_prototype=body)
        except IbmError as error:
            if not error.name_taken:
                if error.fault is Fault.config:
                    self._places.forget(region)
                raise
            raw = self._adopt(spec, error)
        self._names[str(raw["id"])] = spec.name
        return views.instance(region, raw, self._first_address(region, raw))

    def get(self, id: str) -> Instance:
        """One instance of vmrun, by its id or its bare name. One that runs without an address is given one."""
        found = self._find(id)
        if found is None or not views.is_ours(found[1]):
            raise InstanceNotFound(f"IBM Cloud has no instance {id[:80]}", hint="it was deleted, or never created")
        region, raw = found
        self._names[str(raw["id"])] = str(raw["name"])
        return views.instance(region, raw, self._address(region, raw))

    def instances(self, owner: str) -> Iterator[Instance]:
        """Every instance with this owner's name and vmrun's mark, of all configured regions."""
        found: list[Instance] = []
        for region in self._config.regions:
            mine = [raw for raw in self._listed(region, owner) if views.is_ours(raw)]
            floating = self._addresses.listed(region) if mine and self._config.public_ip else []
            for raw in mine:
                self._names[str(raw["id"])] = str(raw["name"])
                public = views.public_address(floating, views.interface(raw))
                address = public if self._config.public_ip else views.private_address(raw)
                found.append(views.instance(region, raw, address))
        return iter(found)

    def delete(self, id: str) -> None:
        """Delete an instance with its disk, network interface and floating IP; the latter also when it is gone.

        The address goes first, because its name is known only as long as the instance is; trouble with it does not
        keep the instance.
        """
        found = self._find(id)
        if found is None:
            self._tidy(id)
            return
        region, raw = found
        if not views.is_ours(raw):
            raise CloudError(
                f"the instance {raw.get('name')} is not vmrun's", fault=Fault.config, hint="nothing was deleted"
            )
        trouble: CloudError | None = None
        try:
            self._addresses.drop(region, str(raw["name"]))
        except CloudError as error:
            trouble = error
        self._delete_instance(region, raw)
        if trouble is not None:
            raise trouble

    def leftovers(self, owner: str) -> Iterator[Leftover]:
        """Floating IPs and unattached volumes with this owner's name whose machine is not there.

        Machines are listed last, so that what was made meanwhile is not taken for left over.
        """
        found: list[Leftover] = []
        prefix = instance_name(owner, "")
        for region in self._config.regions:
            floating = self._addresses.listed(region)
            volumes = self._api.pages(region, "list_volumes", "volumes", attachment_state="unattached")
            things = [("floating-ip", each) for each in floating] + [("volume", each) for each in volumes]
            mine = [
                (kind, each)
                for kind, each in things
                if str(each.get("name", "")).startswith(prefix) and self._is_in(region, each)
            ]
            if mine:
                machines = {str(raw["name"]) for raw in self._listed(region, owner)}
                found += [views.leftover(kind, region, each) for kind, each in mine if each["name"] not in machines]
        return iter(found)

    def discard(self, leftover: Leftover) -> None:
        """Delete a floating IP or a volume, unless something uses it by now."""
        region, _, key = leftover.id.partition("/")
        floating = leftover.kind == "floating-ip"
        try:
            now = self._api.read(region, "get_floating_ip" if floating else "get_volume", id=key)
            if now.get("target") or now.get("volume_attachments"):
                return
            self._api.change(region, "delete_floating_ip" if floating else "delete_volume", id=key)
        except IbmError as error:
            if error.status != 404:
                raise

    def boot_log(self, id: str) -> str:
        """Nothing: IBM shows a console only live, over a WebSocket."""
        del id
        return ""

    # --- making ---

    def _place(self, spec: InstanceSpec) -> request.Place:
        region, zone = spec.offer.region, spec.offer.zone
        site = self._places.site(region, spec.owner)
        if zone not in site.subnets:
            raise CloudError(
                f"there is no subnet with a free address in {zone}",
                fault=Fault.not_offered,
                scope=Scope.zone,
                hint="`vmrun init ibm` makes one in each zone",
            )
        return request.Place(
            vpc=site.vpc,
            subnet=site.subnets[zone],
            security_group=site.security_group,
            image=self._places.image(region),
            resource_group=self._places.resource_group(),
            trusted_profile=self._config.trusted_profile,
        )

    def _adopt(self, spec: InstanceSpec, taken: IbmError) -> dict[str, Any]:
        """The instance that has the name, if this very spec made it; it may be late in lists."""
        give_up, attempt = self._clock.monotonic() + SETTLE, 0
        while not (found := self._named(spec.offer.region, spec.name)):
            if self._clock.monotonic() >= give_up:
                raise CloudError(
                    f"the name {spec.name} is in use, and no instance shows it: {taken.message}",
                    fault=Fault.unavailable,
                    scope=Scope.region,
                    cloud_code=taken.cloud_code,
                    hint="it may still appear; `vmrun reap` deletes it then",
                )
            attempt = self._pause(attempt)
        raw = found[0]
        profile = str((raw.get("profile") or {}).get("name", ""))
        same = (views.mark_of(raw), profile, views.zone_of(raw))
        if same != (request.mark(spec), spec.offer.instance_type, spec.offer.zone):
            raise CloudError(
                f"there is another instance named {spec.name}",
                # One of vmrun's has this name only if the same intent was sent with other parameters.
                fault=Fault.config if views.is_ours(raw) else Fault.name_taken,
                scope=Scope.offer,
                cloud_code=taken.cloud_code,
                hint=f"it was not made for this VM, and is left alone; see `ibmcloud is instance {spec.name}`",
            )
        return raw

    def _first_address(self, region: str, raw: dict[str, Any]) -> str:
        if not self._config.public_ip:
            return views.private_address(raw)
        interface = views.interface(raw)
        if not interface or views.instance(region, raw, "").state is InstanceState.stopped:
            return ""
        try:
            return self._addresses.give(region, str(raw["name"]), interface)
        except CloudError as error:
            try:
                self.delete(f"{region}/{raw['id']}")
            except CloudError as trouble:
                raise CloudError(
                    f"{error.message}; and the instance without an address could not be deleted: {trouble.message}",
                    fault=Fault.unavailable,
                    scope=error.scope,
                    cloud_code=error.cloud_code,
                    hint=error.hint,
                ) from error
            raise

    def _address(self, region: str, raw: dict[str, Any]) -> str:
        """Where SSH answers, for `get`: one call more, and the binding that `create` could not do."""
        if not self._config.public_ip:
            return views.private_address(raw)
        interface = views.interface(raw)
        if views.instance(region, raw, "").state is not InstanceState.running or not interface:
            return ""
        return self._addresses.of_interface(region, interface) or self._addresses.give(
            region, str(raw["name"]), interface
        )

    def _profiles_of(self, region: str) -> dict[str, Profile]:
        if region not in self._profiles:
            listed = self._api.pages(region, "list_instance_profiles", "profiles")
            self._profiles[region] = {str(raw["name"]): profile_of(raw) for raw in listed}
        return self._profiles[region]

    def _refuse_spot(self, need: Need, regions: list[str]) -> None:
        on_demand = dataclasses.replace(need, market=Market.on_demand)
        fitting = catalog.offers(ON, on_demand, regions, exclude=self._config.exclude, cache_dir=self._cache_dir)
        if fitting:
            raise no_spot(f"{fitting[0].instance_type} and all that fits is rented")

    # --- finding ---

    def _find(self, id: str) -> tuple[str, dict[str, Any]] | None:
        """Region and instance for `region/identifier` or a bare name; None if there is none."""
        region, slash, key = id.rpartition("/")
        if not _KEY.fullmatch(key) or (slash and not _REGION.fullmatch(region)):
            return None
        if not slash:
            for each in self._config.regions:
                for raw in self._named(each, key):
                    return each, raw
            return None
        try:
            return region, self._api.read(region, "get_instance", id=key)
        except IbmError as error:
            if error.status == 404:
                return None
            raise

    def _named(self, region: str, name: str) -> list[dict[str, Any]]:
        found = self._api.pages(region, "list_instances", "instances", name=name)
        return [raw for raw in of_region(found, region, self._config) if raw.get("name") == name]

    def _listed(self, region: str, owner: str) -> list[dict[str, Any]]:
        found = self._api.pages(region, "list_instances", "instances", **self._places.in_group())
        prefix = instance_name(owner, "")
        return [raw for raw in of_region(found, region, self._config) if str(raw.get("name", "")).startswith(prefix)]

    def _is_in(self, region: str, raw: dict[str, Any]) -> bool:
        return bool(of_region([raw], region, self._config))

    # --- ending ---

    def _delete_instance(self, region: str, raw: dict[str, Any]) -> None:
        key, give_up, attempt = str(raw["id"]), self._clock.monotonic() + _BUSY, 0
        while raw.get("status") != "deleting":
            try:
                self._api.change(region, "delete_instance", id=key)
                return
            except IbmError as error:
                if error.status == 404:
                    return
                # In the middle of starting, stopping or being deleted; or the answer was lost.
                if error.fault is not Fault.unavailable or self._clock.monotonic() >= give_up:
                    raise
            attempt = self._pause(attempt)
            found = self._find(f"{region}/{key}")
            if found is None:
                return
            raw = found[1]

    def _pause(self, attempt: int) -> int:
        """Wait a little, longer each time; the number of the next attempt."""
        self._clock.sleep(min(_PAUSE_MAX, 0.1 * 2.0**attempt))
        return min(attempt + 1, 10)

    def _tidy(self, id: str) -> None:
        """Release the address of an instance that is gone, if its name is known."""
        region, slash, key = id.rpartition("/")
        name = self._names.get(key, key)
        if views.owner_and_vm(name) is None:
            return
        for each in (region,) if slash else self._config.regions:
            self._addresses.drop(each, name)
