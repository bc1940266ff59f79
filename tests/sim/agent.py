"""A VM: its agent's heart, and the agent's work. The moves are production's ledgers; what is decided between them is
as lean as it can be and still make every move at every time."""

from __future__ import annotations

from array import array

from tests.sim.cloud import Rented
from tests.sim.tools import Scene, insist
from tests.sim.world import Process
from vmrun.core import keys
from vmrun.core.blocks import ResultBlock, TaskBlock, lengths_of
from vmrun.core.errors import Corrupt, KeyExists, StoreUnavailable
from vmrun.core.heartbeats import read_heartbeat, write_heartbeat
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.model import ShardPlan
from vmrun.core.outcomes import pack
from vmrun.core.records import Entry, Final, Heartbeat
from vmrun.core.vm_ledger import VmLedger

#: Seconds between looks while there is nothing to do.
POLL = 12.0
#: Attempts at a commit before the shard is left to others.
COMMITS_MAX = 5


def boot(scene: Scene, rented: Rented) -> None:
    """Start the agent, and start it again whenever it is lost."""
    lives = 0

    def start() -> None:
        nonlocal lives
        lives += 1
        agent = Agent(scene, rented, lives)
        if lives > 1:
            scene.world.note("agent started again")
        name = f"{rented.machine.name}.{lives}"
        scene.world.spawn(rented.machine, f"{name}.heart", agent.beat)
        scene.world.spawn(rented.machine, f"{name}.work", agent.work)

    rented.machine.on_restart = start
    start()


class Agent:
    """One life of the agent: two processes on one machine."""

    def __init__(self, scene: Scene, rented: Rented, life: int) -> None:
        self.scene = scene
        self.vm = rented.vm
        self.writer = f"vm:{rented.vm}"
        self.life = life
        self.busy = "starting"
        self.idle_since = 0.0
        #: Shards that it holds and has outcomes for that are not committed.
        self.unsaved = 0
        self.ran = 0
        #: Jobs that it has seen to their end.
        self.done = 0
        self.beats: dict[str, tuple[int, float]] = {}

    def off(self) -> None:
        """Power off; does not come back."""
        if self.unsaved:
            self.scene.world.note("ended with outcomes that were not committed")
        self.scene.cloud.power_off(self.vm)
        self.scene.world.wait(0.0)

    # --- heart ---

    def beat(self, process: Process) -> None:
        desk = self.scene.desk(process, self.writer)
        ledger = VmLedger(desk, self.vm)
        counter = 0
        while True:
            try:
                fold = ledger.refresh()
                if fold.ended:
                    self.off()
                if fold.suspected and fold.ready is not None:
                    ledger.alive()
                process.stall()
                counter += 1
                idle = process.monotonic() - self.idle_since
                # A job that the work has not met yet keeps the VM too: whoever reads `seen` relies on that.
                busy = self.busy or ("a new job" if len(fold.jobs) > self.done else "")
                body = Heartbeat(counter, f"{self.life}", ledger.seen, busy=busy, idle=0.0 if busy else idle)
                assert desk.signer is not None
                write_heartbeat(desk.store, self.vm, Entry(counter, "", "", 0.0, body), desk.signer)
            except StoreUnavailable:
                pass
            except Corrupt:
                # Nothing of such a journal is obeyed; the lease ends the VM.
                self.scene.world.note("journal refused")
                self.off()
            process.sleep(self.scene.knobs.heartbeat)

    # --- work ---

    def work(self, process: Process) -> None:
        ledger = VmLedger(self.scene.desk(process, self.writer), self.vm)
        done: list[str] = []
        self.idle_since = process.monotonic()
        while True:
            try:
                fold = ledger.refresh()
                if fold.ended:
                    self.off()
                jobs = [job for job in fold.jobs if job not in done] if fold.ready is not None else []
                for job in jobs:
                    self.busy = job
                    JobRun(self, process, job).run()
                    done.append(job)
                    self.done = len(done)
                    self.busy, self.idle_since = "", process.monotonic()
                if fold.ready is not None and not jobs:
                    self.busy = ""
                    self.rest(process, ledger, done)
            except StoreUnavailable:
                pass
            except Corrupt:
                self.scene.world.note("journal refused")
                self.off()
            process.sleep(process.rng.uniform(1.0, POLL))

    def rest(self, process: Process, ledger: VmLedger, done: list[str]) -> None:
        """With nothing to do: end, if the time has come and no job came in."""
        fold = ledger.fold
        if fold.drain is not None and len(fold.jobs) == len(done):
            self.off()
        drains = self.scene.knobs.agents_drain or not self.scene.world.faulty
        if drains and process.monotonic() - self.idle_since >= fold.keep_warm:
            process.stall()
            self.scene.oracle.draining[self.vm] = tuple(done)
            if ledger.drain("idle", jobs=len(done)):
                self.scene.oracle.moved(self.vm, "DRAIN")
                self.off()

    def dead(self, process: Process, ledgers: dict[str, VmLedger], owner: str) -> bool:
        """Whether work of `owner` may be taken over: by its journal, or by its standing heart on this clock."""
        desk = self.scene.desk(process, self.writer)
        ledger = ledgers.setdefault(owner, VmLedger(desk, owner))
        try:
            if ledger.refresh().ended:
                return True
        except Corrupt:
            # Its journal tells nothing more; its heart does. Taking over is safe either way.
            self.scene.world.note("journal refused")
        beat = read_heartbeat(desk.store, owner, ledger._keyring)
        counter = -1 if beat is None else beat.counter
        before, since = self.beats.get(owner, (None, 0.0))
        if before != counter:
            self.beats[owner] = (counter, process.monotonic())
            return False
        return process.monotonic() - since > self.scene.knobs.dead_after


