"""Who has a borrowed host: a journal per host, in which the last entry says whether it is free.

A host is had by at most one VM: of two that append after the same entry one loses. That a VM which has not given
a host back has it no more is judged by whoever wants it next; being wrong costs that VM its work, and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import keys
from .desk import Desk
from .errors import KeyExists, StoreError
from .host_records import Borrow, Return
from .record import Record
from .records import Entry
from .signing import ClientsOnly
from .vm_ledger import MOVES_MAX


@dataclass(slots=True)
class HostFold:
    """A host as the end of its journal tells it."""

    #: Who has it; None when it is free.
    holder: Borrow | None = None
    #: Since when, in seconds since the epoch on the holder's client's clock.
    since: float = 0.0

    def apply(self, entry: Entry) -> None:
        """Take in the next entry."""
        body = entry.body
        if isinstance(body, Borrow):
            self.holder, self.since = body, entry.at
        elif isinstance(body, Return) and self.holder is not None and self.holder.vm == body.vm:
            self.holder = None


class HostLedger:
    """A host's journal and what it means. Read from its last entry on, however long it is."""

    def __init__(self, desk: Desk, host: str) -> None:
        """`host` is its id in keys."""
        self.host = host
        self.fold = HostFold()
        self._desk = desk
        self._journal = desk.journal(keys.host_journal(host), ClientsOnly(desk.keyring))
        self._found = False

    def refresh(self) -> HostFold:
        """Read what is new."""
        if not self._found:
            # Each entry was appended in view of the one before, so that the last one says all.
            self._journal.skip_to_last()
            self._found = True
        for entry in self._journal.read():
            self.fold.apply(entry)
        if self.fold.holder is not None:
            self._desk.check_deployment(self.fold.holder.deployment, f"the lease of host {self.host}")
        return self.fold

    def borrow(self, body: Borrow, may_take: Callable[[HostFold], bool]) -> bool:
        """Have the host; False when another VM has it and `may_take` says that it still counts."""
        with contextlib.suppress(KeyExists):
            self._desk.store.create(keys.host_index(self.host), b"")
        for _ in range(MOVES_MAX):
            holder = self.refresh().holder
            if holder is not None and holder.vm == body.vm:
                return True
            if holder is not None and not may_take(self.fold):
                return False
            if self._append(body):
                return True
        raise _contended(self.host)

    def give_back(self, vm: str, evidence: str) -> None:
        """Note that nothing of the VM is on the host any more; nothing is written if it does not have it."""
        for _ in range(MOVES_MAX):
            holder = self.refresh().holder
            if holder is None or holder.vm != vm or self._append(Return(vm, evidence)):
                return
        raise _contended(self.host)

    def _append(self, body: Record) -> bool:
        entry = self._journal.append(body)
        if entry is not None:
            self.fold.apply(entry)
        return entry is not None


def leased_hosts(desk: Desk) -> Iterator[HostLedger]:
    """Every host that a VM of this deployment has, its journal read."""
    for listed in list(desk.store.list(keys.HOSTS_INDEX)):
        ledger = HostLedger(desk, listed.key[len(keys.HOSTS_INDEX) :])
        if ledger.refresh().holder is not None:
            yield ledger


def _contended(host: str) -> StoreError:
    return StoreError(f"the lease of {host} changed {MOVES_MAX} times in a row", hint="try again")
