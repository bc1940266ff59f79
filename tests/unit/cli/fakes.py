"""A deployment without a store or machines: what it is asked is recorded, what it answers is set by the test."""

from __future__ import annotations

import json
import pickle
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vmrun.account import Checked
from vmrun.core.blocks import Status
from vmrun.core.clouds import Need
from vmrun.core.errors import UsageError, VmrunError
from vmrun.core.estates import Finding, Grade
from vmrun.core.model import JobState
from vmrun.core.task_views import JobStats, TaskRecord, VmStats, WorkerStats
from vmrun.core.views import (
    JobResults,
    JobView,
    OutputChunk,
    Plan,
    PoolView,
    Snapshot,
    TaskCounts,
    TaskFailure,
    Verdict,
    VmView,
)
from vmrun.fleet.login import remote_words
from vmrun.fleet.pooling import Changes
from vmrun.fleet.release import Released
from vmrun.submit.request import SubmitRequest
from vmrun.watch.costs import By, Costs
from vmrun.watch.life import Life
from vmrun.watch.stats import spread
from vmrun.watch.timeline import Timeline

JOB = "01hzy3v7k9m2n4p6q8r0s1t2v3"
VM = "01hzy3vm00m2n4p6q8r0s1t2v3"
#: Seconds since the epoch, of the fake's clock.
NOW = 1_750_000_000.0


class ManualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, now: float = NOW) -> None:
        self._now = now
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds


def vm_view(**changes: Any) -> VmView:
    view = VmView(
        id=VM,
        on="docker",
        instance_type="2-cpu",
        region="here",
        state="ready",
        job=JOB,
        busy_because="8 tasks run",
        ends_at=NOW + 720,
        ends_because="idle",
        usd_per_hour=0.0,
        created=NOW - 60,
        vcpus=2,
    )
    return replace(view, **changes)


def job_view(state: str = "done", **changes: Any) -> JobView:
    ended = JobState(state).ended
    tasks = TaskCounts(4, 4, 0, 0) if state == "done" else TaskCounts(4, 1, 1 if state == "failed" else 0, 0)
    view = JobView(
        id=JOB,
        name="simulate",
        state=JobState(state),
        tasks=tasks,
        vms=(vm_view(),),
        usd=0.125,
        created=NOW - 90,
        ended=NOW if ended else 0.0,
    )
    return replace(view, **changes)


def failure(task: int = 1, **changes: Any) -> TaskFailure:
    trace = 'Traceback (most recent call last):\n  File "job.py", line 3, in simulate\nValueError: bad seed\n'
    return replace(TaskFailure(task, "raised", "ValueError", "bad seed", trace), **changes)


def record(task: int = 0, kind: str = "ok", **changes: Any) -> TaskRecord:
    """A task that took half a second, `task` seconds after the first one began."""
    made = TaskRecord(
        job=JOB,
        name="simulate",
        task=task,
        reduce=False,
        kind=kind,
        type="" if kind == "ok" else "ValueError",
        message="" if kind == "ok" else "bad seed",
        exit=None,
        attempt=0,
        queued=NOW - 90,
        claimed=NOW - 85,
        started=NOW - 80 + task,
        ended=NOW - 79.5 + task,
        committed=NOW - 70 + task,
        seconds=0.5,
        load_seconds=None,
        keep_seconds=None,
        download_seconds=0.0,
        upload_seconds=0.0,
        cpu_seconds=0.4,
        user_seconds=0.3,
        system_seconds=0.1,
        peak_bytes=20_000_000,
        rss_bytes=10_000_000,
        shared_bytes=5_000_000,
        virtual_bytes=30_000_000,
        private_bytes=4_000_000,
        start_bytes=9_000_000,
        sent_bytes=100,
        received_bytes=200,
        argument_bytes=5,
        result_bytes=17,
        file_bytes=0,
        vm=VM,
        worker=task % 2,
        pid=100 + task % 2,
        cold=task < 2,
        python="3.11",
        measured_with=1,
    )
    return replace(made, **changes)