class JobRun:
    """One job on one VM, from first look to the end."""

    def __init__(self, agent: Agent, process: Process, job: str) -> None:
        self.agent = agent
        self.scene = agent.scene
        self.process = process
        self.job = job
        self.desk = agent.scene.desk(process, agent.writer)
        self.ledger = JobLedger(self.desk, job)
        self.shards: dict[int, ShardLedger] = {}
        self.others: dict[str, VmLedger] = {}
        self.released: set[int] = set()

    def run(self) -> None:
        """Return when the job is final."""
        while True:
            try:
                fold = self.ledger.refresh()
                if fold.final is not None:
                    return
                if fold.cancelled_by:
                    self.finish("cancelled")
                elif not self.look() and fold.complete and all(self.shard(p).fold.complete for p in fold.shards()):
                    if self.scene.knobs.finisher != "client":
                        self.process.stall()
                        self.finish("")
                    else:
                        self.process.sleep(POLL)
                    continue
            except StoreUnavailable:
                pass
            self.process.sleep(self.process.rng.uniform(0.0, POLL))

    def finish(self, outcome: str) -> None:
        folds = [self.shard(plan).fold for plan in self.ledger.fold.shards()]
        failed = sum(len(fold.failed) for fold in folds)
        done = sum(len(fold.done) for fold in folds) - failed
        if self.ledger.finish(Final(outcome or ("failed" if failed else "done"), done, failed)):
            self.scene.world.note("FINAL by an agent")

    def shard(self, plan: ShardPlan) -> ShardLedger:
        if plan.shard not in self.shards:
            self.shards[plan.shard] = self.ledger.shard(plan)
        return self.shards[plan.shard]

    def look(self) -> bool:
        """Work on every shard that can be had; whether there was any."""
        found = False
        plans = list(self.ledger.fold.shards())
        start = self.process.rng.randrange(len(plans)) if plans else 0
        for plan in plans[start:] + plans[:start]:
            shard = self.shard(plan)
            if shard.fold.complete or plan.shard in self.released:
                self.released.discard(plan.shard)
                continue
            shard.refresh()
            if shard.fold.complete or not self.take(shard):
                continue
            found = True
            self.on(shard)
            self.process.machine.holds = ""
            if self.ledger.refresh().cancelled_by:
                break
        return found

    def take(self, shard: ShardLedger) -> bool:
        vm, owner = self.agent.vm, shard.fold.owner
        if owner and owner != vm:
            if not self.agent.dead(self.process, self.others, owner):
                return False
            self.scene.oracle.judged_dead.add((vm, owner))
        self.process.stall()
        # One's own from before a restart is taken anew; one's own that ended in doubt is found to hold.
        if not shard.claim(vm, from_owner=owner or None):
            return False
        self.scene.oracle.claimed(shard.prefix, vm, shard.fold.epoch)
        self.process.machine.holds = shard.prefix
        return True

    def on(self, shard: ShardLedger) -> None:
        """Run the shard's tasks, committing in groups, until it is done or lost."""
        knobs, process = self.scene.knobs, self.process
        blocks: list[ResultBlock] = []
        group = process.rng.randint(1, knobs.commit_tasks)
        epoch = shard.fold.epoch
        tasks = [task for first, end in shard.fold.remaining() for task in range(first, end)]
        arguments = self.arguments(shard.plan)
        for at, task in enumerate(tasks):
            process.sleep(process.rng.uniform(0.0, self.scene.plan(self.job).task_seconds))
            blocks.append(self.outcome(task, arguments))
            self.agent.unsaved = len(blocks)
            self.scene.nap(process)
            if len(blocks) >= group or at == len(tasks) - 1:
                if not self.commit(shard, epoch, blocks):
                    return
                blocks, group = [], process.rng.randint(1, knobs.commit_tasks)
                self.agent.unsaved = 0
                if self.scene.world.faulty and process.rng.random() < knobs.release and at < len(tasks) - 1:
                    if shard.release(self.agent.vm, "preempted"):
                        self.released.add(shard.plan.shard)
                    return
                if self.ledger.refresh().cancelled_by:
                    shard.release(self.agent.vm, "cancelled")
                    return

    def arguments(self, plan: ShardPlan) -> TaskBlock | None:
        if plan.entry < 0:
            return None
        return TaskBlock.decode(insist(self.process, lambda: self.ledger.attachment(plan.entry)))

    def outcome(self, task: int, arguments: TaskBlock | None) -> ResultBlock:
        """What running a task gives: never the same twice, so that a second outcome can be told from the first."""
        self.agent.ran += 1
        self.scene.oracle.jobs[self.job].ran += 1
        given = b""
        if arguments is not None:
            given = bytes(dict(arguments.items())[task])
            self.scene.oracle.require(given == f"in {task}".encode(), f"task {task} was given {given!r}")
        payload = f"{self.job}|{task}|{self.agent.vm[-4:]}.{self.agent.life}.{self.agent.ran}".encode()
        failed = hash((len(self.job), task, self.scene.world.seed)) % 11 == 0
        return ResultBlock(task, bytes([failed]), lengths_of([payload]), payload, array("d", [0.0]), array("f", [1.0]))

    def commit(self, shard: ShardLedger, epoch: int, blocks: list[ResultBlock]) -> bool:
        """Whether the shard is still this VM's; outcomes that could not be saved are left to others."""
        packed = pack(blocks)
        tasks = [block.first for block in blocks]
        for _ in range(COMMITS_MAX):
            try:
                if packed.segment:
                    self.scene.store.write(keys.segment(self.job, packed.segment), [packed.data])
                    self.scene.world.note("segment")
                inline = b"" if packed.segment else packed.data
                ours = shard.commit(self.agent.vm, epoch, packed.refs, (), inline)
            except KeyExists:
                raise AssertionError("a ledger let KeyExists out") from None
            except StoreUnavailable:
                self.process.sleep(self.process.rng.uniform(0.0, 5.0))
                continue
            self.scene.oracle.committed(self.job, tasks)
            if not ours:
                self.scene.world.note("fenced")
            return ours
        self.scene.world.note("gave up a commit")
        return False
