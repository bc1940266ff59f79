"""The VMs of a pool: read as they stand, and joined by one that is about to be made."""

from __future__ import annotations

from vmrun.core.errors import VmrunError
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.pool_records import PoolState
from vmrun.core.pools import PoolLedger
from vmrun.core.vm_ledger import VmLedger
from vmrun.watch.observe import readable

from .deck import Deck
from .pooling import Member, counts


class PoolFull(VmrunError):
    """The pool has as many VMs as are wanted, or is not wanted any more."""

    code = "pool-full"


def members_of(deck: Deck, state: PoolState) -> list[Member]:
    """The pool's VMs, those that are gone included. Raises StoreError."""
    return [_member(deck, vm) for vm in state.members]


def join(deck: Deck, pool: str, vm: str) -> None:
    """Make a VM one of the pool, before it is intended. Raises PoolFull if it is not needed."""

    def alive(state: PoolState) -> list[str]:
        now = deck.desk.clock.now()
        return [member.vm for member in members_of(deck, state) if counts(member, now)]

    if not PoolLedger(deck.desk, pool).join(vm, alive):
        raise PoolFull(f"pool {pool} needs no further VM", hint="`vmrun status` shows what it has")


def _member(deck: Deck, vm: str) -> Member:
    desk, ledger = deck.desk, VmLedger(deck.desk, vm)
    fold = readable(ledger)
    if fold is None or fold.ready is None or fold.ended:
        return Member(vm, fold)
    beat = read_heartbeat(desk.store, vm, desk.keyring)
    unseen = beat is not None and bool(fold.jobs) and beat.seen < ledger.seen
    return Member(vm, fold, busy=beat is not None and (bool(beat.busy) or unseen))