def stats_of(records: Sequence[TaskRecord], view: JobView) -> JobStats:
    began = [each.started for each in records if each.started]
    ended = [each.ended for each in records if each.ended]
    workers = sorted({(each.vm, each.worker) for each in records if each.worker is not None})
    return JobStats(
        job=view.id,
        name=view.name,
        state=view.state,
        tasks=view.tasks.total,
        ended=len(records),
        kinds=dict(Counter(each.kind for each in records)),
        retries=sum(each.attempt for each in records),
        seconds=spread([each.seconds for each in records if each.started]),
        cpu_seconds=sum(each.cpu_seconds or 0.0 for each in records),
        user_seconds=0.0,
        system_seconds=0.0,
        peak_bytes=max((each.peak_bytes or 0 for each in records), default=0),
        result_bytes=sum(each.result_bytes for each in records),
        file_bytes=0,
        queued=view.created,
        started=min(began, default=0.0),
        last_ended=max(ended, default=0.0),
        committed=max((each.committed for each in records), default=0.0),
        workers=len(workers),
        per_worker=tuple(WorkerStats(vm, slot, 1, 0, 0.5, 0.4, 1, NOW, NOW) for vm, slot in workers),
        per_vm=tuple(VmStats(vm, 2, 2, 1, 0, 0, 0.0, 0.0) for vm in sorted({vm for vm, _ in workers})),
    )


def timeline_of(records: Sequence[TaskRecord], stats: JobStats) -> Timeline:
    began = [each for each in records if each.started and each.worker is not None]
    rows = sorted({(each.vm, each.worker or 0) for each in began})
    return Timeline(
        stats,
        rows,
        array("I", [rows.index((each.vm, each.worker or 0)) for each in began]),
        array("d", [each.started or 0.0 for each in began]),
        array("f", [each.seconds for each in began]),
        bytearray(Status[each.kind] for each in began),
    )


def wrote(text: str, task: int = 0, stream: str = "stdout", *, reduce: bool = False) -> OutputChunk:
    return OutputChunk(task, 0, stream, text.encode(), reduce)


@dataclass
class FakeHandle:
    """One job: views that it goes through, and what it gives."""

    id: str = JOB
    views: Sequence[JobView] = field(default_factory=lambda: [job_view()])
    #: Output that comes with each view.
    output: Sequence[Sequence[OutputChunk]] = ()
    given: JobResults = field(default_factory=lambda: JobResults([0, 1, 4, 9], []))
    #: Files by name, brought home by `collect`.
    files: dict[str, str] = field(default_factory=dict)
    cancels: bool = True
    #: Of its tasks.
    ended: Sequence[TaskRecord] = ()
    #: Raised when they were read.
    broken: VmrunError | None = None
    drawn: Timeline | None = None
    #: Called before each snapshot but the first.
    between: Callable[[], None] = lambda: None
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def status(self) -> JobView:
        return self.views[-1] if self._watched or len(self.views) == 1 else self.views[0]

    _watched: bool = False

    def watch(self, *, output: bool = True) -> Iterator[Snapshot]:
        self.calls.append(("watch", output))
        for at, view in enumerate(self.views):
            if at:
                self.between()
            chunks = tuple(self.output[at]) if output and at < len(self.output) else ()
            yield Snapshot(view, "" if view.state.ended else "tasks", chunks)
        self._watched = True
        self.calls.append(("watched to the end",))

    def wait(self, timeout: float | None = None) -> JobView:
        self.calls.append(("wait", timeout))
        if not self.views[-1].state.ended:
            raise TimeoutError
        return self.views[-1]

    def collect(self, directory: str | None = None) -> JobResults:
        self.calls.append(("collect", directory))
        if directory is None or not self.files:
            return self.given
        paths = []
        for name, text in self.files.items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            paths.append(str(path))
        return replace(self.given, files=tuple(paths))

    def task_reader(self) -> FakeHandle:
        self.calls.append(("task_reader",))
        return self

    def records(self) -> Iterator[TaskRecord]:
        yield from self.ended
        if self.broken is not None:
            raise self.broken

    def stats(self, view: JobView | None = None) -> JobStats:
        return stats_of(self.ended, view or self.status())

    def timeline(self) -> Timeline:
        return self.drawn or timeline_of(self.ended, self.stats())

    def save(self, path: str) -> None:
        self.calls.append(("save", path))
        if path.endswith(".pkl"):
            Path(path).write_bytes(pickle.dumps(self.given.values))
        else:
            Path(path).write_text("".join(json.dumps(value) + "\n" for value in self.given.values), encoding="utf-8")

    def logs(self, *, follow: bool = False, task: int | None = None) -> Iterator[OutputChunk]:
        self.calls.append(("logs", follow, task))
        return (chunk for chunks in self.output for chunk in chunks if task is None or chunk.task == task)

    def cancel(self) -> bool:
        self.calls.append(("cancel",))
        return self.cancels


