"""An agent without a machine: the real work loop over a store in memory, a clock that is moved, and no processes."""

from __future__ import annotations

import pickle
import random
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.sim.keys import FakeSigner, fake_keyring
from tests.unit.core.world import DEPLOYMENT, JOB, VM, ManualClock, intent, ready
from vmrun.agent import setup
from vmrun.agent.config import AgentConfig
from vmrun.agent.engine import EngineSpec, Event, Files, FunctionDefinition, LargeResult, Output, Results, RunnerDied
from vmrun.agent.pulse import Pulse
from vmrun.agent.sharing import SharedFiles
from vmrun.agent.work import JobRun
from vmrun.agent.workshop import Owners, Workshop
from vmrun.core.blocks import ResultBlock, Status, TaskBlock, failure, lengths_of
from vmrun.core.clock import Clock
from vmrun.core.desk import Desk
from vmrun.core.errors import StoreUnavailable
from vmrun.core.folds import JobFold
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.model import FunctionSpec, JobSpec
from vmrun.core.outcomes import OutcomeReader, in_order
from vmrun.core.records import FileRef, Submit
from vmrun.core.storage import BlobStore
from vmrun.core.vm_ledger import VmLedger
from vmrun.store.faulty import Fault as StoreFault
from vmrun.store.faulty import FaultPlan, FaultyStore, NoFaults, Request, When
from vmrun.store.memory import MemoryStore
from vmrun.submit.publish import put_payload

COMMAND = FunctionSpec("command", argv=("true",))


class Switch:
    """A plan of faults that is thrown by hand: while `down`, no request gets through."""

    def __init__(self) -> None:
        self.down = False

    def fault(self, request: Request, rng: object) -> StoreFault | None:
        return StoreFault(When.BEFORE) if self.down else None


class FakeEngine:
    """Ends every task that it is given at the next poll, with its number as its value."""

    made: list[FakeEngine]
    script: Callable[[FakeEngine], None]
    #: Tasks that never end by themselves.
    stuck: set[int]
    #: Tasks that raise.
    failing: set[int]
    #: Tasks that run out of memory.
    greedy: set[int]
    #: For each task, what comes right before its outcome.
    before: Callable[[FakeEngine, int], list[Event]]

    def __init__(self, spec: EngineSpec, clock: Clock) -> None:
        self.spec, self.clock = spec, clock
        self.fed: list[int] = []
        self.waiting: list[tuple[TaskBlock, str]] = []
        self.ready: list[Event] = []
        self.cancelled = self.closed = self.dead = False
        self.polls = 0
        type(self).made.append(self)

    def define(self, function: str, definition: FunctionDefinition) -> None:
        pass

    def feed(self, block: TaskBlock, function: str) -> None:
        self.fed += range(block.first, block.first + block.count)
        self.waiting.append((block, function))

    def wants(self) -> bool:
        return not self.dead and len(self.waiting) < 4

    def idle(self) -> bool:
        return not self.waiting and not self.ready

    def poll(self, timeout: float) -> list[Event]:
        self.polls += 1
        self.clock.sleep(min(timeout, 0.25))
        type(self).script(self)
        self._finish()
        events, self.ready = self.ready, []
        return events

    def cancel(self) -> None:
        self.cancelled = True

    def close(self) -> None:
        self.closed = self.dead = True

    def die(self, *, told: bool = False) -> None:
        """The runner is gone, with all that it had in hand."""
        if self.dead:
            return
        self.dead = True
        self.waiting.clear()
        self.ready.append(RunnerDied("killed", told))

    def _finish(self) -> None:
        left: list[tuple[TaskBlock, str]] = []
        for block, function in self.waiting:
            for task in range(block.first, block.first + block.count):
                if self.cancelled:
                    self.ready.append(Results(outcome(task, Status.cancelled), function))
                elif task in type(self).stuck:
                    left.append((block.slice(task, 1), function))
                else:
                    events = type(self).before(self, task)
                    self.ready += events
                    if not any(isinstance(event, LargeResult) for event in events):
                        failed = Status.oom if task in type(self).greedy else Status.raised
                        bad = task in type(self).failing | type(self).greedy
                        status = failed if bad else Status.ok
                        self.ready.append(Results(outcome(task, status), function))
        self.waiting = left


def outcome(task: int, status: Status = Status.ok, attempt: int = 1) -> ResultBlock:
    payload = pickle.dumps(task) if status is Status.ok else failure(status, "no")
    zero = array("d", [0.0])
    facts = {"attempt": attempt}
    return ResultBlock(task, bytes([status]), lengths_of([payload]), payload, zero, array("f", [0.0]), facts=facts)


