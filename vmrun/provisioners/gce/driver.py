"""Machines on Google Compute Engine: created once for each intent, deleted by Google itself at the latest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vmrun.core.clouds import (
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

from . import config as configuration
from . import errors, listing, machines, network, operations, remains, request, self_delete
from .api import GoogleApi
from .config import GceConfig
from .notices import notices
from .offers import ZonedOffers

#: Seconds within which an operation tells whether there is room for a machine; it then goes on by itself.
_PATIENCE = 90.0
#: Bytes of a console that help.
_CONSOLE = 64 * 1024
#: Seconds within which an accepted machine is in every listing.
_SETTLE = 20.0


_Send = Callable[..., dict[str, Any]]


def open_driver(context: ProvisionerContext) -> GceProvisioner:
    """The driver of the configured project. Nothing is sent yet. Raises ConfigError."""
    config = configuration.read(context.settings)
    api = GoogleApi(config, context.clock, context.rng)
    return GceProvisioner(api, ZonedOffers(api, config, context.cache_dir), config, context)


class GceProvisioner:
    """The machines of one project. May be used by several threads."""

    name = configuration.ON

    def __init__(self, api: GoogleApi, offers: ZonedOffers, config: GceConfig, context: ProvisionerContext) -> None:
        self._api = api
        self._offers = offers
        self._config = config
        self._clock = context.clock
        self._rng = context.rng
        self._regions = frozenset(config.regions)
        self._networks: dict[str, str] = {}
        self.capabilities = Capabilities(
            provider_ttl=True,
            spot=True,
            settle=_SETTLE,
            self_delete=self_delete.program(config.endpoint) if config.service_account else "",
            notices=notices(config.metadata_endpoint),
        )

    def prepare(self) -> None:
        """Nothing: `vmrun init gce` makes what a project must hold."""

    def offers(self, need: Need) -> Iterable[Offer]:
        """What of the catalogue fits, in the zones of the configured regions that have it."""
        return self._offers.fitting(need)

    def create(self, spec: InstanceSpec) -> Instance:
        """Create the machine of `spec`, or find the one that an earlier call with it created.

        Waits until Compute Engine has found room for it, for up to a minute and a half, as it refuses for want of room
        only after it has accepted. Repeating it is safe: the request has an id, and the name is the intent's own.
        """
        if self._clock.now() >= spec.hard_deadline:
            raise CloudError(
                f"{spec.name} would be born after its hard deadline",
                fault=Fault.config,
                hint="the clock of this computer may be wrong; run the command again",
            )
        body = request.insert_body(spec, self._config, self._network(spec.owner))
        zone = spec.offer.zone
        try:
            operation = self._api.write(
                "compute.instances.insert",
                creating=True,
                zone=zone,
                body=body,
                requestId=request.request_id("insert", spec.vm),
            )
            self._settle(operation)
        except CloudError as error:
            if not errors.is_taken(error):
                raise
            return self._adopted(spec, error)
        return self._found(spec) or _accepted(spec)

    def get(self, id: str) -> Instance:
        """One machine, by `zone/name` or by its bare name, which is looked for in all zones."""
        return self._instance(self._call(self._api.read, "get", id))

    def instances(self, owner: str) -> Iterator[Instance]:
        """Every machine that has this owner's label or name, in all zones of the project."""
        seen = set()
        for wanted in (f'labels.{TAG_OWNER} = "{owner}"', f'name eq "{instance_name(owner, "")}.*"'):
            for found in listing.scoped(
                self._api, "compute.instances.aggregatedList", "instances", regions=self._regions, filter=wanted
            ):
                one = self._instance(found)
                if one.id not in seen and machines.belongs(found, owner):
                    seen.add(one.id)
                    yield one

    def delete(self, id: str) -> None:
        """Delete a machine with its boot disk and address; returns when this is accepted."""
        # The id of the request is for this call alone: a deletion that failed must not be taken for this one.
        again = request.request_id("delete", id, str(self._rng.getrandbits(128)))
        try:
            self._call(self._api.write, "delete", id, requestId=again)
        except InstanceNotFound:
            return

    def leftovers(self, owner: str) -> Iterator[Leftover]:
        """Disks and reserved addresses with this owner's label or name that nothing uses."""
        return remains.leftovers(self._api, owner, self._regions)

    def discard(self, leftover: Leftover) -> None:
        """Delete a disk or an address; one in use is left alone."""
        remains.discard(self._api, leftover)

    def boot_log(self, id: str) -> str:
        """The end of what the machine wrote to its serial port."""
        try:
            said = self._call(self._api.read, "getSerialPortOutput", id, port=1)
        except InstanceNotFound:
            return ""
        return str(said.get("contents") or "")[-_CONSOLE:]

    def _instance(self, found: dict[str, Any]) -> Instance:
        return machines.instance(found, public=self._config.public_ip)

    def _call(self, send: _Send, verb: str, id: str, **parameters: Any) -> dict[str, Any]:
        """A method of one machine. Raises InstanceNotFound."""
        zone, name = self._locate(id)
        try:
            return send(f"compute.instances.{verb}", zone=zone, instance=name, **parameters)
        except CloudError as error:
            if errors.is_absent(error, name):
                raise _not_found(id) from error
            raise

    def _locate(self, id: str) -> tuple[str, str]:
        """Zone and name of a machine that may or may not be there. Raises InstanceNotFound if it cannot be."""
        where = machines.split_id(id)
        if where is None:
            raise _not_found(id)
        if where[0]:
            return where
        for found in listing.scoped(
            self._api,
            "compute.instances.aggregatedList",
            "instances",
            regions=self._regions,
            filter=f'name = "{where[1]}"',
        ):
            if found.get("name") == where[1]:
                return machines.last(found.get("zone")), where[1]
        raise _not_found(id)

    def _settle(self, operation: dict[str, Any]) -> None:
        """Wait until the creation is done, within limits. CloudError if it failed, or if that cannot be known."""
        try:
            operations.settle(
                self._api, self._clock, operation, doing="instances.insert", patience=_PATIENCE, creating=True
            )
        except operations.Unseen as error:
            # Whatever kept the look from being taken, it says nothing about the machine, which was accepted.
            raise CloudError(
                f"the creation was accepted, and nothing more is known: {error.why.message}",
                fault=Fault.unavailable,
                scope=Scope.region,
                cloud_code=error.why.cloud_code,
                hint=error.why.hint,
            ) from error

    def _network(self, owner: str) -> str:
        """The network of new machines, which is looked for once, so that a creation sent again is the same."""
        if owner not in self._networks:
            self._networks[owner] = network.choose(self._api, self._config, owner)
        return self._networks[owner]

    def _found(self, spec: InstanceSpec) -> Instance | None:
        """The machine of `spec`, if it can be seen. CloudError for one of its name that is another."""
        try:
            found = self.get(machines.instance_id(spec.offer.zone, spec.name))
        except InstanceNotFound:
            return None
        if found.tags.get(TAG_VM) != spec.vm or found.tags.get(TAG_OWNER) != spec.owner:
            raise CloudError(
                f"{spec.offer.zone} has another VM named {spec.name}",
                fault=Fault.name_taken,
                cloud_code="alreadyExists",
                hint="it was not made for this job and was left alone; look at it in the console",
            )
        return found

    def _adopted(self, spec: InstanceSpec, refused: CloudError) -> Instance:
        """The machine that stood in the way of the creation of `spec`, if it is the one of `spec`."""
        found = self._found(spec)
        if found is None:
            # Something else has the name, such as a disk; or the machine has gone in this moment.
            raise CloudError(
                f"the name {spec.name} is taken in {spec.offer.zone}: {refused.message}",
                fault=Fault.name_taken,
                cloud_code=refused.cloud_code,
                hint="what has it was left alone; look for it among VMs and disks in the console",
            ) from refused
        return found


def _accepted(spec: InstanceSpec) -> Instance:
    """A machine whose creation was accepted and that cannot be seen yet."""
    return Instance(
        id=machines.instance_id(spec.offer.zone, spec.name),
        name=spec.name,
        on=configuration.ON,
        state=InstanceState.pending,
        region=spec.offer.region,
        zone=spec.offer.zone,
        instance_type=spec.offer.instance_type,
        tags=dict(spec.tags),
    )


def _not_found(id: str) -> InstanceNotFound:
    return InstanceNotFound(
        f"Compute Engine has no VM {id[:120]}", hint="it was deleted, or deleted itself at its deadline"
    )
