"""What is known of the tasks of a job once they ended: one record each, and what they come to together.

Times are seconds since the epoch, durations seconds, sizes bytes. What was not measured is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .model import JobState


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task, as the attempt went that gave its outcome. See docs/reference/task-record.md."""

    job: str
    #: What the job is called.
    name: str
    #: Number of the task.
    task: int
    #: Whether it is the job's reduce.
    reduce: bool
    #: How it ended: ok, raised, exited, signalled, timeout, oom, unpicklable, cancelled, lost.
    kind: str
    #: Type and message of what went wrong; "" for `ok`.
    type: str
    message: str
    #: Exit code or signal number.
    exit: int | None
    #: The first one is 0.
    attempt: int

    #: When it was submitted, on the clock of the computer that did; all that follow are on the VM's.
    queued: float
    #: When the VM took the shard that it is part of.
    claimed: float | None
    started: float | None
    ended: float | None
    #: When the entry with its outcome was written to the store.
    committed: float

    #: From start to end.
    seconds: float
    #: Unpickling the argument, and pickling the result.
    load_seconds: float | None
    keep_seconds: float | None
    #: Fetching the arguments from the store, and writing results and files to it: shared by all that went along.
    download_seconds: float
    upload_seconds: float
    #: CPU time, children included. Of tasks under about a millisecond the mean over `measured_with` tasks.
    cpu_seconds: float | None
    user_seconds: float | None
    system_seconds: float | None

    #: Most resident memory of its process while it ran.
    peak_bytes: int | None
    #: Memory of its process when it was done: resident, of which shared with others, and virtual.
    rss_bytes: int | None
    shared_bytes: int | None
    virtual_bytes: int | None
    #: Of the resident memory, what no other process had a part in; and the resident memory when it began.
    private_bytes: int | None
    start_bytes: int | None
    #: What its VM's network interfaces sent and received meanwhile, whoever it was for.
    sent_bytes: int | None
    received_bytes: int | None
    #: Pickled sizes; of files under `$VMRUN_OUTPUT` the sum.
    argument_bytes: int | None
    result_bytes: int
    file_bytes: int

    vm: str
    #: Number of the worker on its VM, and of its process.
    worker: int | None
    pid: int | None
    #: Whether it was the first task of its process.
    cold: bool
    #: Python `major.minor` that ran it.
    python: str
    #: Tasks that user, system and memory figures were taken together for; 1: they are its own.
    measured_with: int

    @property
    def cpu_usage(self) -> float | None:
        """CPU seconds per second: 1.0 is one core kept busy. None for tasks that are too short to say."""
        if self.cpu_seconds is None or self.seconds < 0.001:
            return None
        return self.cpu_seconds / (self.seconds + (self.keep_seconds or 0.0))


@dataclass(frozen=True, slots=True)
class Spread:
    """How numbers are spread; all 0 for none."""

    least: float = 0.0
    median: float = 0.0
    p95: float = 0.0
    most: float = 0.0
    mean: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What one worker did."""

    vm: str
    worker: int
    tasks: int
    failed: int
    #: Seconds in which it was in a task.
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    #: Seconds since the epoch: start of its first task, end of its last.
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class VmStats:
    """What one VM did for the job."""

    vm: str
    #: Workers that it ran the job with, and cores that it has; 0 when not told.
    workers: int
    cores: int
    tasks: int
    #: Bytes that its network interfaces sent and received while it worked for the job.
    sent_bytes: int
    received_bytes: int
    download_seconds: float
    upload_seconds: float


@dataclass(frozen=True, slots=True)
class JobStats:
    """All tasks of a job that have ended, in numbers."""

    job: str
    name: str
    state: JobState
    #: Tasks that there are, and that have ended.
    tasks: int
    ended: int
    #: How many ended how: `{"ok": 97, "raised": 3}`.
    kinds: dict[str, int]
    #: Further attempts that the outcomes took.
    retries: int
    #: Seconds that tasks took, those left out that never began.
    seconds: Spread
    cpu_seconds: float
    user_seconds: float
    system_seconds: float
    #: Most resident memory of one worker.
    peak_bytes: int
    result_bytes: int
    file_bytes: int
    #: Seconds since the epoch; 0 when nothing has ended.
    queued: float
    started: float
    last_ended: float
    committed: float
    #: Workers that there were to do it.
    workers: int
    per_worker: tuple[WorkerStats, ...] = field(default=(), repr=False)
    per_vm: tuple[VmStats, ...] = field(default=(), repr=False)

    @property
    def failed(self) -> int:
        """Tasks that did not end `ok`."""
        return self.ended - self.kinds.get("ok", 0)

    @property
    def span(self) -> float:
        """Seconds from the first start to the last end."""
        return max(0.0, self.last_ended - self.started)

    @property
    def makespan(self) -> float:
        """Seconds from the submission to the last end. Two clocks: wrong by as much as they differ."""
        return max(0.0, self.last_ended - self.queued) if self.last_ended else 0.0

    @property
    def utilisation(self) -> float:
        """CPU seconds per worker and second of the span: 1.0 is every worker's core busy all the time."""
        return self.cpu_seconds / (self.workers * self.span) if self.workers and self.span else 0.0

    @property
    def occupancy(self) -> float:
        """Share of the workers' time, from first start to last end, that was spent in tasks, waiting ones included."""
        return self.seconds.total / (self.workers * self.span) if self.workers and self.span else 0.0
