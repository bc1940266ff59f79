"""What a reaper knows of its VMs: journals read further and further, heartbeats seen to change, or not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from vmrun.core import keys
from vmrun.core.clouds import Instance
from vmrun.core.errors import StoreError, StoreUnavailable
from vmrun.core.folds import LEFT, VmFold
from vmrun.core.heartbeats import read_heartbeat, read_heartbeat_entry
from vmrun.core.ids import is_id
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet.deck import Deck
from vmrun.fleet.guards import stranger
from vmrun.fleet.removal import case_of

from .policies import Observed

log = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")

#: Seconds that a SUSPECT stands before it counts.
CONTEST = 90.0
#: Reads at the same time: a remote store answers each in some milliseconds, whatever else it is asked.
READERS = 16
#: VMs that are not worth threads.
FEW = 8
#: VMs after which a store that gives no answer is not asked about further ones in the same pass.
UNANSWERED = 3


@dataclass(frozen=True, slots=True)
class Sighting:
    """The last heartbeat that this reaper saw of a VM, and since when it has not changed."""

    counter: int
    since: float
    suspected_since: float | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A VM's id, and the instances that bear its name in the listings; none for one that only the store knows."""

    vm: str
    instances: tuple[Instance, ...] = ()


class Observer:
    """Keeps, of each VM in the listings or the index, what was read and seen of it, from one pass to the next."""

    def __init__(self, deck: Deck, dead_after: float) -> None:
        self._deck = deck
        self._dead_after = dead_after
        self.sightings: dict[str, Sighting] = {}
        self._ledgers: dict[str, VmLedger] = {}
        self._unanswered = 0

    def indexed(self) -> list[str]:
        """Ids of the VMs that the store does not know to be gone. Raises StoreError."""
        found = (entry.key[len(keys.VMS_INDEX) :] for entry in self._deck.desk.store.list(keys.VMS_INDEX))
        return [vm for vm in found if is_id(vm)]

    def drivers(self) -> set[str]:
        """The drivers that VMs in the index were intended on. Raises StoreError for an index that cannot be read."""
        self._unanswered = 0
        return set(_each(self._driver, self.indexed())) - {""}

    def _driver(self, vm: str) -> str:
        if self._unanswered >= UNANSWERED:
            return ""
        ledger = self._ledger(vm)
        try:
            if not ledger.seen:
                # The intent comes first; the rest is read when the clouds have been listed.
                next(ledger.read(), None)
        except StoreError as error:
            self._count(error)
            return ""
        intent = ledger.fold.intent
        return intent.on if intent is not None else ""

    def look(self, shown: Sequence[Shown]) -> list[Observed]:
        """The fact sheets of these VMs, in their order, with one of each instance that is a stranger to its VM."""
        self._unanswered = 0
        return [facts for found in _each(self._look_at, shown) for facts in found]

    def forget_others(self, vms: set[str]) -> None:
        """Keep nothing of VMs that are not among these."""
        self._ledgers = {vm: ledger for vm, ledger in self._ledgers.items() if vm in vms}
        self.sightings = {vm: sighting for vm, sighting in self.sightings.items() if vm in vms}

    def _ledger(self, vm: str) -> VmLedger:
        ledger = self._ledgers.get(vm)
        if ledger is None:
            ledger = self._ledgers[vm] = VmLedger(self._deck.desk, vm)
        return ledger

    def _look_at(self, shown: Shown) -> list[Observed]:
        fold, unreadable = self._read(shown.vm)
        itself, others = self._told_apart(shown, fold)
        on = itself.on if itself is not None else fold.intent.on if fold is not None and fold.intent else ""
        facts = Observed(
            shown.vm,
            on,
            itself,
            fold,
            self._deck.desk.clock.now(),
            seen=self._ledger(shown.vm).seen,
            dead_after=self._dead_after,
            unreadable=unreadable,
            stranger=others.pop(itself.id, "") if itself is not None else "",
        )
        if fold is not None and fold.ready is not None and itself is not None and not unreadable:
            facts = self._listen(facts)
        elif itself is None and fold is not None and fold.ready is not None and fold.phase not in LEFT:
            facts = self._hear(facts)
        apart = [
            Observed(shown.vm, each.on, each, fold, facts.now, unreadable=unreadable, stranger=others[each.id])
            for each in shown.instances
            if each is not itself
        ]
        return [facts, *apart]

    def _read(self, vm: str) -> tuple[VmFold | None, bool]:
        """What the VM's journal says, None if there is none; and whether there may be one that cannot be read."""
        if self._unanswered >= UNANSWERED:
            return None, True
        try:
            fold = self._ledger(vm).refresh()
        except StoreError as error:
            log.error("event=journal-not-read vm=%s error=%s", vm, error.message)
            self._count(error)
            return None, True
        return (fold if fold.intent is not None else None), False

    def _told_apart(self, shown: Shown, fold: VmFold | None) -> tuple[Instance | None, dict[str, str]]:
        """The instance that is the VM, if any may be; and of each that is a stranger to it why, by identifier."""
        bearers, reasons = max(len(shown.instances), 1), {}
        for each in shown.instances:
            case = replace(case_of(self._deck, shown.vm, each.on, each, fold), bearers=bearers)
            reasons[each.id] = stranger(case)
        itself = next((each for each in shown.instances if not reasons[each.id]), None)
        if itself is None and fold is None:
            itself = next(iter(shown.instances), None)
        return itself, reasons

    def _listen(self, facts: Observed) -> Observed:
        desk, vm = self._deck.desk, facts.vm
        try:
            beat = read_heartbeat(desk.store, vm, desk.keyring)
        except StoreError as error:
            self._count(error)
            return replace(facts, fold=None, unreadable=True)
        assert facts.fold is not None
        counter, now = (-1 if beat is None else beat.counter), desk.clock.monotonic()
        before = self.sightings.get(vm)
        if before is None or before.counter != counter:
            before = Sighting(counter, now)
        first = before.suspected_since if before.suspected_since is not None else now
        suspected = first if facts.fold.suspected else None
        self.sightings[vm] = replace(before, suspected_since=suspected)
        contested = suspected is not None and now - suspected >= CONTEST
        busy = beat.busy if beat is not None else ""
        # What its agent said before it saw the last entry may be about a time before its last job.
        idle = beat.idle if beat is not None and not busy and beat.seen >= facts.seen else None
        return replace(facts, silent=now - before.since, contested=contested, busy=busy, idle=idle)

    def _hear(self, facts: Observed) -> Observed:
        """When a VM that no cloud shows gave its last sign of life. It only ever delays that it is called gone."""
        desk = self._deck.desk
        try:
            beat = read_heartbeat_entry(desk.store, facts.vm, desk.keyring)
        except StoreError as error:
            self._count(error)
            return replace(facts, fold=None, unreadable=True)
        return replace(facts, heard=facts.now - beat.at) if beat is not None else facts

    def _count(self, error: StoreError) -> None:
        self._unanswered += isinstance(error, StoreUnavailable)


def _each(work: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """What `work` gives for each item, in their order; many are seen to at the same time."""
    known = list(items)
    if len(known) <= FEW:
        return [work(item) for item in known]
    with ThreadPoolExecutor(READERS, thread_name_prefix="vmrun-reaper") as pool:
        return list(pool.map(work, known))
