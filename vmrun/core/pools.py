"""What pools there are: a journal per pool, in which the last entry says what is wanted and which VMs it has.

A VM joins before it is intended, so that of two who see the same one missing one loses and looks again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from . import keys
from .desk import Desk
from .errors import KeyExists, StoreError, UsageError
from .pool_records import PoolSpec, PoolState
from .records import Entry
from .signing import ClientsOnly
from .vm_ledger import MOVES_MAX

#: What a pool is called that nobody gave a name.
DEFAULT = "default"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


def check_pool(name: str) -> str:
    """`name` itself if a pool can be called so. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:60]!r} is no name for a pool",
            hint="up to 40 small letters, digits and hyphens, such as team-a",
        )
    return name


class PoolLedger:
    """A pool's journal and what it means. Read from its last entry on, however long it is."""

    def __init__(self, desk: Desk, pool: str) -> None:
        """Raises UsageError for what is no name of a pool."""
        self.pool = check_pool(pool)
        self._state: PoolState | None = None
        self._desk = desk
        self._journal = desk.journal(keys.pool_journal(pool), ClientsOnly(desk.keyring))
        self._found = False

    def refresh(self) -> PoolState:
        """Read what is new; a pool that never was is not wanted and has no VMs."""
        if not self._found:
            self._journal.skip_to_last()
            self._found = True
        for entry in self._journal.read():
            self._take(entry)
        state = self._state or PoolState(self.pool, self._desk.deployment)
        if self._state is not None:
            self._desk.check_deployment(state.deployment, f"pool {self.pool}")
        return state

    def want(self, wanted: PoolSpec | None) -> PoolState:
        """Say what is wanted from here on, None for nothing. Writes nothing if that is so already."""
        return self._want(wanted, lambda _: True)

    def change(self, wanted: PoolSpec, before: PoolSpec | None) -> bool:
        """Say what is wanted from here on, if `before` is until now; whether it is wanted then."""
        return self._want(wanted, lambda state: state.wanted == before).wanted == wanted

    def _want(self, wanted: PoolSpec | None, allowed: Callable[[PoolState], bool]) -> PoolState:
        if wanted is not None:
            self._index()
        state = self._change(
            lambda state: (wanted, state.members) if state.wanted != wanted and allowed(state) else None
        )
        if state.wanted is not None:
            # Once more: who saw it not wanted, right before, may have left it out since.
            self._index()
        return state

    def _index(self) -> None:
        with contextlib.suppress(KeyExists):
            self._desk.store.create(keys.pool_index(self.pool), b"")

    def join(self, vm: str, alive: Callable[[PoolState], list[str]]) -> bool:
        """Make a VM, which is to be intended next, one of the pool; False if nothing is missing.

        `alive` gives those of its VMs that still count; the others are forgotten.
        """

        def joined(state: PoolState) -> tuple[PoolSpec | None, tuple[str, ...]] | None:
            if vm in state.members or state.wanted is None:
                return None
            there = alive(state)
            return (state.wanted, (*there, vm)) if len(there) < state.wanted.size else None

        return vm in self._change(joined).members

    def forget(self) -> None:
        """Leave it out of what is looked at: it was taken down, and its VMs are gone. Not if it is wanted again."""
        self._desk.store.delete(keys.pool_index(self.pool))
        # Looked at afterwards: whoever wants it from here on puts it back, as `_want` does so after its entry, too.
        if self.refresh().wanted is not None:
            self._index()

    def _change(self, change: Callable[[PoolState], tuple[PoolSpec | None, tuple[str, ...]] | None]) -> PoolState:
        for _ in range(MOVES_MAX):
            state = self.refresh()
            changed = change(state)
            if changed is None:
                return state
            entry = self._journal.append(PoolState(self.pool, self._desk.deployment, *changed))
            if entry is not None:
                self._take(entry)
        raise StoreError(f"pool {self.pool} changed {MOVES_MAX} times in a row", hint="try again")

    def _take(self, entry: Entry) -> None:
        if isinstance(entry.body, PoolState):
            self._state = entry.body


def pool_names(desk: Desk) -> list[str]:
    """The pools that are wanted, or have VMs still."""
    found = (listed.key[len(keys.POOLS_INDEX) :] for listed in desk.store.list(keys.POOLS_INDEX))
    return [name for name in found if _NAME.fullmatch(name)]
