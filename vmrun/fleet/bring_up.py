"""From an order to a machine whose agent works: warm if there is one, otherwise the cheapest offer that can be had."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmrun.core import codec, keys
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_VM,
    CloudError,
    Fault,
    Instance,
    InstanceSpec,
    Need,
    Offer,
    Provisioner,
    instance_name,
)
from vmrun.core.crew import fits
from vmrun.core.errors import CapacityError, Denied, KeyExists, Unreachable, UsageError, VmrunError
from vmrun.core.ids import new_id
from vmrun.core.ledger import VmLedger
from vmrun.core.records import Intent
from vmrun.core.units import format_size

from .deck import Deck, OnStage
from .order import Order
from .process import ProcessBringUp
from .retire import retire
from .warm import take_warm

if TYPE_CHECKING:
    from .ssh import SshBringUp

log = logging.getLogger(__name__)

#: Offers that one order tries at most.
TRIES_MAX = 20
#: Faults after which another offer of the same cloud would fail too.
HOPELESS = (Fault.permission, Fault.config, Fault.billing)


@dataclass(frozen=True, slots=True)
class Tried:
    """An offer that was tried, and why it was not to be had."""

    offer: Offer
    fault: Fault
    message: str


def bring_up(deck: Deck, order: Order, on_stage: OnStage) -> str:
    """A machine for the order's job, its agent let in; the VM's id.

    Raises CapacityError with what was tried, Denied, Unreachable. Nothing that was made stays behind.
    """
    warm = take_warm(deck, order)
    if warm is not None:
        on_stage(f"taking the warm VM {warm}")
        return warm
    provisioner = deck.provisioner(order.on)
    offers = _ranked(provisioner, order)[:TRIES_MAX]
    if offers:
        provisioner.prepare()
    tried: list[Tried] = []
    for offer in offers:
        try:
            return _rent(deck, order, provisioner, offer, on_stage)
        except CloudError as error:
            tried.append(Tried(offer, error.fault, error.message))
            log.info("event=offer-failed type=%s zone=%s fault=%s", offer.instance_type, offer.zone, error.fault.value)
            if error.fault in HOPELESS:
                raise _explain(order, tried, error) from error
    raise _explain(order, tried, None)


def _ranked(provisioner: Provisioner, order: Order) -> list[Offer]:
    """What fits, cheapest first; offers without a price last."""
    need = order.need
    offers: Iterable[Offer] = (offer for offer in provisioner.offers(need) if fits(offer.memory, need.task_memory))
    return sorted(offers, key=lambda offer: (offer.usd_per_hour is None, offer.usd_per_hour or 0.0, offer.vcpus))


def _rent(deck: Deck, order: Order, provisioner: Provisioner, offer: Offer, on_stage: OnStage) -> str:
    desk = deck.desk
    vm = new_id(desk.clock, desk.rng)
    name = instance_name(deck.deployment, vm)
    hard_deadline = float(int(desk.clock.now() + order.max_lifetime))
    machine = _way_in(provisioner.capabilities.transport)(deck, order, vm, on_stage)
    user_data = machine.user_data(hard_deadline)
    access = deck.store_access(order.on)
    spec = InstanceSpec(
        vm=vm,
        owner=deck.deployment,
        name=name,
        offer=offer,
        user_data=user_data,
        hard_deadline=hard_deadline,
        tags={TAG_OWNER: deck.deployment, TAG_VM: vm, TAG_DEADLINE: str(int(hard_deadline))},
        mounts=_mounts(provisioner, access.url),
        disk=order.need.disk,
        host_key=machine.host_key,
    )
    ledger = VmLedger(desk, vm)
    try:
        desk.store.create(keys.vm_index(vm), b"")
    except KeyExists:
        raise AssertionError("a fresh id was used before") from None
    if not ledger.intend(_intent(deck, order, spec)):
        raise Unreachable(f"{name} was given up before it was created", hint="run the command again")
    on_stage(f"creating {offer.instance_type} on {order.on}")
    try:
        instance = _create(ledger, provisioner, spec)
        ledger.created(instance.id)
        machine.make_ready(ledger, provisioner, instance, hard_deadline)
    except CloudError:
        if ledger.fold.failed is None:
            retire(deck, vm, "could not be made ready", on_stage)
        raise
    except BaseException:
        # Whatever ended this, a signal included: what was made is given back before it is passed on.
        retire(deck, vm, "could not be made ready", on_stage)
        raise
    return vm


def _way_in(transport: str) -> type[ProcessBringUp | SshBringUp]:
    if transport == "process":
        return ProcessBringUp
    # A job on this machine needs neither SSH nor a built agent, and should not wait for their import.
    from .ssh import SshBringUp

    return SshBringUp


def _intent(deck: Deck, order: Order, spec: InstanceSpec) -> Intent:
    offer = spec.offer
    return Intent(
        vm=spec.vm,
        deployment=deck.deployment,
        on=order.on,
        name=spec.name,
        region=offer.region,
        zone=offer.zone,
        instance_type=offer.instance_type,
        vcpus=offer.vcpus,
        memory=offer.memory,
        arch=offer.arch,
        usd_per_hour=offer.usd_per_hour,
        user_data=codec.sha256(spec.user_data.encode()),
        hard_deadline=spec.hard_deadline,
        boot_grace=order.timings.boot_grace,
        job=order.job,
        keep_warm=order.keep_warm,
    )


def _create(ledger: VmLedger, provisioner: Provisioner, spec: InstanceSpec) -> Instance:
    try:
        return provisioner.create(spec)
    except CloudError as error:
        # A definite refusal; in doubt the intent stays open and the VM is given back like one that exists.
        if error.fault is not Fault.unavailable and error.fault is not Fault.unknown:
            ledger.failed(error.fault.value, error.message)
        raise


def _mounts(provisioner: Provisioner, url: str) -> tuple[str, ...]:
    if not url.startswith("file://") or provisioner.capabilities.transport == "process":
        return ()
    if not provisioner.capabilities.mounts:
        raise UsageError(
            f"a machine on {provisioner.name} cannot see the store {url}, a directory of this machine",
            hint="choose an object store: --store is `store.url` in vmrun.toml, for instance s3://bucket/prefix",
        )
    return (url.removeprefix("file://"),)


def nothing_fits(on: str, need: Need) -> CapacityError:
    """The error for a need that no offer meets."""
    wanted = [f"{need.cpus} CPUs"] if need.cpus else []
    wanted += [f"{format_size(need.memory)} of memory"] if need.memory else []
    wanted += [f"tasks of {format_size(need.task_memory)}"] if need.task_memory else []
    wanted += [f"{format_size(need.disk)} of disk"] if need.disk else []
    wanted += [text for text in (need.instance_type, need.arch, need.region, need.zone) if text]
    return CapacityError(
        f"nothing on {on} fits {', '.join(wanted) or 'this job'}",
        hint="ask for less, or choose another cloud with --on",
    )


def _explain(order: Order, tried: list[Tried], last: CloudError | None) -> VmrunError:
    if not tried:
        return nothing_fits(order.on, order.need)
    table = "; ".join(
        f"{each.offer.instance_type} in {each.offer.zone or each.offer.region or each.offer.on}: "
        f"{each.fault.value} ({each.message})"
        for each in tried
    )
    hint = last.hint if last is not None else "try again later, or choose another --region, --instance-type or --on"
    if last is not None and last.fault is Fault.permission:
        return Denied(f"not allowed on {order.on}: {table}", hint=hint)
    if last is not None and last.fault is Fault.config:
        return UsageError(last.message, hint=hint)
    return CapacityError(f"no machine was to be had: {table}", hint=hint)
