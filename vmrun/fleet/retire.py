"""Giving a machine back: condemned in its journal first, then deleted, then seen to be gone."""

from __future__ import annotations

import logging

from vmrun.core import keys
from vmrun.core.clouds import InstanceNotFound, InstanceState, Provisioner
from vmrun.core.errors import VmrunError
from vmrun.core.folds import VmFold
from vmrun.core.heartbeats import read_heartbeat_entry
from vmrun.core.ledger import JobLedger
from vmrun.core.vm_ledger import VmLedger

from .deck import Deck, OnStage, Session
from .guards import Case
from .leftovers import discard_leftovers
from .removal import find_case, remove
from .sending import Sending

log = logging.getLogger(__name__)

#: Seconds that a deletion is watched.
WATCH = 120.0
#: Seconds between looks: the first, and the longest.
PAUSE, LONGEST = 0.2, 5.0


def retire(  # noqa: PLR0913 -- the options say what must still hold, and for how long to look
    deck: Deck,
    vm: str,
    why: str,
    on_stage: OnStage,
    *,
    seen: int | None = None,
    jobs: int | None = None,
    watch: float = WATCH,
    by: str = "client",
) -> bool:
    """Delete the VM; whether it was seen to be gone, within `watch` seconds.

    Not if its journal has more entries than `seen`, or gives it other than `jobs` jobs: somebody took it meanwhile.
    Safe to call again and from several clients. Never raises for what the reaper will finish.
    """
    ledger = VmLedger(deck.desk, vm)
    try:
        fold = ledger.refresh()
        if fold.gone is None and fold.intent is not None:
            if not ledger.delete(why, by, seen=seen, jobs=jobs) and not ledger.fold.ended:
                return False  # somebody took it meanwhile
            provisioner = deck.provisioner(fold.intent.on)
            on_stage(f"giving back {fold.intent.name}")
            # A deletion may be sent again whatever came of it; what it is judged by is looked up anew.
            case = Sending(deck.desk.clock, deck.desk.rng).send(lambda: _removed(deck, vm, ledger.fold, why))
            if not _gone(deck, case, why, watch) or _may_appear(deck, provisioner, fold, case.id):
                on_stage(f"{fold.intent.name} is, or may be, still there; `vmrun reap` will finish it")
                return False
            ledger.gone("not found after delete")
            discard_leftovers(deck, provisioner, vm, on_stage)
        deck.desk.store.delete(keys.vm_index(vm))
        Session.of(deck, vm).remove()
    except VmrunError as error:
        log.warning("event=retire-failed vm=%s error=%s", vm, error.message)
        on_stage(f"{vm} could not be given back yet ({error.message}); `vmrun reap` will finish it")
        return False
    return True


def give_back(deck: Deck, vm: str, job: str, what: str = "ended", *, watch: float = WATCH) -> None:
    """Delete the VM of a job that ended, or did what `what` says, unless it is to stay or has another job.

    It stays warm, or for debugging. Returns when it is seen to be gone, or after `watch` seconds.
    """
    if JobLedger(deck.desk, job).refresh().may_be_held:
        return  # its agent decides, and ends it
    fold = VmLedger(deck.desk, vm).refresh()
    if fold.jobs[-1:] == [job] and not (fold.stays(deck.desk.clock.now()) and fold.assignable):
        retire(deck, vm, f"job {job} {what}", lambda _: None, jobs=len(fold.jobs), watch=watch)


