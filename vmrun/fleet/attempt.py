"""One offer taken: an intent of its own, a create call, a machine made ready; or nothing of it left behind."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmrun.core import codec, keys
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_PROOF,
    TAG_VM,
    CloudError,
    Instance,
    InstanceSpec,
    Offer,
    instance_name,
)
from vmrun.core.errors import KeyExists, Unreachable
from vmrun.core.ids import new_id
from vmrun.core.records import Hold, Intent
from vmrun.core.vm_ledger import VmLedger

from .address import lost
from .budget import lifetime, price, told
from .deck import Deck, OnStage
from .doubt import clear_up
from .guards import make_proof
from .membership import join
from .order import Order
from .process import ProcessBringUp
from .removal import case_of, remove
from .retire import WATCH, retire
from .sending import Sending
from .sight import mounts

if TYPE_CHECKING:
    from .ssh import SshBringUp

log = logging.getLogger(__name__)

#: Last lines, and characters of each, that an error shows of the machine's console.
CONSOLE_LINES, CONSOLE_WIDTH = 12, 200


class Attempt:
    """One VM id, and what becomes of it."""

    def __init__(self, deck: Deck, order: Order, offer: Offer, on_stage: OnStage) -> None:
        self._deck = deck
        self._order = order
        self._offer = offer
        self._on_stage = on_stage
        self._provisioner = deck.provisioner(offer.on)
        self._extras = deck.extras(offer, order.need)
        self._price = price(offer, self._extras)
        self.vm = new_id(deck.desk.clock, deck.desk.rng)
        #: Whether it is certain what exists of it.
        self.clear = True

    def run(self) -> str:
        """The id of the VM, ready. Raises CloudError or Unreachable when it did not come to that, and gave back."""
        desk = self._deck.desk
        bound = lifetime(self._order, self._price)
        hard_deadline = float(int(desk.clock.now() + bound))
        transport = self._provisioner.capabilities.transport
        machine = _way_in(transport)(self._deck, self._order, self.vm, self._on_stage)
        spec = self._spec(machine, hard_deadline, bound)
        self._deck.begun(self.vm)
        ledger = self._intend(spec)
        cost = told(self._price, bound)
        self._on_stage(f"creating {self._offer.instance_type} on {self._offer.on}{_where(self._offer)}{cost}")
        try:
            instance = self._create(ledger, spec)
            self._note(ledger, instance)
            self._deck.joined(self.vm)
            self._make_ready(machine, ledger, instance, hard_deadline)
        except BaseException as error:
            # Whatever ended this, a signal included: what was made is given back before it is passed on.
            kept = isinstance(error, Unreachable) and self._keep(machine, ledger, hard_deadline, error)
            if not kept and ledger.fold.failed is None and ledger.fold.delete is None:
                # A person who leaves does not wait for what the reaper, or who goes on with the job, will see.
                watch = 0.0 if isinstance(error, KeyboardInterrupt) or self._deck.leaving() else WATCH
                retire(self._deck.undisturbed(), self.vm, "could not be made ready", self._on_stage, watch=watch)
            raise
        return self.vm

    def _keep(
        self, machine: ProcessBringUp | SshBringUp, ledger: VmLedger, hard_deadline: float, error: Unreachable
    ) -> bool:
        """Whether the machine, of which no agent came, is held for debugging, as its job asked for that."""
        asked = self._deck.desk.clock.now() + self._order.keep_on_failure
        until = min(asked, hard_deadline)
        if not self._order.keep_on_failure or ledger.fold.ended:
            return False
        try:
            if not machine.keep(until):
                return False
        except Unreachable as second:
            log.info("event=not-held vm=%s error=%s", self.vm, second.message)
            return False
        hold = Hold(
            "",
            until,
            f"it could not be made ready: {error.message[:200]}",
            "hold on failure" if until == asked else "maximum lifetime",
        )
        if not ledger.hold(hold, jobs=1):
            return False
        error.hint = f"`vmrun ssh {self.vm}` looks at the machine, `vmrun release {self.vm}` gives it back" + (
            f"; {error.hint}" if error.hint else ""
        )
        return True

    def _spec(self, machine: ProcessBringUp | SshBringUp, hard_deadline: float, bound: float) -> InstanceSpec:
        owner = self._deck.deployment
        return InstanceSpec(
            vm=self.vm,
            owner=owner,
            name=instance_name(owner, self.vm),
            offer=self._offer,
            user_data=machine.user_data(hard_deadline, self._provisioner.capabilities),
            hard_deadline=hard_deadline,
            tags=self._tags(owner, str(int(hard_deadline))),
            mounts=mounts(self._provisioner, self._deck.store_access(self._offer.on, bound).url),
            disk=self._order.need.disk,
            host_key=machine.host_key,
        )

    def _tags(self, owner: str, deadline: str) -> dict[str, str]:
        signer, offer = self._deck.desk.signer, self._offer
        assert signer is not None, "whoever makes machines signs"
        proof = make_proof(signer, instance_name(owner, self.vm), offer.on, offer.region, deadline)
        return {TAG_OWNER: owner, TAG_VM: self.vm, TAG_DEADLINE: deadline, TAG_PROOF: proof}

    def _intend(self, spec: InstanceSpec) -> VmLedger:
        desk = self._deck.desk
        if self._order.pool:
            join(self._deck, self._order.pool, self.vm)
        ledger = VmLedger(desk, self.vm)
        try:
            desk.store.create(keys.vm_index(self.vm), b"")
        except KeyExists:
            raise AssertionError("a fresh id was used before") from None
        if not ledger.intend(self._intent(spec)):
            raise Unreachable(f"{spec.name} was given up before it was created", hint="run the command again")
        return ledger

    def _intent(self, spec: InstanceSpec) -> Intent:
        order, offer = self._order, spec.offer
        return Intent(
            vm=spec.vm,
            deployment=spec.owner,
            on=offer.on,
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
            spot=offer.spot,
            disk=spec.disk,
            disk_usd_per_hour=self._extras.disk,
            address_usd_per_hour=self._extras.address,
            max_cost=order.max_cost,
            poweroff_deletes=self._provisioner.capabilities.poweroff_deletes,
            environment=order.environment,
            pool=order.pool,
            stay_until=order.stay_until,
        )

    def _create(self, ledger: VmLedger, spec: InstanceSpec) -> Instance:
        sending = Sending(self._deck.desk.clock, self._deck.desk.rng)
        try:
            return sending.send(lambda: self._provisioner.create(spec))
        except CloudError as error:
            if sending.doubted:
                self.clear = False
                self.clear = clear_up(self._deck, self._provisioner, ledger, sending.last, self._on_stage)
            else:
                ledger.failed(error.fault.value, error.message)
            raise

    def _note(self, ledger: VmLedger, instance: Instance) -> None:
        """Write down that it was accepted. Raises Unreachable if somebody condemned it meanwhile."""
        if ledger.created(instance.id) or not ledger.fold.ended:
            return
        # Whoever did so may have looked before its cloud showed it, and calls it gone.
        case = case_of(self._deck, self.vm, self._offer.on, instance, ledger.fold)
        remove(self._deck, case, "it was condemned while it was created")
        raise Unreachable(f"{instance.name} was given back while it was created", hint="run the command again")

    def _make_ready(
        self, machine: ProcessBringUp | SshBringUp, ledger: VmLedger, instance: Instance, hard_deadline: float
    ) -> None:
        try:
            machine.make_ready(ledger, self._provisioner, instance, hard_deadline)
        except Unreachable as error:
            # A machine that its cloud took back cannot be reached either, and then another offer helps.
            taken = lost(self._provisioner, instance.id)
            if taken is not None:
                raise taken from error
            error.data["console"] = self._console(instance.id)
            raise

    def _console(self, instance_id: str) -> list[str]:
        try:
            text = self._provisioner.boot_log(instance_id)
        except CloudError as error:
            log.info("event=no-console vm=%s error=%s", self.vm, error.message)
            return []
        return [line[:CONSOLE_WIDTH] for line in text.splitlines() if line.strip()][-CONSOLE_LINES:]


def _way_in(transport: str) -> type[ProcessBringUp | SshBringUp]:
    if transport == "process":
        return ProcessBringUp
    # A job on this machine needs neither SSH nor a built agent, and should not wait for their import.
    from .ssh import SshBringUp

    return SshBringUp


def _where(offer: Offer) -> str:
    place = offer.zone or offer.region
    return f" in {place}" if place and offer.usd_per_hour != 0 else ""
