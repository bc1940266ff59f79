"""Leaving machines that are half made: condemned in their journals at once, deleted by whoever has time to watch it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vmrun.core import keys
from vmrun.core.desk import Desk
from vmrun.core.vm_ledger import VmLedger
from vmrun.watch.observe import readable, vm_ids

from .deck import Deck
from .retire import retire

log = logging.getLogger(__name__)

#: Seconds that a person who leaves waits for half-made machines to be given back.
LEAVE_PATIENCE = 3.0
#: Why a machine ends that its client left half made.
LEFT_BEHIND = "its client left"
#: Attempts to condemn a machine whose journal grows meanwhile: few entries come before READY.
TRIES = 5


class HalfMade:
    """The machines that this client is making, by job, each known before anything of it is written; for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vms: dict[str, list[str]] = {}

    @contextmanager
    def making(self, job: str) -> Iterator[Callable[[str], None]]:
        """What this gives is told of machines that are begun for the job; all of them are at their end after it."""
        mine: list[str] = []

        def begun(vm: str) -> None:
            with self._lock:
                mine.append(vm)
                self._vms.setdefault(job, []).append(vm)

        try:
            yield begun
        finally:
            with self._lock:
                self._vms[job] = [vm for vm in self._vms.get(job, ()) if vm not in mine]

    def condemn(self, desk: Desk, job: str) -> None:
        """Say of each that is not ready that it is to end; whatever its thread still does, it is given back.

        Raises StoreError.
        """
        with self._lock:
            vms = list(self._vms.get(job, ()))
        for vm in vms:
            _condemn(desk, vm)


def _condemn(desk: Desk, vm: str) -> None:
    ledger = VmLedger(desk, vm)
    for _ in range(TRIES):
        fold = ledger.refresh()
        if fold.ended or fold.ready is not None:
            return
        if ledger.delete(LEFT_BEHIND, "client", seen=ledger.seen):
            log.info("event=left-behind vm=%s", vm)
            if fold.intent is None:
                # Nothing is created under an id that was condemned before its intent.
                desk.store.delete(keys.vm_index(vm))
            return


def clear_up(deck: Deck, job: str, watch: float) -> bool:
    """Delete machines that were condemned while they were made for the job, and watch them for so many seconds each.

    Whether all of them were seen to be gone.
    """
    gone = True
    for vm in vm_ids(deck.desk):
        fold = readable(VmLedger(deck.desk, vm))
        if fold is not None and job in fold.jobs and fold.ready is None and fold.delete is not None:
            gone = retire(deck, vm, fold.delete.why, log.info, watch=watch) and gone
    return gone
