"""A deck over a store in memory and a cloud in memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.sim.keys import FakeSigner, fake_key, fake_keyring
from tests.unit.core.world import DEPLOYMENT, ManualClock
from vmrun.core import keys
from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_PROOF, TAG_VM, InstanceSpec, Need, instance_name
from vmrun.core.desk import Desk
from vmrun.core.heartbeats import write_heartbeat
from vmrun.core.ids import new_id
from vmrun.core.records import Entry, Heartbeat, Intent, Ready
from vmrun.core.storage import Store
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet.deck import Deck
from vmrun.fleet.guards import make_proof
from vmrun.fleet.order import StoreAccess
from vmrun.provisioners.fake import FakeCloud
from vmrun.store.memory import MemoryStore


class Fleet:
    """Machines of one deployment."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.clock, self.rng = ManualClock(), random.Random(5)
        self.memory = MemoryStore()
        self.store: Store = store or self.memory
        self.cloud = FakeCloud(self.clock, self.rng)
        #: Whose the store says it is.
        self.recorded = DEPLOYMENT
        self.deck = Deck(
            desk=self.desk(),
            deployment=DEPLOYMENT,
            client_key="",
            provisioner=lambda name: self.cloud,
            store_access=lambda name, lifetime: StoreAccess(""),
            recorded=lambda: self.recorded,
            state_dir=folder / "state",
            cache_dir=folder / "cache",
        )

    def desk(self, writer: str = "client") -> Desk:
        return Desk(self.store, self.clock, self.rng, fake_keyring(), FakeSigner(writer))

    def vm(
        self, job: str = "", *, lifetime: float = 86400.0, keep_warm: float = 0.0, ready: bool = True, **intent: Any
    ) -> str:
        """A machine that runs, as a client would have made it; `intent` are fields of its intent."""
        vm = intent.pop("vm", None) or new_id(self.clock, self.rng)
        offer = next(iter(self.cloud.offers(Need())))
        name, deadline = instance_name(DEPLOYMENT, vm), float(int(self.clock.now() + lifetime))
        until = str(int(deadline))
        proof = make_proof(FakeSigner("client"), name, "fake", offer.region, until)
        tags = {TAG_OWNER: DEPLOYMENT, TAG_VM: vm, TAG_DEADLINE: until, TAG_PROOF: proof}
        spec = InstanceSpec(vm, DEPLOYMENT, name, offer, "", deadline, tags)
        self.memory.create(keys.vm_index(vm), b"")
        ledger = VmLedger(self.desk(), vm)
        assert ledger.intend(
            Intent(
                vm=vm,
                deployment=DEPLOYMENT,
                on="fake",
                name=name,
                region=offer.region,
                zone=offer.zone,
                instance_type=offer.instance_type,
                vcpus=offer.vcpus,
                memory=offer.memory,
                arch=offer.arch,
                usd_per_hour=1.0,
                user_data="0" * 64,
                hard_deadline=deadline,
                boot_grace=900.0,
                job=job,
                keep_warm=keep_warm,
                **intent,
            )
        )
        assert ledger.created(self.cloud.create(spec).id)
        if ready:
            key = fake_key(f"vm:{vm}").hex()
            assert ledger.ready(Ready(key, "boot", host="10.0.0.1", workers=2, python="3.11"))
            self.beat(vm, 1)
        return vm

    def beat(self, vm: str, counter: int, busy: str = "") -> None:
        beat = Heartbeat(counter, "boot", self.ledger(vm).seen, busy=busy)
        write_heartbeat(self.memory, vm, Entry(counter, "", "0" * 24, self.clock.now(), beat), FakeSigner(f"vm:{vm}"))

    def ledger(self, vm: str) -> VmLedger:
        ledger = VmLedger(self.desk(), vm)
        ledger.refresh()
        return ledger

    @property
    def running(self) -> set[str]:
        """Ids of the VMs that the cloud has."""
        return {machine.tags[TAG_VM] for machine in self.cloud.alive() if TAG_VM in machine.tags}

    @property
    def indexed(self) -> set[str]:
        return {listed.key[len(keys.VMS_INDEX) :] for listed in self.memory.list(keys.VMS_INDEX)}
