"""What a job is: the records that a submission fixes once and that never change afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from .clouds import Need

#: Shards for each VM where several share a job, and shards of such a job at most, if that is one for each VM.
SHARDS_PER_VM, SHARDS_MOST = 16, 1024
#: Variables by which libraries are told how many threads to start in a task: those that the runner sets.
THREAD_VARIABLES = frozenset(
    {
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    }
)


class JobState(Enum):
    """Where a job stands."""

    #: Submitted; no machine is on its way.
    pending = "pending"
    #: A machine is being made ready.
    provisioning = "provisioning"
    running = "running"
    #: Every task succeeded (and the reduce, if there is one).
    done = "done"
    #: A task, the reduce or the job's environment failed for good.
    failed = "failed"
    cancelled = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it stays so."""
        return self in (JobState.done, JobState.failed, JobState.cancelled)


@dataclass(frozen=True, slots=True)
class Payload:
    """Content-addressed bytes in the store."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """What a task calls."""

    #: `source`: attribute `name` of the bundle's file `path`; `pickle`: the payload; `command`: `argv`.
    kind: str
    path: str = ""
    name: str = ""
    argv: tuple[str, ...] = ()
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The tasks' arguments: an object of task blocks, and its index of (first, count, offset, size, sha256)."""

    data: Payload
    index: Payload


@dataclass(frozen=True, slots=True)
class SharedData:
    """What all workers of a VM see one copy of."""

    #: A file as it is, or the parcel of an object (`core.parcels`).
    payload: Payload
    #: The file's name, which its copy on the VM has too; "" for an object.
    name: str = ""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One submission."""

    #: What the user called it: data, never part of a key or a path.
    name: str
    #: `map`, `script`, `command`, or `open` (tasks are added until it is closed).
    kind: str
    function: FunctionSpec | None
    #: Python `major.minor` whose pickles and source this job is made of.
    python: str
    #: Number of tasks; 0 for an open job.
    tasks: int = 0
    #: Tasks per shard.
    shard_size: int = 0
    arguments: Arguments | None = None
    #: Tar of the source files.
    code: Payload | None = None
    #: Requirements with hashes, to be installed by uv; None: no environment of its own.
    environment: Payload | None = None
    #: What all tasks can read by `vmrun.shared()`; None: nothing.
    shared: SharedData | None = None
    #: Whether a reduce follows when all tasks are committed.
    reduce: bool = False
    env: dict[str, str] = field(default_factory=dict)
    #: Module path of the submitting process; used only where the job runs on that same machine.
    python_path: tuple[str, ...] = ()
    #: Worker processes; 0: one per core.
    workers: int = 0
    #: Cores for each task; 0: not said.
    threads_per_task: int = 0
    #: A new process for each task.
    fresh: bool = False
    retries: int = 0
    #: Seconds; 0: none.
    task_timeout: float = 0.0
    #: Also the memory that one task may take.
    need: Need = field(default_factory=Need)
    #: Which driver's machine it is to run on.
    on: str = "local"
    #: Seconds that its machine may live at most.
    max_lifetime: float = 86400.0
    #: Seconds that its machine stays after it.
    keep_warm: float = 0.0
    #: Seconds that its machine stays for debugging when it failed there; 0: not at all.
    keep_on_failure: float = 0.0
    #: Dollars that it may cost; 0: no limit.
    max_cost: float = 0.0
    #: Whether a limit in dollars lets it have a machine whose price is not known, on which no such limit can hold.
    allow_unknown_price: bool = False
    #: VMs that share it, if they are to be had, and how many that are lost are replaced.
    vms: int = 1
    replace_lost: int = 0
    #: What becomes of a task that runs out of memory: `fail`, or `grow`: it runs again on a larger machine.
    on_oom: str = "fail"
    #: For an open job: seconds without a call after which it is taken for abandoned and ends.
    idle_timeout: float = 1800.0

    @property
    def environment_name(self) -> str:
        """What tells one installed environment from another; "" for none of its own."""
        return "" if self.environment is None else f"{self.python}:{self.environment.sha256}"

    @property
    def shards(self) -> int:
        """Number of shards of tasks, the reduce not counted."""
        return -(-self.tasks // self.shard_size) if self.shard_size else 0

    @property
    def total(self) -> int:
        """Number of tasks, the reduce counted."""
        return self.tasks + (1 if self.reduce and self.tasks else 0)


def shard_size(tasks: int, vms: int) -> int:
    """Tasks of each shard: all for one VM; for several, few enough that none waits long for what another one holds."""
    if vms <= 1 or not tasks:
        return tasks
    shards = max(vms, min(SHARDS_PER_VM * vms, SHARDS_MOST))
    return -(-tasks // shards)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard: its number and the contiguous tasks `first` … `first + count - 1`."""

    shard: int
    first: int
    count: int
    #: The reduce over all other tasks' results.
    reduce: bool = False
    #: For a shard of an open job: what its tasks call.
    function: FunctionSpec | None = None
    #: For a shard of an open job: number of the journal entry whose attachment is its task block.
    entry: int = -1
    #: For a shard of an open job: seconds since the epoch, by the client, when its tasks were added.
    added: float = field(default=0.0, compare=False)

    @property
    def end(self) -> int:
        """One past the last task."""
        return self.first + self.count


def plan_shards(spec: JobSpec, start: int = 0) -> Iterator[ShardPlan]:
    """The shards, from number `start` on, of a job whose tasks are fixed, the reduce last."""
    for shard in range(start, spec.shards):
        first = shard * spec.shard_size
        yield ShardPlan(shard, first, min(spec.shard_size, spec.tasks - first))
    if spec.reduce and spec.tasks and start <= spec.shards:
        yield ShardPlan(spec.shards, spec.tasks, 1, reduce=True)
