"""Machines on EC2: created by one call that may be sent again, found by tag and by name, deleted with all they have."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from vmrun import catalog
from vmrun.core.clouds import (
    NAME_PREFIX,
    TAG_OWNER,
    TAG_VM,
    Capabilities,
    CloudError,
    Fault,
    Instance,
    InstanceNotFound,
    InstanceSpec,
    InstanceState,
    Leftover,
    Need,
    Offer,
    Scope,
    instance_name,
)
from vmrun.provisioners.context import ProvisionerContext

from . import leftovers, view
from .api import Aws
from .config import ON, Ec2Config
from .errors import Request
from .images import Images
from .networks import Networks
from .notices import notices
from .request import Place, client_token, run_instances, tags

log = logging.getLogger(__name__)

#: Seconds within which EC2's lists show what was created.
SETTLE = 60.0
#: Codes by which EC2 says that it has granted this token before.
_KNOWN_TOKEN = ("IdempotentParameterMismatch", "IdempotentInstanceTerminated")
#: Types, the first ones of a list of offers, of which EC2 is asked in which zones it has them.
_TYPES_ASKED = 50
#: Codes by which some spot markets refuse the shutdown behaviour, which a one-time spot machine has anyway.
_COMBINATION = ("InvalidParameterCombination", "InvalidParameterValue")
_LOG_LINES = 100


def open_driver(context: ProvisionerContext) -> Ec2Provisioner:
    """The driver for the `[ec2]` table. Nothing is asked of AWS yet."""
    config = Ec2Config.from_table(context.settings)
    return Ec2Provisioner(Aws(config, context.clock, context.rng), config, context)


class Ec2Provisioner:
    """EC2 in the configured regions."""

    name = ON

    def __init__(self, aws: Aws, config: Ec2Config, context: ProvisionerContext) -> None:
        self._aws = aws
        self._config = config
        self.capabilities = Capabilities(
            poweroff_deletes=True,
            atomic_tags=True,
            spot=True,
            settle=SETTLE,
            notices=notices(config.metadata_endpoint),
        )
        self._cache_dir = context.cache_dir
        self._images = Images(aws, config)
        self._networks = Networks(aws, config)
        #: Region and type -> zones that have it.
        self._sold: dict[tuple[str, str], frozenset[str]] = {}

    def offers(self, need: Need) -> Iterable[Offer]:
        """What the catalogue has for `need`, in each zone with a subnet, cheapest first.

        A region that cannot be looked at is passed over while there is another one; CloudError if there is none.
        """
        regions = [region for region in self._config.regions if need.region in ("", region)]
        fitting = catalog.offers(ON, need, regions, exclude=self._config.exclude, cache_dir=self._cache_dir)
        zones, errors = self._zones({offer.region for offer in fitting})
        if errors and not zones:
            raise errors[0]
        self._learn(fitting, zones)
        return [
            replace(offer, zone=zone)
            for offer in fitting
            for zone in zones.get(offer.region, ())
            if need.zone in ("", zone) and zone in self._sold.get((offer.region, offer.instance_type), (zone,))
        ]

    def prepare(self) -> None:
        """There is nothing to prepare: what machines need in the account is made by `vmrun init ec2`."""

    def create(self, spec: InstanceSpec) -> Instance:
        """Create the instance named in `spec`, or return the one that an earlier call with this spec created.

        EC2 knows the call again by its token, also after the instance is gone. CloudError (unavailable) leaves open
        whether it exists; so does no other fault.
        """
        if not spec.name.startswith(instance_name(spec.owner, "")):
            raise CloudError(
                f"the name {spec.name} does not belong to {spec.owner}",
                fault=Fault.config,
                scope=Scope.cloud,
                hint="machines are named vmrun-OWNER-VM",
            )
        region = spec.offer.region
        image = self._images.find(region, spec.offer.arch)
        subnet = self._networks.subnets(region).get(spec.offer.zone)
        if subnet is None:
            raise CloudError(
                f"there is no subnet in {spec.offer.zone}",
                fault=Fault.not_offered,
                scope=Scope.zone,
                hint="add one to ec2.subnets, or choose another --zone",
            )
        place = Place(subnet.id, self._networks.group(region, spec.owner))
        body = run_instances(self._config, spec, image, place)
        try:
            return self._run(spec, body)
        except CloudError as error:
            if not spec.offer.spot or error.cloud_code not in _COMBINATION:
                raise
        return self._run(spec, run_instances(self._config, spec, image, place, plain=True))

    def get(self, id: str) -> Instance:
        """One instance by its id, or by its name; the newest if several have it. Raises InstanceNotFound."""
        parsed = view.parse_id(id)
        if parsed is None:
            found = self._named(id)
        else:
            region, identifier = parsed
            found = self._view(region, InstanceIds=[identifier])
        if not found:
            raise InstanceNotFound(f"EC2 has no instance {id[:80]}", hint="it was deleted, or ended by itself")
        return max(found, key=lambda one: (one.state is not InstanceState.gone, one.created_at))

    def instances(self, owner: str) -> Iterator[Instance]:
        """Every instance with this owner's tag or name in all configured regions; those that are gone are left out."""
        found: dict[str, Instance] = {}
        for region in self._config.regions:
            for key, value in ((f"tag:{TAG_OWNER}", owner), ("tag:Name", f"{instance_name(owner, '')}*")):
                for one in self._view(region, Filters=_filters((key, [value]), ("instance-state-name", view.LIVING))):
                    found[one.id] = one
        # Only now, when every list was complete.
        return iter(list(found.values()))

    def delete(self, id: str) -> None:
        """Terminate one instance, and with it its disk, address and interface; not found is success.

        By name: those of that name which are vmrun's by their tags.
        """
        parsed = view.parse_id(id)
        if parsed is not None:
            self._terminate(*parsed)
            return
        for one in self._named(id):
            if one.state not in (InstanceState.gone, InstanceState.stopping):
                self._terminate(one.region, one.id.partition("/")[2])

    def leftovers(self, owner: str) -> Iterator[Leftover]:
        """Disks, interfaces, addresses, key pairs and spot requests with this owner's tag that no instance uses."""
        found: list[Leftover] = []
        for region in self._config.regions:
            found += leftovers.find(self._aws, region, owner)
        return iter(found)

    def discard(self, leftover: Leftover) -> None:
        """Delete a leftover; not found is success, and one that an instance uses by now is left alone."""
        leftovers.discard(self._aws, leftover)

    def boot_log(self, id: str) -> str:
        """The end of the machine's console. EC2 shows it a minute or two late, except on its newer types."""
        parsed = view.parse_id(id)
        if parsed is None:
            return ""
        region, identifier = parsed
        variants: tuple[dict[str, Any], ...] = ({"Latest": True}, {})
        for more in variants:
            try:
                answer = self._aws.call(region, "ec2:GetConsoleOutput", InstanceId=identifier, **more)
            except InstanceNotFound:
                return ""
            except CloudError as error:
                # Types of the older kind have no console but the one that is kept.
                if error.cloud_code in ("UnsupportedOperation", *_COMBINATION) and more:
                    continue
                raise
            return "\n".join(str(answer.get("Output") or "").splitlines()[-_LOG_LINES:])
        return ""

    def _zones(self, regions: Iterable[str]) -> tuple[dict[str, tuple[str, ...]], list[CloudError]]:
        """The zones of each region that can be used, and why the others cannot."""
        zones: dict[str, tuple[str, ...]] = {}
        errors = []
        for region in sorted(regions):
            try:
                zones[region] = tuple(self._networks.subnets(region))
            except CloudError as error:
                log.warning("event=region-passed-over region=%s fault=%s", region, error.fault.value)
                errors.append(error)
        return zones, errors

    def _learn(self, fitting: list[Offer], zones: Iterable[str]) -> None:
        """Ask, once, in which zones EC2 has the first types; what it does not tell is found out by trying."""
        for region in zones:
            types = dict.fromkeys(offer.instance_type for offer in fitting if offer.region == region)
            wanted = [name for name in list(types)[:_TYPES_ASKED] if (region, name) not in self._sold]
            if not wanted:
                continue
            try:
                rows = self._aws.pages(
                    region,
                    "ec2:DescribeInstanceTypeOfferings",
                    "InstanceTypeOfferings",
                    LocationType="availability-zone",
                    Filters=_filters(("instance-type", wanted)),
                )
            except CloudError as error:
                log.info("event=offerings-unknown region=%s fault=%s", region, error.fault.value)
                continue
            for name in wanted:
                self._sold[region, name] = frozenset(
                    str(row["Location"]) for row in rows if row["InstanceType"] == name
                )

    def _run(self, spec: InstanceSpec, body: dict[str, Any]) -> Instance:
        offer = spec.offer
        about = Request("ec2:RunInstances", offer.region, offer.instance_type, spot=offer.spot)
        try:
            # Sent once: whether and when to send it again is decided by who keeps the record of it.
            answer = self._aws.call(offer.region, about.action, about, attempts=1, **body)
        except CloudError as error:
            if error.cloud_code in _KNOWN_TOKEN:
                return self._made_before(spec, error)
            raise
        return view.instance(answer["Instances"][0], offer.region, public_ip=self._config.public_ip)

    def _made_before(self, spec: InstanceSpec, mismatch: CloudError) -> Instance:
        """The instance of this token: it is gone, or was asked for when there was, say, an older image."""
        token = [client_token(spec), client_token(spec, plain=True)]
        found = self._view(spec.offer.region, Filters=_filters(("client-token", token)))
        for one in found:
            if tags(spec).items() <= one.tags.items():
                return one
        if mismatch.fault is Fault.preempted:
            raise mismatch
        if found:
            raise CloudError(
                f"EC2 made another machine than {spec.name} with its token: {found[0].id}",
                fault=Fault.name_taken,
                cloud_code=mismatch.cloud_code,
                hint="it was not made for this job and was left alone; look at its tags in the console",
            ) from mismatch
        raise CloudError(
            f"EC2 has accepted {spec.name} before, and does not show it yet",
            fault=Fault.unavailable,
            scope=Scope.region,
            cloud_code=mismatch.cloud_code,
            hint="try again in a minute",
        ) from mismatch

    def _named(self, name: str) -> list[Instance]:
        """Instances of exactly this name whose tags say that they are vmrun's."""
        if not name.startswith(f"{NAME_PREFIX}-") or any(letter in name for letter in "*?\\"):
            return []
        found = [
            one for region in self._config.regions for one in self._view(region, Filters=_filters(("tag:Name", [name])))
        ]
        return [one for one in found if name == instance_name(one.tags.get(TAG_OWNER, ""), one.tags.get(TAG_VM, ""))]

    def _view(self, region: str, **parameters: Any) -> list[Instance]:
        """What DescribeInstances shows; nothing for an id that it does not know."""
        try:
            found = self._aws.pages(region, "ec2:DescribeInstances", "Reservations", **parameters)
        except InstanceNotFound:
            return []
        return [
            view.instance(raw, region, public_ip=self._config.public_ip)
            for reservation in found
            for raw in reservation.get("Instances", ())
        ]

    def _terminate(self, region: str, identifier: str) -> None:
        try:
            self._aws.call(region, "ec2:TerminateInstances", InstanceIds=[identifier])
        except InstanceNotFound:
            return


def _filters(*pairs: tuple[str, list[str]]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": values} for name, values in pairs]