@dataclass
class FakeAccount:
    """Surroundings in which the test says what is found."""

    called: Callable[..., None]
    checked: Sequence[Checked] = (
        Checked("here", Finding("store", Grade.good, "file:///s keeps its promises")),
        Checked("here", Finding("uv", Grade.warning, "uv is not installed", "pip install uv")),
    )
    rights: dict[str, str] = field(default_factory=lambda: {"ec2": '{"Version": "2012-10-17"}\n'})
    steps: Sequence[str] = ("made the network vmrun-x", "made the group vmrun-x")
    #: Raised after the first step.
    breaks: VmrunError | None = None

    def check(self, on: str | None, need: Need) -> Iterator[Checked]:
        self.called("check", on, need)
        yield from self.checked

    def policies(self, on: str | None) -> dict[str, str]:
        self.called("policies", on)
        return self.rights

    def establish(self, on: str) -> Iterator[str]:
        self.called("establish", on)
        for step in self.steps:
            yield step
            if self.breaks is not None:
                raise self.breaks

    def dismantle(self, on: str) -> Iterator[str]:
        self.called("dismantle", on)
        yield from self.steps


class FakePools:
    """Pools as the test sets them; what is asked is recorded."""

    def __init__(self) -> None:
        self.known: list[PoolView] = []
        self.calls: list[tuple[object, ...]] = []
        self.client: FakeClient | None = None

    def called(self, *call: object) -> None:
        self.calls.append(call)
        if self.client is not None and self.client.trouble is not None:
            raise self.client.trouble

    def views(self) -> list[PoolView]:
        return self.known

    def up(self, name: str, changes: Changes, on_stage: Callable[[str], None], on_price: Callable[[str], None]) -> Any:
        on_stage("making them")
        self.called("up", name, changes)
        return PoolView(name, "up", "docker", size=2, ready=1, starting=1, ends_at=NOW + 3600, until=NOW + 3600)

    def down(self, name: str, on_stage: Callable[[str], None], patience: float) -> PoolView:
        self.called("down", name, patience)
        return PoolView(name, "down", busy=1, vms=(VM,))


