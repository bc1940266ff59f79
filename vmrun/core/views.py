"""What users are shown of jobs and VMs: plain records, computed from folds, printed or made JSON elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .folds import LEFT
from .model import JobState
from .outgrown import Outgrown


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """How many tasks; the reduce counts as one."""

    total: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Deadline:
    """Something that ends a VM."""

    what: str
    #: Seconds since the epoch.
    at: float


@dataclass(frozen=True, slots=True)
class VmView:
    """One VM."""

    id: str
    on: str
    instance_type: str
    region: str
    #: `intended`, `booting`, `ready`, `held`, `draining`, `deleting`, `suspected`, `failed`, `gone`; `unreadable` when
    #: its journal cannot be trusted.
    state: str
    #: Id of the job it works for, "" for none.
    job: str = ""
    busy_because: str = ""
    #: Seconds since the epoch, 0 when not known.
    ends_at: float = 0.0
    ends_because: str = ""
    usd_per_hour: float | None = None
    #: Dollars so far.
    usd: float = 0.0
    created: float = 0.0
    vcpus: int = 0
    #: What it is doing right now, for people.
    doing: str = ""
    #: Peak resident bytes of its agent, as last reported.
    agent_memory: int = 0
    #: The pool that it is of; "" for none.
    pool: str = ""
    #: All that bounds its life, what comes first first; none for one that has ended.
    deadlines: tuple[Deadline, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool."""

    name: str
    #: `up`, `waiting` for its time, `ended`, or `down`.
    state: str
    on: str = ""
    #: VMs that are wanted, those that wait for a job, those that work, and those that are on their way.
    size: int = 0
    ready: int = 0
    busy: int = 0
    starting: int = 0
    vms: tuple[str, ...] = ()
    schedule: str = ""
    #: Seconds since the epoch; 0 where there is none: when it is not wanted any more, when it is up no longer for
    #: now, and when it is up again.
    until: float = 0.0
    ends_at: float = 0.0
    begins_at: float = 0.0


@dataclass(frozen=True, slots=True)
class JobView:
    """One job."""

    id: str
    name: str
    state: JobState
    tasks: TaskCounts
    vms: tuple[VmView, ...] = ()
    usd: float = 0.0
    #: Seconds since the epoch.
    created: float = 0.0
    #: 0 while it has not ended.
    ended: float = 0.0
    #: Why it failed, "" if it did not or if single tasks tell.
    error: str = ""
    hint: str = ""
    #: What kind of error it is, in one word: `budget`; "" for any other.
    error_code: str = ""
    kind: str = "map"
    reduce: bool = False
    #: Workers of one of its VMs, the cores there, and threads that libraries start in each task; 0 while not known.
    workers: int = 0
    cores: int = 0
    threads: int = 0
    #: Seconds that its machine stays for debugging when it fails there; 0: not at all.
    keep_on_failure: float = 0.0
    #: VMs that were asked for, and how many that were lost others were to take the place of.
    vms_asked: int = 1
    vms_replaced: int = 0
    #: VMs that were too small for it, in order.
    outgrown: tuple[Outgrown, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether it had machines and has none any more, although it is not at its end."""
        # Those that it outgrew are not missed.
        small = {each.vm for each in self.outgrown}
        vms = [vm for vm in self.vms if vm.id not in small]
        left = all(vm.state in LEFT for vm in vms) and any(vm.state != "failed" for vm in vms)
        return left and not self.state.ended

    @property
    def wants_larger(self) -> bool:
        """Whether it outgrew all machines that it had, and the next one is not there yet."""
        return bool(self.outgrown) and self.state is JobState.pending

    @property
    def stranded(self) -> bool:
        """Whether it had machines, and none that it has can do its work: whoever waits for it sees to that at once."""
        return self.lost or self.wants_larger


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """One task that failed for good."""

    task: int
    #: raised, exited, signalled, timeout, oom, unpicklable, cancelled, lost.
    kind: str
    type: str
    message: str
    traceback: str = ""
    #: Exit code or signal number.
    exit: int | None = None


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of what a task wrote to stdout or stderr."""

    task: int
    attempt: int
    #: `stdout` or `stderr`.
    stream: str
    data: bytes
    #: Whether the task is the job's reduce.
    reduce: bool = False


@dataclass(frozen=True, slots=True)
class JobResults:
    """What a job gave: values by task (None where a task failed), the reduced value, failures, files brought home."""

    values: list[Any]
    failures: list[TaskFailure]
    reduced: Any = None
    has_reduced: bool = False
    #: Paths on this machine.
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one moment, as a watcher sees it."""

    job: JobView
    #: What is being waited for, in a few words.
    waiting_for: str
    #: Output that appeared since the snapshot before.
    output: tuple[OutputChunk, ...] = ()
    #: What happened to its VMs since, a sentence each.
    news: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reaper's judgement of one VM."""

    vm: str
    on: str
    #: Which policy judged.
    policy: str
    delete: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a submit would do."""

    tasks: int
    on: str
    #: Offers as JSON values, in the order in which they would be tried.
    offers: list[dict[str, Any]] = field(default_factory=list)
    #: What would be made at the cloud, a phrase each.
    creates: tuple[str, ...] = ()
    #: Clouds that could not be asked, as JSON values.
    left_out: list[dict[str, Any]] = field(default_factory=list)
    #: Machines that share it; what they cost is told for all together.
    vms: int = 1
    usd_per_hour: float | None = None
    #: Dollars at most: price times maximum lifetime, or the maximum cost if that is less.
    usd_at_most: float | None = None
    #: (what, seconds) for each deadline.
    deadlines: tuple[tuple[str, float], ...] = ()
    workers: int = 0
    #: That libraries such as OpenMP's start in each worker; 0: not known.
    threads: int = 0
    #: Bytes that one task may take; 0: not said.
    task_memory: int = 0
    #: What a careful person would want to know before, a sentence each.
    warnings: tuple[str, ...] = ()
    #: Bytes that the machine is to have, and where that number comes from; 0 and "" if it was not to be found out.
    memory: int = 0
    memory_why: str = ""
