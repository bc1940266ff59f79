"""A client: submits, sees to machines, watches, reads, and declares the end; started again after every crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.sim.keys import fake_key
from tests.sim.tools import DEPLOYMENT, Scene, insist
from tests.sim.world import Machine, Process
from vmrun.core import keys
from vmrun.core.blocks import TaskBlock, lengths_of
from vmrun.core.clouds import CloudError
from vmrun.core.errors import Corrupt, KeyExists, StoreUnavailable
from vmrun.core.folds import Extent, JobFold
from vmrun.core.heartbeats import read_heartbeat
from vmrun.core.ids import new_id
from vmrun.core.ledger import Desk, JobLedger, ShardLedger
from vmrun.core.model import FunctionSpec, JobSpec, ShardPlan
from vmrun.core.outcomes import OutcomeReader, in_order
from vmrun.core.records import Entry, Final, Intent, Ready, Submit
from vmrun.core.vm_ledger import VmLedger

T = TypeVar("T")
FUNCTION = FunctionSpec("source", path="job.py", name="simulate")
#: Seconds between looks.
POLL = 15.0
#: Seconds after INTENT in which an instance may be created.
CREATE_WINDOW = 120.0


def start(scene: Scene, machine: Machine, job: str, delay: float, *, feeds: bool = True) -> None:
    """Run a client for `job`, and another one whenever it is lost. One that `feeds` adds an open job's tasks."""
    lives = 0

    def again() -> None:
        nonlocal lives
        lives += 1
        if lives > 1:
            scene.world.note("client started again")
            if feeds:
                scene.feeding.discard(job)
        client = Client(scene, job, feeds=feeds and lives == 1)
        scene.world.spawn(machine, f"{machine.name}.{lives}", client.run)

    machine.on_restart = again
    scene.world.after(delay, again)


