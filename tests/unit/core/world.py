"""What the tests of journals stand on: a store in a dictionary whose creates can be made to fail, a clock that
passes only when told to, ids and desks for everyone."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator

from tests.sim.keys import FakeSigner, fake_key, fake_keyring
from vmrun.core.blocks import ResultBlock, lengths_of
from vmrun.core.desk import Desk
from vmrun.core.errors import KeyExists, KeyNotFound, StoreUnavailable
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.model import FunctionSpec, JobSpec, ShardPlan
from vmrun.core.outcomes import pack
from vmrun.core.records import BlockRef, Intent, Ready, Submit
from vmrun.core.storage import Listed
from vmrun.core.vm_ledger import VmLedger

DEPLOYMENT = "0" * 25 + "d"


def an_id(letter: str) -> str:
    """A well-formed id that is easy to tell from others."""
    return letter * 26


JOB, OTHER_JOB = an_id("j"), an_id("k")
VM, OTHER_VM, THIRD_VM = an_id("a"), an_id("b"), an_id("c")


class ScriptedStore:
    """Objects in a dictionary. `fates` says what becomes of the next creates; then all goes well.

    `lost`: nothing is written, no answer. `dropped`: written, no answer. `late`: no answer, written by `deliver`.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fates: list[str] = []
        self.blind = 0
        self.doubting = False
        self.unanswered = ""
        self.late: list[tuple[str, bytes]] = []
        self.creates: list[str] = []
        self.before_create: list[Callable[[], None]] = []

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if self.blind:
            self.blind -= 1
            raise StoreUnavailable("no answer")
        if key == self.unanswered:
            raise StoreUnavailable("no answer")
        try:
            return self.objects[key][start:end]
        except KeyError:
            raise KeyNotFound(key) from None

    def create(self, key: str, body: bytes) -> None:
        hooks, self.before_create = self.before_create, []
        for hook in hooks:
            hook()
        self.creates.append(key)
        fate = "lost" if key == self.unanswered else self.fates.pop(0) if self.fates else ""
        if self.doubting:
            self.doubting, self.unanswered = False, key
        if fate == "lost":
            raise StoreUnavailable("no answer")
        if fate == "late":
            self.late.append((key, body))
            raise StoreUnavailable("no answer")
        if key in self.objects:
            raise KeyExists(key)
        self.objects[key] = body
        if fate == "dropped":
            raise StoreUnavailable("no answer")

    def doubt(self, fate: str, move: Callable[[], object]) -> None:
        """Make `move` end in doubt; `fate` is what really becomes of the first entry that it creates."""
        self.fates, self.doubting = [fate], True
        try:
            move()
        except StoreUnavailable:
            pass
        else:
            raise AssertionError("the move did not end in doubt")
        assert self.unanswered
        self.unanswered = ""

    def deliver(self) -> int:
        """Let the late creates arrive; how many of them found their place free."""
        landed = 0
        for key, body in self.late:
            if key not in self.objects:
                self.objects[key] = body
                landed += 1
        self.late.clear()
        return landed

    def replace(self, key: str, body: bytes) -> None:
        self.objects[key] = body

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                yield Listed(key, len(self.objects[key]))


class ManualClock:
    """Passes by itself only in `sleep`."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.01)


class Bench:
    """One store, and a desk for each of those who work with it."""

    def __init__(self, store: ScriptedStore | None = None) -> None:
        self.store = store or ScriptedStore()
        self.clock = ManualClock()
        self.rng = random.Random(7)

    def desk(self, writer: str = "client", key: bytes | None = None) -> Desk:
        """A process's own desk: it trusts the client and learns of VMs from their journals."""
        return Desk(self.store, self.clock, self.rng, fake_keyring(), FakeSigner(writer, key))

    def reader(self) -> Desk:
        """A desk that cannot write."""
        return Desk(self.store, self.clock, self.rng, fake_keyring())

    def vm(self, vm: str = VM, writer: str = "client") -> VmLedger:
        return VmLedger(self.desk(writer), vm)

    def job(self, job: str = JOB, writer: str = "client") -> JobLedger:
        return JobLedger(self.desk(writer), job)

    def shard(self, plan: ShardPlan, job: str = JOB, writer: str = "client") -> ShardLedger:
        return ShardLedger(self.desk(writer), job, plan)

    def submitted(self, job: str = JOB, **spec: object) -> JobLedger:
        """A job that exists."""
        ledger = self.job(job)
        assert ledger.submit(Submit(job, job_spec(**spec), DEPLOYMENT))
        return ledger

    def ready_vm(self, vm: str = VM, job: str = JOB) -> VmLedger:
        """A VM that may work for `job`."""
        ledger = self.vm(vm)
        assert ledger.intend(intent(vm, job))
        assert ledger.created(f"i-{vm[:3]}")
        assert ledger.ready(ready(vm))
        return ledger


def job_spec(kind: str = "map", tasks: int = 12, shard_size: int = 4, *, reduce: bool = False) -> JobSpec:
    if kind == "open":
        tasks = shard_size = 0
    return JobSpec(
        name="a job", kind=kind, function=FUNCTION, python="3.11", tasks=tasks, shard_size=shard_size, reduce=reduce
    )


FUNCTION = FunctionSpec("source", path="job.py", name="simulate")


def intent(vm: str = VM, job: str = JOB, *, keep_warm: float = 60.0) -> Intent:
    return Intent(
        vm=vm,
        deployment=DEPLOYMENT,
        on="local",
        name=f"vmrun-{DEPLOYMENT}-{vm}",
        region="here",
        zone="here-1",
        instance_type="huge",
        vcpus=128,
        memory=10**12,
        arch="x86_64",
        usd_per_hour=None,
        user_data="0" * 64,
        hard_deadline=1_800_000_000.0,
        boot_grace=900.0,
        job=job,
        keep_warm=keep_warm,
    )


def ready(vm: str = VM) -> Ready:
    return Ready(agent_key=fake_key(f"vm:{vm}").hex(), boot_id="boot", workers=128)


def results(first: int, *payloads: bytes, status: bytes | None = None) -> tuple[tuple[BlockRef, ...], bytes]:
    """References and inline bytes of one block of outcomes."""
    count = len(payloads)
    block = ResultBlock(
        first,
        bytes(count) if status is None else status,
        lengths_of(payloads),
        b"".join(payloads),
        array("d", [1.5] * count),
        array("f", [0.5] * count),
    )
    packed = pack([block])
    return packed.refs, packed.data


def commit(ledger: ShardLedger, vm: str, first: int, *payloads: bytes, status: bytes | None = None) -> bool:
    refs, inline = results(first, *payloads, status=status)
    return ledger.commit(vm, ledger.fold.epoch, refs, (), inline)
