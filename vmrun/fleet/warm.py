"""Taking a VM that was kept warm: it is given the job in its journal, where only one can win."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace

from vmrun.core import keys
from vmrun.core.folds import VmFold
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.ids import is_id
from vmrun.core.vm_ledger import VmLedger
from vmrun.watch.observe import readable

from .deck import Deck
from .matching import Waiting, best_first, fits
from .order import Order


def take_warm(deck: Deck, order: Order, without: Container[str] = ()) -> str | None:
    """The id of a warm VM that now has the order's job; None if there is none that fits, but for those in `without`."""
    ledgers = dict(_warm(deck, order, without))
    for each in best_first((Waiting(vm, ledger.fold) for vm, ledger in ledgers.items()), order):
        ledger = ledgers[each.vm]
        # It rested with so many jobs behind it: the job must not stand in line behind one that somebody gave it since.
        jobs = len(ledger.fold.jobs)
        # It may live longer than the job may have a machine.
        until = float(round(deck.desk.clock.now() + order.max_lifetime))
        if ledger.assign(order.job, order.keep_warm, order.max_cost, order.environment, until, jobs=jobs):
            return each.vm
    return None


def _warm(deck: Deck, order: Order, without: Container[str]) -> Iterator[tuple[str, VmLedger]]:
    """The VMs that fit and rest, by what was read of them just now."""
    desk = deck.desk
    orders = [order if order.on == name else replace(order, on=name) for name in deck.clouds(order.on)]
    for listed in desk.store.list(keys.VMS_INDEX):
        vm = listed.key[len(keys.VMS_INDEX) :]
        ledger = VmLedger(desk, vm)
        fold = readable(ledger) if is_id(vm) and vm not in without else None
        if fold is not None and any(fits(fold, each, desk.clock.now()) for each in orders) and _rests(deck, vm, fold):
            yield vm, ledger


def _rests(deck: Deck, vm: str, fold: VmFold) -> bool:
    """Whether it is without work, by its last sign of life; not if it said that before it knew of its last job.

    A sign of life may be old: then the VM takes the job late or, if it is dead, the job is given to another VM.
    """
    beat = read_heartbeat(deck.desk.store, vm, deck.desk.keyring)
    return beat is not None and not beat.busy and beat.seen > fold.given_n