@dataclass
class FakeClient:
    """One deployment with one job."""

    job: FakeHandle = field(default_factory=FakeHandle)
    pools: FakePools = field(default_factory=FakePools)
    stages: Sequence[str] = ("uploading", "booting vmrun-x")
    vm_views: Sequence[VmView] = field(default_factory=lambda: [vm_view()])
    verdicts: Sequence[Verdict] = (
        Verdict(VM, "docker", "idle", delete=True, reason="idle for 20m"),
        Verdict("01hzy3vm11m2n4p6q8r0s1t2v3", "local", "busy", delete=False, reason="8 tasks run"),
    )
    planned: Plan = field(
        default_factory=lambda: Plan(
            tasks=4,
            on="docker",
            offers=[
                {
                    "on": "docker",
                    "instance_type": "2-cpu",
                    "region": "here",
                    "arch": "x86_64",
                    "vcpus": 2,
                    "cores": 2,
                    "memory_gib": 4.0,
                    "usd_per_hour": 0.0,
                    "spot": False,
                    "priced_at": "",
                }
            ],
            usd_per_hour=0.5,
            usd_at_most=12.0,
            deadlines=(("maximum lifetime", 86400.0),),
            workers=2,
            threads=4,
            task_memory=8 * 10**9,
        )
    )
    #: What a submission says of the price.
    price: str = ""
    spent: Costs = field(default_factory=lambda: Costs(By.job, NOW - 86400, NOW))
    #: Raised by whatever is called first.
    trouble: BaseException | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    #: Called in each pass of a service; may stop it by a signal, or raise.
    passed: Callable[[], None] = lambda: None
    #: Called when the machine of a job is given back.
    settling: Callable[[], None] = lambda: None
    told: Life = field(default_factory=lambda: Life(vm_view(), ()))
    _account: FakeAccount | None = None

    def __post_init__(self) -> None:
        self.pools.client = self

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if self.trouble is not None:
            raise self.trouble

    def leave(self, job: str) -> None:
        self.calls.append(("leave", job))

    def settle(self, job: str) -> None:
        self.calls.append(("settle", job))
        self.settling()

    def submit(
        self,
        request: SubmitRequest,
        *,
        detach: bool = False,
        on_stage: Callable[[str], None] | None = None,
        on_price: Callable[[str], None] | None = None,
    ) -> FakeHandle:
        self._called("submit", request, detach)
        if on_price is not None and self.price:
            on_price(self.price)
        for stage in self.stages:
            if on_stage is not None:
                on_stage(stage)
        return self.job

    def plan(self, request: SubmitRequest, on_stage: Callable[[str], None]) -> Plan:
        self._called("plan", request)
        on_stage("asking ec2 what it offers")
        return self.planned

    def jobs(self, limit: int = 50) -> list[JobView]:
        self._called("jobs", limit)
        return [self.job.status()][:limit]

    def vms(self) -> list[VmView]:
        self._called("vms")
        return list(self.vm_views)

    def costs(self, by: By, seconds: float) -> Costs:
        self._called("costs", by, seconds)
        return self.spent

    def handle(self, job: str) -> FakeHandle:
        self._called("handle", job)
        if not self.job.id.startswith(job):
            raise UsageError(f"there is no job {job[:80]!r} in this store", hint="`vmrun status` lists the jobs")
        return self.job

    def revive(self, job: str) -> None:
        self._called("revive", job)

    def reap(
        self,
        *,
        dry_run: bool = False,
        all_: bool = False,
        on_stage: Callable[[str], None] | None = None,
        stopping: Callable[[], bool] | None = None,
        among: Container[str] | None = None,
    ) -> list[Verdict]:
        self._called("reap", dry_run, all_, *([among] if among is not None else []))
        if stopping is not None:
            self.passed()
        return list(self.verdicts)

    def life(self, vm: str) -> Life:
        self._called("life", vm)
        return self.told

    def ssh_argv(self, target: str, words: Sequence[str] = (), *, plain: bool = False) -> list[str]:
        self._called("ssh_argv", target, tuple(words), plain)
        return ["ssh", "-p", "2222", "vmrun@127.0.0.1", *remote_words(words)]

    def release(self, target: str, on_stage: Callable[[str], None]) -> Released:
        self._called("release", target)
        on_stage("giving back it")
        return Released(VM, gone=True)

    @property
    def account(self) -> FakeAccount:
        self._account = self._account or FakeAccount(self._called)
        return self._account

    def init_docker(self, on_stage: Callable[[str], None]) -> None:
        self._called("init_docker")
        on_stage("building the machine image 40%")

    @property
    def request(self) -> SubmitRequest:
        """What was submitted."""
        return next(call[1] for call in self.calls if call[0] in ("submit", "plan"))