class Client:
    """One life of a job's client."""

    def __init__(self, scene: Scene, job: str, *, feeds: bool) -> None:
        self.scene = scene
        self.job = job
        self.plan = scene.plan(job)
        self.feeds = feeds
        self.shards: dict[int, tuple[ShardLedger, OutcomeReader]] = {}
        #: Tasks whose outcome it was told while it watched.
        self.told: set[int] = set()
        #: What was read of each shard and not looked into yet.
        self.news: dict[int, list[tuple[Entry, list[Extent]]]] = {}

    def run(self, process: Process) -> None:
        self.desk = self.scene.desk(process)
        self.fleet = Fleet(self.scene, process, self.desk, self.job, self.plan.keep_warm)
        ledger = self.ledger = JobLedger(self.desk, self.job)
        began = process.monotonic()
        try:
            insist(process, lambda: ledger.submit(self.submission()))
            if self.plan.open and self.feeds:
                self.feed(process, ledger)
            while not self.turn(process, ledger, process.monotonic() - began):
                process.sleep(process.rng.uniform(0.0, POLL))
            for _ in range(2):
                process.sleep(process.rng.uniform(0.0, 60.0))
                insist(process, lambda: read_all(self.scene, self.scene.desk(process), self.job))
        except Corrupt:
            self.scene.world.note("journal refused")
            self.scene.oracle.require(
                bool(self.scene.oracle.quarantined), "a client met an entry that it could not trust"
            )
            self.scene.feeding.discard(self.job)
        self.scene.waiting -= 1

    def submission(self) -> Submit:
        plan = self.plan
        spec = JobSpec(
            vms=plan.vms,
            replace_lost=max(0, plan.replace_lost),
            name="job" if plan.replace_lost < 0 else "fleet",
            kind="open" if plan.open else "map",
            function=FUNCTION,
            python="3.11",
            tasks=0 if plan.open else plan.tasks,
            shard_size=0 if plan.open else plan.shard_size,
        )
        return Submit(self.job, spec, DEPLOYMENT)

    def turn(self, process: Process, ledger: JobLedger, age: float) -> bool:
        """Look, and do what is to be done; whether the job is final and everything was read."""
        try:
            fold = ledger.refresh()
            self.watch(fold)
            if fold.final is not None:
                whole = fold.final.outcome == "cancelled" or self.told == set(range(fold.tasks))
                self.scene.oracle.require(whole, "a watcher saw the end of a job, and not all of its outcomes")
                return True
            if self.plan.cancel_after and age > self.plan.cancel_after and not fold.cancelled_by:
                ledger.cancel("user")
                self.scene.world.note("cancel")
            if self.plan.open and not fold.closed and not fold.cancelled_by and self.feeder_is_gone():
                ledger.close()
            if fold.cancelled_by or not self.complete(fold):
                self.fleet.provide(self.plan.vms)
            elif self.scene.knobs.finisher != "agent" or not process.world.faulty:
                self.finish(process, ledger)
        except (StoreUnavailable, CloudError):
            pass
        return False

    def feeder_is_gone(self) -> bool:
        """Whether nobody will add tasks any more; a second client must not close what the first one still feeds."""
        return self.job not in self.scene.feeding

    def complete(self, fold: JobFold) -> bool:
        return fold.complete and all(self.shard(plan)[0].fold.complete for plan in fold.shards())

    def finish(self, process: Process, ledger: JobLedger) -> None:
        process.stall()
        folds = [ledger.fold for ledger, _ in self.shards.values()]
        failed = sum(len(fold.failed) for fold in folds)
        done = sum(len(fold.done) for fold in folds) - failed
        if ledger.finish(Final("failed" if failed else "done", done, failed)):
            self.scene.world.note("FINAL by a client")

    # --- reading ---

    def shard(self, plan: ShardPlan) -> tuple[ShardLedger, OutcomeReader]:
        if plan.shard not in self.shards:
            ledger = self.ledger.shard(plan)
            self.shards[plan.shard] = ledger, OutcomeReader(self.scene.store, self.job, ledger.prefix)
        return self.shards[plan.shard]

    def watch(self, fold: JobFold) -> None:
        """Take in every new outcome, and never the same one twice."""
        for plan in fold.shards():
            if self.told.issuperset(range(plan.first, plan.end)):
                continue
            ledger, reader = self.shard(plan)
            news = self.news.setdefault(plan.shard, [])
            news.extend(ledger.refresh())
            while news:
                entry, extents = news[0]
                reader.remember(entry.n, entry.attachment)
                for extent in extents:
                    for outcome in reader.outcomes(extent):
                        self.scene.oracle.observed(self.job, outcome.task, bytes(outcome.payload))
                        self.told.add(outcome.task)
                news.pop(0)

    # --- the executor: an open job ---

    def feed(self, process: Process, ledger: JobLedger) -> None:
        """Add batches of calls, waiting now and then for what comes back."""
        self.scene.feeding.add(self.job)
        left = self.plan.tasks
        while left:
            count = min(left, process.rng.randint(1, 3))
            left -= count
            self.scene.perhaps_added[self.job] = self.scene.perhaps_added.get(self.job, 0) + count
            plan = insist(process, self.adding(ledger, count))
            self.scene.perhaps_added[self.job] -= count
            if plan is None:
                break
            self.scene.added[self.job] = self.scene.added.get(self.job, 0) + count
            process.sleep(process.rng.uniform(0.0, 20.0))
            self.turn_while_open(ledger)
        insist(process, ledger.close)
        self.scene.feeding.discard(self.job)

    def adding(self, ledger: JobLedger, count: int) -> Callable[[], ShardPlan | None]:
        return lambda: ledger.add(count, FUNCTION, lambda first: task_block(first, count))

    def turn_while_open(self, ledger: JobLedger) -> None:
        try:
            self.watch(ledger.refresh())
            self.fleet.provide(self.plan.vms)
        except (StoreUnavailable, CloudError):
            pass


def task_block(first: int, count: int) -> bytes:
    payloads = [f"in {task}".encode() for task in range(first, first + count)]
    return TaskBlock(first, lengths_of(payloads), b"".join(payloads)).encode()


def read_all(scene: Scene, desk: Desk, job: str) -> None:
    """What somebody reads who has never read before."""
    whole = JobLedger(desk, job)
    fold = whole.refresh()
    for plan in fold.shards():
        ledger = whole.shard(plan)
        ledger.refresh()
        reader = OutcomeReader(scene.store, job, ledger.prefix)
        shown = set()
        for extent in in_order(ledger.fold):
            for outcome in reader.outcomes(extent):
                scene.oracle.observed(job, outcome.task, bytes(outcome.payload))
                shown.add(outcome.task)
        if fold.final is not None and fold.final.outcome != "cancelled":
            scene.oracle.require(len(shown) == plan.count, f"a final job's shard {plan.shard} is not all there")


