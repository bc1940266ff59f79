"""What one client knows of machines that its jobs lost, and whether it is the one to replace them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property

from vmrun.core.errors import Corrupt, SchemaError, VmrunError
from vmrun.core.folds import VmFold
from vmrun.core.ids import new_id
from vmrun.core.vm_ledger import VmLedger

from .deck import Deck
from .memory import Memory
from .order import Order
from .replacing import PATIENCE, after_losses, losses, short_of
from .retire import retire


class Losses:
    """By job; for one client, whose deck is opened at the first use."""

    def __init__(self, deck: Callable[[], Deck]) -> None:
        self._deck = deck
        self._known: dict[str, list[VmFold]] = {}
        #: Machines that are on their way out.
        self._leaving: set[str] = set()

    @cached_property
    def _word(self) -> str:
        """By which this client knows again what it took on."""
        desk = self._deck().desk
        return new_id(desk.clock, desk.rng)

    def order(self, order: Order) -> Order:
        """The order for a machine after what its job lost. Raises CapacityError or BudgetError: no more of them."""
        return after_losses(order, self._known.get(order.job, ()), self._deck().desk.clock.now())

    def take_on(self, job: str, vms: Iterable[str]) -> bool:
        """Whether this client is to replace these, none of which works for the job any more; false: another one does.

        The latest of them is deleted, as it does nothing but cost money.
        """
        deck = self._deck()
        now, folds = deck.desk.clock.now(), []
        for vm in dict.fromkeys([*self.vms(job), *vms]):
            # What cannot be read does not count; the reaper deals with it.
            with suppress(Corrupt, SchemaError):
                folds.append(VmLedger(deck.desk, vm).refresh())
        lost = losses(folds, job)
        if lost:
            assert lost[-1].intent is not None, "what was made ready was intended"
            latest = VmLedger(deck.desk, lost[-1].intent.vm)
            if not latest.relieve(self._word, PATIENCE, now):
                return False
            if not retire(deck, latest.vm, "it left its job", _silent, watch=0.0):
                self.leaves(latest.vm)
            Memory(deck.cache_dir).note(short_of(lost[-1:], now), now)
        self._known[job] = lost
        return True

    def leaves(self, vm: str) -> None:
        """A machine is being ended, and may not be gone yet."""
        self._leaving.add(vm)

    def see_off(self) -> None:
        """Note which of those are gone by now: until then each counts as one that costs money."""
        self._leaving -= {vm for vm in self._leaving if retire(self._deck(), vm, "it left its job", _silent, watch=0.0)}

    def close(self, job: str) -> None:
        """See to it that those are gone."""
        for vm in self.vms(job):
            retire(self._deck(), vm, "it left its job", _silent)
        self._known.pop(job, None)

    def vms(self, job: str) -> list[str]:
        """The machines that the job lost, as far as this client knows of them."""
        return [fold.intent.vm for fold in self._known.get(job, ()) if fold.intent is not None]


def with_ways(error: VmrunError, job: str) -> VmrunError:
    """The error that kept a job from its machine, with what can be done about it."""
    ways = f"job {job} waits: `vmrun wait {job}` tries again, `vmrun cancel {job}` gives it up"
    error.hint = f"{error.hint}; {ways}" if error.hint else ways
    return error


def _silent(_: str) -> None:
    return
