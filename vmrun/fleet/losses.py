"""What one client knows of machines that its jobs lost, and whether it is the one to replace them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cached_property

from vmrun.core.clouds import CloudError
from vmrun.core.errors import VmrunError
from vmrun.core.folds import VmFold
from vmrun.core.ids import new_id
from vmrun.core.outgrown import Outgrown
from vmrun.core.vm_ledger import VmLedger
from vmrun.watch.observe import readable

from .deck import Deck
from .lookout import ORDINARY
from .memory import Memory
from .order import Order
from .replacing import PATIENCE, after_losses, losses, short_of
from .retire import WATCH, close_if_gone, retire

log = logging.getLogger(__name__)


class Losses:
    """By job; for one client, whose deck is opened at the first use."""

    def __init__(self, deck: Callable[[], Deck]) -> None:
        self._deck = deck
        self._known: dict[str, list[VmFold]] = {}
        #: Journals of machines that are asked after every few seconds, each read further.
        self._ledgers: dict[str, VmLedger] = {}
        #: Machines that are being ended, and may not be gone yet.
        self._leaving: set[str] = set()
        #: When they were last looked at, on the monotonic clock.
        self._seen_off = float("-inf")

    @cached_property
    def _word(self) -> str:
        """By which this client knows again what it took on."""
        desk = self._deck().desk
        return new_id(desk.clock, desk.rng)

    def order(self, order: Order, outgrown: Iterable[Outgrown] = ()) -> Order:
        """The order for a machine after what its job lost. Raises CapacityError or BudgetError: no more of them.

        What passed since the job outgrew a machine is taken off the order's lifetime already.
        """
        until = min((each.since for each in outgrown), default=float("inf"))
        return after_losses(order, self._known.get(order.job, ()), self._deck().desk.clock.now(), until)

    def take_on(self, job: str, vms: Iterable[str], outgrown: Iterable[Outgrown] = ()) -> bool:
        """Whether this client is to replace these, none of which works for the job any more; false: another one does.

        The latest of them is deleted, as it does nothing but cost money. Those that the job has `outgrown` are no
        losses, and are not deleted; but they, too, have one successor.
        """
        deck = self._deck()
        now = deck.desk.clock.now()
        lost = losses(self._folds([*self.vms(job), *vms]), job)
        small = [fold for fold in self._folds(each.vm for each in outgrown) if fold.ready is not None]
        # All that look see the same one to be the last, and so want the same word.
        last = max([*lost, *small], key=lambda fold: fold.ready_at, default=None)
        if last is not None and not VmLedger(deck.desk, _id(last)).relieve(self._word, PATIENCE, now):
            return False
        if lost and last is lost[-1]:
            if not retire(deck, _id(last), "it left its job", _silent, watch=0.0):
                self._leaving.add(_id(last))
            Memory(deck.cache_dir).note(short_of(lost[-1:], now), now)
        self._known[job] = lost
        return True

    def took_on(self, job: str) -> bool:
        """Whether this client has taken on to get the job another machine, be it for one that was lost or outgrown."""
        return job in self._known

    def is_lost(self, vm: str) -> bool:
        """Whether nothing more can come of a machine: it left, its cloud has it no more, or it is held or condemned."""
        deck = self._deck()
        ledger = self._ledgers.setdefault(vm, VmLedger(deck.desk, vm))
        try:
            fold = ledger.refresh()
            if fold.drain is not None or fold.hold is not None:
                return True
            if close_if_gone(deck, vm, leaving=True, ledger=ledger):
                self._leaving.add(vm)
                return True
            # Nobody works on a machine that is condemned, though its cloud may still have it.
            return fold.delete is not None
        except CloudError as error:
            # A cloud that does not answer has not said that the VM is gone.
            log.info("event=not-looked-up vm=%s error=%s", vm, error.message)
            return False

    def see_off(self) -> None:
        """Note which of those are gone by now: until then each counts as one that costs money.

        Every few seconds at most, however often it is called: each is a few requests, and some take long to end.
        """
        now = self._deck().desk.clock.monotonic()
        if not self._leaving or now - self._seen_off < ORDINARY:
            return
        self._seen_off = now
        self._leaving -= {vm for vm in self._leaving if retire(self._deck(), vm, "it left its job", _silent, watch=0.0)}

    def close(self, job: str, watch: float = WATCH) -> None:
        """See to it that those are gone, for `watch` seconds each."""
        for vm in self.vms(job):
            retire(self._deck(), vm, "it left its job", _silent, watch=watch)
        self._known.pop(job, None)
        self._ledgers.clear()

    def vms(self, job: str) -> list[str]:
        """The machines that the job lost, as far as this client knows of them."""
        return [_id(fold) for fold in self._known.get(job, ())]

    def _folds(self, vms: Iterable[str]) -> list[VmFold]:
        # What cannot be read does not count; the reaper deals with it.
        folds = (readable(VmLedger(self._deck().desk, vm)) for vm in dict.fromkeys(vms))
        return [fold for fold in folds if fold is not None]


def with_ways(error: VmrunError, job: str) -> VmrunError:
    """The error that kept a job from its machine, with what can be done about it."""
    ways = f"job {job} waits: `vmrun wait {job}` tries again, `vmrun cancel {job}` gives it up"
    error.hint = f"{error.hint}; {ways}" if error.hint else ways
    return error


def _id(fold: VmFold) -> str:
    assert fold.intent is not None, "what was made ready was intended"
    return fold.intent.vm


def _silent(_: str) -> None:
    return