def close_if_gone(deck: Deck, vm: str, *, leaving: bool = False, ledger: VmLedger | None = None) -> bool:
    """Note in its journal that a VM is no more, if its cloud does not have it; whether it is gone.

    With `leaving`, one that is just ending counts as gone too, and is condemned: that may take a minute, and none comes
    back from there. A VM that was intended but not seen yet may still appear: it counts as gone only after its boot
    grace, and one that its cloud has just accepted only when that has had the time to show it. Of a journal that was
    read before, as far as `ledger` says, only what is new is read.
    """
    ledger = ledger or VmLedger(deck.desk, vm)
    fold = ledger.refresh()
    if fold.intent is None or fold.gone is not None:
        return True
    provisioner = deck.provisioner(fold.intent.on)
    identifier = _identifier(deck, provisioner, fold.cloud_id, fold.intent.name)
    now = deck.desk.clock.now()
    try:
        state = provisioner.get(identifier).state
    except InstanceNotFound:
        if now < _unseen_until(fold, provisioner):
            return False
        state = InstanceState.gone
    if state is InstanceState.stopped:
        # Where a power-off only stops it, what is left of it still costs money.
        gone = retire(deck, vm, "it is powered off", lambda _: None, watch=0.0 if leaving else WATCH)
        return gone or (leaving and ledger.refresh().ended)
    if state is InstanceState.stopping and leaving:
        ledger.delete("its cloud is ending it", "client")
        return True
    there = state is not InstanceState.gone
    young = not fold.cloud_id and now < fold.intended_at + fold.intent.boot_grace
    if there or young:
        return False
    ledger.delete("its cloud does not have it any more", "client")
    ledger.gone("not found", ended_by(deck, fold))
    # Not every cloud takes a machine's address along when it takes back the machine.
    discard_leftovers(deck, provisioner, vm, lambda _: None)
    deck.desk.store.delete(keys.vm_index(vm))
    Session.of(deck, vm).remove()
    return True


def ended_by(deck: Deck, fold: VmFold) -> float:
    """When a VM that is not found had ended at the latest, so that it is not paid for until it is missed.

    A machine whose agent gives no sign of life ends with its lease, by its own timer. 0 where that says nothing.
    Raises StoreError.
    """
    assert fold.intent is not None
    if fold.ready is None or fold.hold is not None:
        return 0.0
    beat = read_heartbeat_entry(deck.desk.store, fold.intent.vm, deck.desk.keyring)
    timings = deck.timings(fold.intent.on)
    last = max(fold.ready_at, beat.at if beat is not None else 0.0)
    return last + timings.lease + timings.deadman_poll + timings.flush_grace


def _identifier(deck: Deck, provisioner: Provisioner, cloud_id: str, name: str) -> str:
    """What the cloud calls the VM. If its creation was never answered, it is looked for by its name in the listing."""
    if cloud_id:
        return cloud_id
    return next((each.id for each in provisioner.instances(deck.deployment) if each.name == name), name)


def _may_appear(deck: Deck, provisioner: Provisioner, fold: VmFold, identifier: str) -> bool:
    """Whether an instance that was asked for, and never seen, may still turn up in the listing."""
    assert fold.intent is not None
    unseen = not fold.cloud_id and fold.failed is None and identifier == fold.intent.name
    return unseen and deck.desk.clock.now() < fold.intended_at + provisioner.capabilities.settle


def _removed(deck: Deck, vm: str, fold: VmFold, why: str) -> Case:
    """What was known of the instance when its cloud took the deletion."""
    assert fold.intent is not None
    case = find_case(deck, vm, fold.intent.on, fold)
    remove(deck, case, why)
    return case


def _gone(deck: Deck, case: Case, why: str, watch: float) -> bool:
    """Whether the instance is seen to be gone. A new one that its cloud has not shown yet may exist all the same."""
    clock, provisioner = deck.desk.clock, deck.provisioner(case.on)
    deadline, pause = clock.monotonic() + watch, PAUSE
    fold, seen = case.fold, case.instance is not None
    unseen_until = 0.0 if seen or fold is None else _unseen_until(fold, provisioner)
    while True:
        try:
            state: InstanceState | None = provisioner.get(case.id).state
        except InstanceNotFound:
            state = None if clock.now() < unseen_until else InstanceState.gone
        if state is InstanceState.gone:
            return True
        if unseen_until and state is not InstanceState.stopping:
            # The deletion before may not have found it either.
            remove(deck, case, why)
        unseen_until = unseen_until if state is None else 0.0
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(pause)
        pause = min(pause * 1.3, LONGEST)


def _unseen_until(fold: VmFold, provisioner: Provisioner) -> float:
    """Until when it proves nothing that the instance is not found: clouds may show late what they have accepted."""
    accepted = bool(fold.cloud_id) and fold.ready is None
    return fold.created_at + provisioner.capabilities.settle if accepted else 0.0
