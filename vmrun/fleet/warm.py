"""Taking a VM that was kept warm: it is given the job in its journal, where only one can win."""

from __future__ import annotations

import logging
from collections.abc import Container
from dataclasses import replace

from vmrun.core import keys
from vmrun.core.clouds import Market, Need
from vmrun.core.crew import fits as holds_one
from vmrun.core.errors import Corrupt, SchemaError
from vmrun.core.folds import VmFold
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.ids import is_id
from vmrun.core.ledger import VmLedger
from vmrun.core.records import Ready

from .deck import Deck
from .order import Order

log = logging.getLogger(__name__)

#: Seconds of its warm window that must be left for a VM to be worth taking.
MARGIN = 2.0


def take_warm(deck: Deck, order: Order, without: Container[str] = ()) -> str | None:
    """The id of a warm VM that now has the order's job; None if there is none that fits, but for those in `without`."""
    desk = deck.desk
    orders = [order if order.on == name else replace(order, on=name) for name in deck.clouds(order.on)]
    for listed in desk.store.list(keys.VMS_INDEX):
        vm = listed.key[len(keys.VMS_INDEX) :]
        if not is_id(vm) or vm in without:
            continue
        ledger = VmLedger(desk, vm)
        try:
            fold = ledger.refresh()
        except (Corrupt, SchemaError) as error:
            # One damaged journal must not keep every job from its machine.
            log.warning("event=journal-refused vm=%s error=%s", vm, error.message)
            continue
        now = desk.clock.now()
        if (
            any(fits(fold, each, now) for each in orders)
            and _rests(deck, vm)
            and ledger.assign(order.job, order.keep_warm, order.max_cost)
        ):
            return vm
    return None


def fits(fold: VmFold, order: Order, now: float) -> bool:
    """Whether the VM can take the job, by its journal."""
    intent = fold.intent
    return (
        intent is not None
        and fold.assignable
        and fold.keep_warm > 0
        and intent.on == order.on
        and now + MARGIN < intent.hard_deadline
        and fold.ready is not None
        and _can_run(fold.ready, order)
        and _big_enough(order.need, intent.vcpus, intent.memory)
        and order.need.disk <= intent.disk
        and order.need.arch in ("", intent.arch)
        and order.need.instance_type in ("", intent.instance_type)
        and order.need.region in ("", intent.region)
        and order.need.zone in ("", intent.zone)
        and not (intent.spot and order.need.market is Market.on_demand)
        and (not order.max_cost or order.allow_unknown_price or intent.usd_per_hour is not None)
    )


def _can_run(ready: Ready, order: Order) -> bool:
    """Whether the machine, as its first job had it made ready, has what this job's environment takes."""
    if order.needs_packages:
        return ready.uv
    # A machine that is a process on this one runs a job without packages by its own interpreter, and by no other.
    return order.python in ("", ready.python) or (ready.uv and bool(ready.host))


def _big_enough(need: Need, vcpus: int, memory: int) -> bool:
    return need.cpus <= vcpus and need.memory <= memory and holds_one(memory, need.task_memory)


def _rests(deck: Deck, vm: str) -> bool:
    """Whether it is without work, by its last sign of life.

    A sign of life may be old: then the VM takes the job late or, if it is dead, the job is given to another VM.
    """
    beat = read_heartbeat(deck.desk.store, vm, deck.desk.keyring)
    return beat is not None and not beat.busy
