"""What every part of the agent works with, and the watch over other VMs' signs of life."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from vmrun.core.clock import Clock
from vmrun.core.errors import Corrupt
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.ledger import Desk
from vmrun.core.storage import BlobStore
from vmrun.core.vm_ledger import VmLedger

from .config import AgentConfig
from .pulse import Pulse
from .sharing import SharedFiles

#: Begins the reason of a VM that ends because it has cost what it may.
OVERSPENT = "maximum cost"
#: Seconds for which what was read of another VM holds: many shards may be one VM's.
LOOK_EVERY = 1.0


class Owners:
    """Judges whether the VM that holds a shard is dead: by its journal, or by a heartbeat that stands still.

    Standing still is measured on this machine's own clock, from when it was first seen; no two clocks are compared.
    """

    def __init__(self, desk: Desk, dead_after: float) -> None:
        self._desk = desk
        self._clock: Clock = desk.clock
        self._dead_after = dead_after
        self._ledgers: dict[str, VmLedger] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        #: When each heartbeat was last read.
        self._read: dict[str, float] = {}

    def dead(self, vm: str) -> bool:
        """Whether work of `vm` may be taken over."""
        now = self._clock.monotonic()
        if vm in self._read and now - self._read[vm] < LOOK_EVERY:
            return self._ledgers[vm].fold.ended or now - self._seen[vm][1] > self._dead_after
        ledger = self._ledgers.setdefault(vm, VmLedger(self._desk, vm))
        # Whose journal cannot be trusted is judged by its heartbeat alone: taking over is safe in any case.
        with contextlib.suppress(Corrupt):
            if ledger.refresh().ended:
                return True
        beat = read_heartbeat(self._desk.store, vm, self._desk.keyring)
        counter = -1 if beat is None else beat.counter
        self._read[vm] = now
        before, since = self._seen.get(vm, (None, now))
        if before != counter:
            self._seen[vm] = (counter, now)
            return False
        return now - since > self._dead_after

    def stays(self, vm: str) -> bool:
        """Whether `vm` has neither taken its leave nor ended, by its journal as it stands. Raises StoreError."""
        fold = self._ledgers.setdefault(vm, VmLedger(self._desk, vm)).refresh()
        return not fold.ended and fold.drain is None


@dataclass(frozen=True, slots=True)
class Workshop:
    """One agent's tools."""

    config: AgentConfig
    desk: Desk
    blobs: BlobStore
    pulse: Pulse
    owners: Owners
    #: This run of the agent, as writer of output.
    stream: str
    shared: SharedFiles
