"""An agent on paper: it says what an agent says up to a phase, and then nothing more, ever."""

from __future__ import annotations

import random

from tests.clouds.paper import agent_key
from vmrun.client import Client
from vmrun.core.clock import Clock
from vmrun.core.heartbeats import write_heartbeat
from vmrun.core.ids import new_id
from vmrun.core.ledger import Desk, JobLedger, ShardLedger
from vmrun.core.records import Entry, Final, Heartbeat
from vmrun.core.vm_ledger import VmLedger
from vmrun.crypto import Ed25519Signer

#: What it is doing when it falls silent.
_DOING = {"environment": "installing the environment", "running": "running"}


class PaperAgent:
    """The agent of one VM, with a key of its own."""

    def __init__(self, client: Client, vm: str, clock: Clock) -> None:
        desk = client.desk
        signer = Ed25519Signer(f"vm:{vm}", agent_key(vm))
        self._desk = Desk(desk.store, clock, random.Random(1), desk.keyring, signer, desk.deployment)
        self._vm = vm
        self._beats = 0

    def live_until(self, phase: str) -> None:
        """Do what an agent has done by then."""
        ledger = VmLedger(self._desk, self._vm)
        (job,) = ledger.refresh().jobs
        self._beat(ledger.seen, job=job, busy=f"job {job}", doing=_DOING.get(phase, "running"))
        if phase == "environment":
            return
        (plan,) = JobLedger(self._desk, job).refresh().shards()
        shard = ShardLedger(self._desk, job, plan)
        assert shard.claim(self._vm)
        if phase == "running":
            self._beat(ledger.seen, job=job, busy=f"job {job}", doing="running", running=1)
            return
        assert JobLedger(self._desk, job).finish(Final("done", 1, 0))
        if phase == "downloading":
            assert ledger.drain("no work", jobs=1)
        self._beat(ledger.seen, idle=0.0)

    def _beat(self, seen: int, **fields: object) -> None:
        assert self._desk.signer is not None
        self._beats += 1
        body = Heartbeat(self._beats, "boot", seen, **fields)  # type: ignore[arg-type]
        entry = Entry(self._beats, "", new_id(self._desk.clock, self._desk.rng), self._desk.clock.now(), body)
        write_heartbeat(self._desk.store, self._vm, entry, self._desk.signer)
