"""Somebody who can write to the bucket, or who holds a VM's key, and puts entries where they do not belong."""

from __future__ import annotations

import random
from array import array

from tests.sim.keys import FakeSigner
from tests.sim.knobs import FORGERIES
from tests.sim.tools import Scene
from tests.sim.world import Process
from vmrun.core import keys
from vmrun.core.blocks import ResultBlock, lengths_of
from vmrun.core.outcomes import pack
from vmrun.core.records import Alive, Assign, Cancel, Claim, Delete, Drain, Entry, Final, Gone, Ready, Record, Results
from vmrun.core.sealing import seal


class Intruder:
    """Strikes once, when there is something to strike at."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.rng = random.Random(scene.world.seed)

    def run(self, process: Process) -> None:
        while self.scene.world.faulty:
            process.sleep(self.rng.uniform(1.0, 40.0))
            if self.scene.world.faulty and self.strike():
                self.scene.world.note(f"intruder: {self.scene.knobs.intruder}")
                return

    def strike(self) -> bool:
        return {
            "unsigned": self.unsigned,
            "moved": self.moved,
            "stranger": self.stranger,
            "neighbour": self.neighbour,
            "outside": self.outside,
            "in-anothers-name": self.in_anothers_name,
            "own-vm": self.own_vm,
        }[self.scene.knobs.intruder]()

    def plant(self, prefix: str, body: bytes) -> bool:
        n = len(self.scene.oracle.journals.get(prefix, []))
        self.scene.oracle.planted(prefix, body, trusted=self.scene.knobs.intruder not in FORGERIES)
        self.scene.store.plant(keys.entry(prefix, n), body)
        self.scene.world.log(f"planted {prefix}{n}")
        return True

    def sealed(self, prefix: str, body: Record, signer: FakeSigner, attachment: bytes = b"") -> bytes:
        n = len(self.scene.oracle.journals.get(prefix, []))
        return seal(prefix, Entry(n, "", f"{self.rng.getrandbits(96):024x}", 0.0, body, attachment), signer)

    def shard(self) -> str | None:
        """A shard with work left."""
        oracle = self.scene.oracle
        open_ones = [
            prefix
            for prefix, truth in oracle.shards.items()
            if truth.claims and any(t not in oracle.jobs[truth.job].settled for t in self.tasks(prefix))
        ]
        return self.rng.choice(open_ones) if open_ones else None

    def tasks(self, prefix: str) -> range:
        truth = self.scene.oracle.shards[prefix]
        return range(truth.first, truth.first + truth.count)

    def ready_vms(self) -> list[str]:
        return [vm for vm, truth in self.scene.oracle.vms.items() if truth.ready and not truth.deleted]

    def results(self, vm: str, first: int, count: int) -> tuple[Results, bytes]:
        payloads = [b"forged"] * count
        block = ResultBlock(
            first, bytes(count), lengths_of(payloads), b"".join(payloads), array("d", [0.0] * count),
            array("f", [0.0] * count),
        )  # fmt: skip
        packed = pack([block])
        return Results(vm, 0, packed.refs), packed.data

    # --- entries that nobody can trust ---

    def unsigned(self) -> bool:
        """Right in form and place, signed with a key of the intruder's own."""
        shard, vms = self.shard(), self.ready_vms()
        if shard is None or not vms:
            return False
        vm = self.rng.choice(vms)
        job = self.scene.oracle.shards[shard].job
        forged: list[tuple[str, Record, str, bytes]] = [
            (keys.vm_journal(vm), Delete("dead", "reaper#0"), "client", b""),
            (keys.vm_journal(vm), Drain("idle"), f"vm:{vm}", b""),
            (keys.job_journal(job), Final("done", 1, 0), f"vm:{vm}", b""),
            (keys.job_journal(job), Cancel("user"), "client", b""),
        ]
        body, data = self.results(vm, self.tasks(shard)[0], len(self.tasks(shard)))
        forged += [(shard, body, f"vm:{vm}", data)] * 4
        prefix, record, writer, attachment = self.rng.choice(forged)
        if prefix == keys.job_journal(job) and self.scene.oracle.jobs[job].final:
            return False
        return self.plant(prefix, self.sealed(prefix, record, FakeSigner(writer, b"the intruder's"), attachment))

    def moved(self) -> bool:
        """A true entry, copied from another journal, or to a later place in its own."""
        shard = self.shard()
        if shard is None:
            return False
        n = len(self.scene.oracle.journals[shard])
        others = [
            facts[n].body
            for prefix, facts in self.scene.oracle.journals.items()
            if prefix != shard and "/shards/" in prefix and len(facts) > n
        ]
        own = [fact.body for fact in self.scene.oracle.journals[shard] if fact.type == "RESULTS"]
        if not others and not own:
            return False
        return self.plant(shard, self.rng.choice(others or own))

    def stranger(self) -> bool:
        """Signed by a VM that was never given the job."""
        shard = self.shard()
        if shard is None:
            return False
        job = self.scene.oracle.shards[shard].job
        strangers = [vm for vm in self.ready_vms() if job not in self.scene.oracle.vms[vm].jobs]
        if not strangers:
            return False
        vm = self.rng.choice(strangers)
        body, data = self.results(vm, self.tasks(shard)[0], len(self.tasks(shard)))
        return self.plant(shard, self.sealed(shard, body, FakeSigner(f"vm:{vm}"), data))

    def neighbour(self) -> bool:
        """Signed by one VM, in another's journal."""
        vms = self.ready_vms()
        if len(vms) < 2:
            return False
        victim, vm = self.rng.sample(vms, 2)
        prefix = keys.vm_journal(victim)
        return self.plant(prefix, self.sealed(prefix, self.rng.choice([Alive(), Drain("x")]), FakeSigner(f"vm:{vm}")))

    # --- entries that count for nothing ---

    def member(self) -> tuple[str, str] | None:
        """A shard, and a VM that works for its job."""
        shard = self.shard()
        if shard is None:
            return None
        job = self.scene.oracle.shards[shard].job
        vms = [vm for vm in self.ready_vms() if job in self.scene.oracle.vms[vm].jobs]
        return (shard, self.rng.choice(vms)) if vms else None

    def outside(self) -> bool:
        """Outcomes that reach beyond the shard."""
        found = self.member()
        if found is None:
            return False
        shard, vm = found
        tasks = self.tasks(shard)
        body, data = self.results(vm, max(0, tasks[0] - 1), len(tasks) + 2)
        return self.plant(shard, self.sealed(shard, body, FakeSigner(f"vm:{vm}"), data))

    def in_anothers_name(self) -> bool:
        """One VM of the job speaks for another, or for the client."""
        found = self.member()
        if found is None:
            return False
        shard, vm = found
        other = "9" * 26
        job = keys.job_journal(self.scene.oracle.shards[shard].job)
        body, data = self.results(other, self.tasks(shard)[0], len(self.tasks(shard)))
        prefix, record, attachment = self.rng.choice(
            [(shard, body, data), (shard, Claim(other), b""), (job, Cancel("vm"), b"")]
        )
        return self.plant(prefix, self.sealed(prefix, record, FakeSigner(f"vm:{vm}"), attachment))

    def own_vm(self) -> bool:
        """A VM writes into its own journal what only clients may."""
        vms = self.ready_vms()
        if not vms:
            return False
        vm = self.rng.choice(vms)
        prefix = keys.vm_journal(vm)
        record = self.rng.choice(
            [Assign(self.scene.jobs[-1]), Delete("dead", "vm#0"), Gone("vm"), Ready(agent_key="00", boot_id="x")]
        )
        return self.plant(prefix, self.sealed(prefix, record, FakeSigner(f"vm:{vm}")))