class Fleet:
    """A client's machines: warm ones where there are any, new ones otherwise."""

    def __init__(self, scene: Scene, process: Process, desk: Desk, job: str, keep_warm: float) -> None:
        self.scene = scene
        self.process = process
        self.desk = desk
        self.job = job
        self.keep_warm = keep_warm
        #: How many VMs may be replaced by what the job's journal says; below 0 it says nothing of VMs.
        self.replace_lost = scene.plan(job).replace_lost
        self.journal = JobLedger(desk, job)
        self.ledgers: dict[str, VmLedger] = {}

    def provide(self, wanted: int) -> None:
        """See to it that `wanted` VMs serve the job or are on their way. Raises StoreUnavailable, CloudError."""
        serving = 0
        warm: list[VmLedger] = []
        for listed in self.desk.store.list(keys.VMS_INDEX):
            vm = listed.key[len(keys.VMS_INDEX) :]
            ledger = self.ledgers.setdefault(vm, VmLedger(self.desk, vm))
            if ledger.fold.gone is not None:
                continue
            fold = self.trusting(ledger.refresh)
            if fold is None or fold.ended or fold.drain is not None or fold.suspected:
                continue
            if self.job in fold.jobs:
                serving += 1
                if fold.ready is None:
                    self.trusting(lambda ledger=ledger: self.make_ready(ledger))
            elif fold.assignable and fold.keep_warm > 0:
                warm.append(ledger)
        for ledger in warm:
            if serving < wanted and self.trusting(lambda ledger=ledger: self.take(ledger)):
                serving += 1
        for _ in range(wanted - serving if self.replace_lost < 0 else self.rights(serving, wanted)):
            self.rent()

    def rights(self, serving: int, wanted: int) -> int:
        """How many VMs may be rented: those that were never had, one for each loss that is this client's to make good.

        A job that has none at all gets one in any case: somebody waits for it.
        """
        fold = self.journal.refresh()
        lack = wanted - max(serving, len(fold.vms))
        if lack > 0:
            return lack
        mine = 0
        for vm in list(fold.vms):
            lost = self.trusting(self.ledgers.setdefault(vm, VmLedger(self.desk, vm)).refresh)
            if lost is None or not lost.ended or lost.ready is None or vm in fold.replaced:
                continue
            self.process.stall()
            if self.journal.replace(vm):
                self.scene.world.note("lost VM replaced")
                mine += 1
            elif vm in self.journal.fold.replaced:
                self.scene.world.note("loss made good by somebody else")
            else:
                self.scene.world.note("one loss too many")
        return mine or int(serving == 0)

    def enlist(self, vm: str) -> None:
        if self.replace_lost >= 0:
            self.journal.enlist(vm)

    def trusting(self, act: Callable[[], T]) -> T | None:
        """What `act` gives; None when it meets an entry that cannot be trusted: one VM's journal says no more."""
        try:
            return act()
        except Corrupt:
            self.scene.world.note("journal refused")
            return None

    def take(self, ledger: VmLedger) -> bool:
        """Give a warm VM the job."""
        beat = read_heartbeat(self.desk.store, ledger.vm, self.desk.keyring)
        if beat is None or beat.busy:
            return False
        self.process.stall()
        if not ledger.assign(self.job, self.keep_warm):
            return False
        self.scene.oracle.moved(ledger.vm, "ASSIGN")
        self.scene.world.note("warm VM taken")
        self.enlist(ledger.vm)
        return True

    def rent(self) -> None:
        """Fix what is to be created, create it, and say so."""
        process = self.process
        vm = new_id(process, process.rng)
        try:
            self.desk.store.create(keys.vm_index(vm), b"")
        except KeyExists:
            # The reply to the create before this one was lost; nobody else has this id.
            pass
        ledger = self.ledgers[vm] = VmLedger(self.desk, vm)
        since = process.monotonic()
        if not insist(process, lambda: ledger.intend(intent(vm, self.job, self.keep_warm))):
            return
        self.scene.oracle.moved(vm, "INTENT")
        process.stall()
        if process.monotonic() - since > CREATE_WINDOW:
            return
        identifier = self.scene.cloud.create(vm)
        process.stall()
        ledger.created(identifier)
        self.enlist(vm)

    def make_ready(self, ledger: VmLedger) -> None:
        """Reach the VM, once it has booted, and let its agent work."""
        rented = self.scene.cloud.get(ledger.vm)
        if rented is None or not rented.booted or rented.machine.dead:
            return
        self.process.stall()
        self.enlist(ledger.vm)
        if ledger.ready(Ready(agent_key=fake_key(f"vm:{ledger.vm}").hex(), boot_id="1")):
            self.scene.oracle.moved(ledger.vm, "READY")


def intent(vm: str, job: str, keep_warm: float) -> Intent:
    return Intent(
        vm=vm,
        deployment=DEPLOYMENT,
        on="sim",
        name=f"vmrun-{DEPLOYMENT}-{vm}",
        region="r",
        zone="z",
        instance_type="huge",
        vcpus=1,
        memory=1,
        arch="x86_64",
        usd_per_hour=None,
        user_data="0" * 64,
        hard_deadline=1e10,
        boot_grace=900.0,
        job=job,
        keep_warm=keep_warm,
    )