class Bench:
    """One VM's agent, as often as it is started, and a reader of what came of it."""

    def __init__(self, folder: Path, plan: FaultPlan | None = None) -> None:
        self.memory = MemoryStore()
        self.clock, self.rng = ManualClock(), random.Random(3)
        self.blobs: BlobStore = FaultyStore(self.memory, plan or NoFaults(), self.rng)
        self.folder = folder

    def desk(self, writer: str = "client", blobs: BlobStore | None = None) -> Desk:
        return Desk(blobs or self.memory, self.clock, self.rng, fake_keyring(), FakeSigner(writer))

    def submit(self, tasks: int = 12, shard_size: int = 4, job: str = JOB, **changes: object) -> JobLedger:
        """A job of a command without arguments, unless `changes` say otherwise."""
        spec = JobSpec(
            **{
                "name": "a job",
                "kind": "command",
                "function": COMMAND,
                "python": "3.11",
                "tasks": tasks,
                "shard_size": shard_size,
                "workers": 2,
                **changes,
            }
        )
        ledger = JobLedger(self.desk(), job)
        assert ledger.submit(Submit(job, spec, DEPLOYMENT))
        return ledger

    def open_job(self, idle_timeout: float = 1800.0) -> tuple[JobLedger, FunctionSpec]:
        payload = put_payload(self.memory, b"a function")
        self.submit(0, 0, kind="open", function=None, idle_timeout=idle_timeout)
        return JobLedger(self.desk(), JOB), FunctionSpec("pickle", payload=payload)

    def vm(self, vm: str = VM, job: str = JOB, **changes: Any) -> None:
        """A VM that was let in and given the job; `changes` are fields of its intent."""
        ledger = VmLedger(self.desk(), vm)
        assert ledger.intend(replace(intent(vm, job), **changes))
        assert ledger.created("i-1")
        assert ledger.ready(ready(vm))

    def shop(self, vm: str = VM, **changes: object) -> Workshop:
        """The tools of one run of the agent."""
        desk = self.desk(f"vm:{vm}", self.blobs)
        config = AgentConfig(
            **{
                "vm": vm,
                "deployment": DEPLOYMENT,
                "client_key": "",
                "store_url": "",
                "store_options": {},
                "secrets_file": "",
                "key_file": "",
                "lease_file": str(self.folder / "lease"),
                "hard_deadline": self.clock.now() + 86400,
                "work_dir": str(self.folder / vm),
                "environments": str(self.folder / "environments"),
                "app_path": "",
                "python": "python",
                **changes,
            }
        )
        pulse = Pulse(desk, config, "boot")
        stream = f"{vm}.{self.rng.getrandbits(64):x}"
        shared = SharedFiles(str(self.folder / "shared"), self.blobs)
        return Workshop(config, desk, self.blobs, pulse, Owners(desk, 120.0), stream, shared)

    def run(self, vm: str = VM, job: str = JOB, tries: int = 20) -> JobFold:
        """Have the agent work for the job, again when the store keeps it from beginning, until it has ended."""
        for _ in range(tries):
            try:
                JobRun(self.shop(vm), job).run()
                break
            except StoreUnavailable:
                continue
        return self.job(job)

    def job(self, job: str = JOB) -> JobFold:
        return JobLedger(self.desk(), job).refresh()

    def shards(self, job: str = JOB) -> list[ShardLedger]:
        ledger = JobLedger(self.desk(), job)
        shards = [ledger.shard(plan) for plan in ledger.refresh().shards()]
        for shard in shards:
            shard.catch_up()
        return shards

    def values(self, job: str = JOB) -> list[object]:
        """The settled values, in order of tasks; a task that was settled twice would stand here twice."""
        found: list[object] = []
        for shard in self.shards(job):
            reader = OutcomeReader(self.memory, job, shard.prefix)
            for extent in in_order(shard.fold):
                for settled in reader.outcomes(extent):
                    ok = settled.status is Status.ok
                    found.append(pickle.loads(settled.payload) if ok else settled.status.name)
        return found

    def files(self, job: str = JOB) -> list[FileRef]:
        return [file for shard in self.shards(job) for file in shard.fold.files]


def files_of(bench: Bench, task: int, text: str, attempt: int = 1) -> Files:
    """What an engine says of a task that wrote one file."""
    folder = bench.folder / f"files-{task}-{attempt}-{bench.rng.getrandbits(32)}"
    folder.mkdir()
    (folder / "out.txt").write_text(text)
    return Files(task, attempt, str(folder))


def large_of(bench: Bench, task: int) -> LargeResult:
    """What an engine says of a task whose result is a file."""
    path = bench.folder / f"large-{task}-{bench.rng.getrandbits(32)}"
    path.write_bytes(outcome(task).encode())
    return LargeResult(task, str(path), path.stat().st_size)


def said(task: int) -> Output:
    return Output(task, 1, "stdout", f"task {task}\n".encode())


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[FakeEngine]:
    """The engine that the agent starts: a class of this test's own."""

    class Own(FakeEngine):
        made: ClassVar[list[FakeEngine]] = []
        script = staticmethod(lambda engine: None)
        stuck: ClassVar[set[int]] = set()
        failing: ClassVar[set[int]] = set()
        greedy: ClassVar[set[int]] = set()
        before = staticmethod(lambda engine, task: [])

    monkeypatch.setattr(setup, "Engine", Own)
    return Own
