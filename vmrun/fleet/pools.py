"""Bringing a pool to what is wanted of it. Done again and again by whoever passes by; two at once do no harm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from vmrun.core.pool_records import PoolSpec, PoolState
from vmrun.core.pools import PoolLedger
from vmrun.core.vm_ledger import VmLedger

from .bring_up import rent
from .deck import Deck, OnStage
from .membership import PoolFull, members_of
from .order import Order
from .pooling import Member, Steps, counts, steps
from .retire import retire

log = logging.getLogger(__name__)

#: VMs that are made at the same time.
AT_ONCE = 4
#: Seconds between looks at VMs that are to go.
LOOK_EVERY = 0.2
#: From what is wanted to the order of one VM. Raises BudgetError, and what explains that there is none.
OrderOf = Callable[[PoolSpec], Order]


def keep_up(deck: Deck, pool: str, order_of: OrderOf, on_stage: OnStage, *, make: bool = True) -> Steps:
    """One pass over one pool; what was found to be done. Raises VmrunError when VMs that it needs cannot be had.

    VMs that stay are told until when, those that are not needed that they are not: such a VM ends by itself once it
    has no work. Without `make` none is made.
    """
    ledger = PoolLedger(deck.desk, pool)
    state = ledger.refresh()
    members = members_of(deck, state)
    found = steps(state.wanted, members, deck.desk.clock.now())
    for vm in found.prolong:
        VmLedger(deck.desk, vm).stay(found.until)
    for vm in found.release:
        on_stage(f"pool {pool} lets {vm} go")
        VmLedger(deck.desk, vm).stay(0.0)
    if make and found.missing and state.wanted is not None:
        order = replace(order_of(state.wanted), pool=pool, stay_until=found.until)
        _make(deck, order, found.missing, on_stage)
    if state.wanted is None and not any(_there(deck, member) for member in members):
        ledger.forget()
    return found


def _make(deck: Deck, order: Order, count: int, on_stage: OnStage) -> None:
    if count == 1:
        _one(deck, order, on_stage)
        return
    # What all of them need is made once, and before: an image, a connection.
    for on in deck.clouds(order.on):
        deck.provisioner(on)
    with ThreadPoolExecutor(min(count, AT_ONCE), thread_name_prefix="vmrun-pool") as threads:
        made = [threads.submit(_one, deck, order, on_stage) for _ in range(count)]
    errors = [error for each in made if (error := each.exception()) is not None]
    if errors:
        raise errors[0]


def _one(deck: Deck, order: Order, on_stage: OnStage) -> None:
    try:
        rent(deck, order, on_stage)
    except PoolFull:
        # Somebody else has made what was missing.
        log.info("event=pool-full pool=%s", order.pool)


def take_down(deck: Deck, pool: str, on_stage: OnStage, patience: float) -> list[Member]:
    """Want nothing of the pool any more, and see its VMs go; those that are still there after `patience` seconds.

    One that works goes on: it ends with its job. One that is being made is given back at once.
    """
    ledger = PoolLedger(deck.desk, pool)
    left = _watch(deck, ledger, ledger.want(None), on_stage, patience)
    if not left:
        ledger.forget()
    return left


def _watch(deck: Deck, ledger: PoolLedger, state: PoolState, on_stage: OnStage, patience: float) -> list[Member]:
    """Let go what is there; what still is when all others work, the time is over, or it is wanted again."""
    clock = deck.desk.clock
    deadline = clock.monotonic() + patience
    while True:
        left = [member for member in members_of(deck, state) if _there(deck, member)]
        if ledger.refresh().wanted is not None:
            return left
        for member in left:
            # In each look: one that had joined may be intended, or ready, by now.
            _let_go(deck, member, f"pool {state.pool} was taken down", on_stage)
        if all(member.busy for member in left) or clock.monotonic() >= deadline:
            return left
        clock.sleep(LOOK_EVERY)


def _let_go(deck: Deck, member: Member, why: str, on_stage: OnStage) -> None:
    """Give back what has taken its leave, or is being made; have the others wait for no further job."""
    fold = member.fold
    if fold is None or fold.intent is None:
        return
    if fold.drain is not None or fold.ended:
        retire(deck, member.vm, why, on_stage)
    elif fold.ready is None:
        retire(deck, member.vm, why, on_stage, jobs=0)
    elif fold.stay_until:
        VmLedger(deck.desk, member.vm).stay(0.0)


def _there(deck: Deck, member: Member) -> bool:
    """Whether it is not known to be gone."""
    if member.fold is None or member.fold.intent is None:
        return counts(member, deck.desk.clock.now())
    return member.fold.gone is None
