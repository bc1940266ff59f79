"""The entries that journals are made of: what each says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .host_records import Borrow, Return
from .model import FunctionSpec, JobSpec
from .outgrown import Outgrown
from .pool_records import PoolState
from .ranges import Range
from .record import Record

#: Format of sealed entries. A reader refuses a larger one: it cannot know what it would misread.
SCHEMA = 1


# --- a job's journal ---


@dataclass(frozen=True, slots=True)
class Submit(Record):
    """The job exists from here on; all payloads that it names were written before."""

    TYPE: ClassVar[str] = "SUBMIT"
    job: str
    spec: JobSpec
    #: Deployment id, so that an entry copied to another store is refused.
    deployment: str
    #: Chosen by the user to make a repeated submit the same job; "" if none.
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Tasks(Record):
    """Further tasks of an open job; the attachment is their task block."""

    TYPE: ClassVar[str] = "TASKS"
    first: int
    count: int
    function: FunctionSpec


@dataclass(frozen=True, slots=True)
class Close(Record):
    """No tasks will be added to the open job."""

    TYPE: ClassVar[str] = "CLOSE"


@dataclass(frozen=True, slots=True)
class Cancel(Record):
    """Nothing of the job is to be started any more."""

    TYPE: ClassVar[str] = "CANCEL"
    by: str


@dataclass(frozen=True, slots=True)
class Enlist(Record):
    """A VM is there for the job, or on its way: how those of a fleet know of each other, and what it cost."""

    TYPE: ClassVar[str] = "ENLIST"
    vm: str


@dataclass(frozen=True, slots=True)
class Replace(Record):
    """The VM was lost, and whoever wrote this gets another one in its place; nobody else does for a while.

    Written again by whoever takes that over because nothing came of it.
    """

    TYPE: ClassVar[str] = "REPLACE"
    vm: str


@dataclass(frozen=True, slots=True)
class Final(Record):
    """How the job ended; the first one counts."""

    TYPE: ClassVar[str] = "FINAL"
    #: `done`, `failed` or `cancelled`.
    outcome: str
    done: int
    failed: int
    #: Why the job failed as a whole, "" when tasks tell; `code` is `budget` when its money was spent, else "".
    error: str = ""
    hint: str = ""
    code: str = ""


# --- a shard's journal ---


@dataclass(frozen=True, slots=True)
class CrewFacts:
    """Those who work on a VM: for those who look, never for a decision. 0 when not told."""

    workers: int = 0
    cores: int = 0
    #: Threads that libraries such as OpenMP's start in each task.
    threads: int = 0


NO_CREW = CrewFacts()


@dataclass(frozen=True, slots=True)
class Claim(Record):
    """The VM works on the shard from here on; the entry's number is the claim's epoch."""

    TYPE: ClassVar[str] = "CLAIM"
    vm: str
    #: What it runs the job with.
    crew: CrewFacts = NO_CREW


@dataclass(frozen=True, slots=True)
class BlockRef:
    """Where the outcomes of tasks `first` … `first + count - 1` lie."""

    first: int
    count: int
    offset: int
    size: int
    #: SHA-256 of the block's bytes.
    sha256: str
    #: Segment object that holds them; "" for the entry's own attachment.
    segment: str = ""
    #: Tasks among them that failed for good.
    failed: tuple[Range, ...] = ()
    #: Bytes before the payloads, and their SHA-256: what tasks took can be read without their results. 0 when the
    #: payloads are too small for that to matter.
    head: int = 0
    head_sha256: str = ""
    #: Seconds that the segment took to write; it may hold other blocks too.
    upload: float = 0.0


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file that a task wrote under `$VMRUN_OUTPUT`."""

    task: int
    #: Relative, with `/`.
    path: str
    sha256: str
    size: int
    #: Permission bits.
    mode: int = 0o644
    #: Seconds that it took to write.
    upload: float = 0.0


@dataclass(frozen=True, slots=True)
class Download:
    """The VM fetched the arguments of tasks `first` … `first + count - 1`, together."""

    first: int
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came to a VM and left it since its entry before: for those who look, never for a decision."""

    #: Arguments that were fetched.
    downloads: tuple[Download, ...] = ()
    #: Bytes that the VM's network interfaces sent and received, for whatever reason.
    sent: int = 0
    received: int = 0


NO_TRAFFIC = Traffic()


@dataclass(frozen=True, slots=True)
class Results(Record):
    """Outcomes of tasks. The first outcome of a task, in the order of the journal, is its outcome."""

    TYPE: ClassVar[str] = "RESULTS"
    vm: str
    #: Number of the CLAIM under which the work was done.
    epoch: int
    blocks: tuple[BlockRef, ...]
    files: tuple[FileRef, ...] = ()
    traffic: Traffic = NO_TRAFFIC


@dataclass(frozen=True, slots=True)
class Release(Record):
    """The VM gives the shard back."""

    TYPE: ClassVar[str] = "RELEASE"
    vm: str
    reason: str


@dataclass(frozen=True, slots=True)
class StateRef:
    """What a task that runs has saved of itself (`vmrun.checkpoint`)."""

    task: int
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Saved(Record):
    """States of tasks that have no outcome yet; of each task the last one counts, for its next attempt."""

    TYPE: ClassVar[str] = "SAVED"
    vm: str
    #: Number of the CLAIM under which the tasks run.
    epoch: int
    states: tuple[StateRef, ...]


# --- a VM's journal ---


@dataclass(frozen=True, slots=True)
class Intent(Record):
    """A VM may exist from here on, under this name and in this zone and in no other."""

    TYPE: ClassVar[str] = "INTENT"
    vm: str
    deployment: str
    on: str
    name: str
    region: str
    zone: str
    instance_type: str
    vcpus: int
    memory: int
    arch: str
    usd_per_hour: float | None
    #: SHA-256 of the user data: a repeated create call must send the same bytes.
    user_data: str
    #: Seconds since the epoch after which the VM must not exist.
    hard_deadline: float
    #: Seconds within which the VM must be ready, or it ends itself.
    boot_grace: float
    #: The job it is made for.
    job: str
    #: Seconds that it stays after its last job.
    keep_warm: float = 0.0
    #: Whether the cloud may take it back at any time.
    spot: bool = False
    #: For its disk and its public address, which `usd_per_hour` does not hold; None where the price is not known.
    disk_usd_per_hour: float | None = None
    address_usd_per_hour: float | None = None
    #: Dollars that its first job may cost (0: no limit); whether it is gone once it has powered itself off; bytes of
    #: disk that were asked for (0: what the configuration says).
    max_cost: float = 0.0
    poweroff_deletes: bool = False
    disk: int = 0
    #: What its first job finds installed, as `JobSpec.environment_name` has it; "" for nothing of its own.
    environment: str = ""
    #: The pool that it is of; "" for none.
    pool: str = ""
    #: Seconds since the epoch until which it waits for jobs, whatever becomes of them; 0: no longer than they say.
    stay_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Created(Record):
    """The cloud accepted the create call."""

    TYPE: ClassVar[str] = "CREATED"
    cloud_id: str


@dataclass(frozen=True, slots=True)
class Failed(Record):
    """The cloud refused for good; no VM came of the intent."""

    TYPE: ClassVar[str] = "FAILED"
    fault: str
    message: str


@dataclass(frozen=True, slots=True)
class Ready(Record):
    """The client reached the VM over the pinned channel, armed timer and agent key seen; the agent may work."""

    TYPE: ClassVar[str] = "READY"
    #: Public half of the key that the VM made for itself, in hexadecimal.
    agent_key: str
    boot_id: str
    #: SHA-256 of the agent's artefact; "" where the agent is the installed package.
    agent: str = ""
    host_key: str = ""
    host: str = ""
    port: int = 0
    user: str = ""
    workers: int = 0
    #: Python `major.minor` that it has by itself.
    python: str = ""
    #: Whether it can install packages, and other Pythons.
    uv: bool = False


@dataclass(frozen=True, slots=True)
class Assign(Record):
    """The VM's next job. Competes with DELETE and DRAIN for the same slot."""

    TYPE: ClassVar[str] = "ASSIGN"
    job: str
    #: Seconds that it stays after this job.
    keep_warm: float = 0.0
    #: Dollars that this job may cost on it, counted from here on; 0: no limit.
    max_cost: float = 0.0
    #: What this job finds installed, as in the intent.
    environment: str = ""
    #: Seconds since the epoch until which this job may have it; 0: as long as it lives.
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Stay(Record):
    """How long the VM waits for jobs, from here on; its hard deadline holds all the same."""

    TYPE: ClassVar[str] = "STAY"
    #: Seconds since the epoch; 0: no longer than its last job says.
    until: float


@dataclass(frozen=True, slots=True)
class Suspect(Record):
    """Somebody believes the VM dead; ALIVE refutes it."""

    TYPE: ClassVar[str] = "SUSPECT"
    by: str


@dataclass(frozen=True, slots=True)
class Alive(Record):
    """The VM's agent answers a SUSPECT."""

    TYPE: ClassVar[str] = "ALIVE"


@dataclass(frozen=True, slots=True)
class Hold(Record):
    """The VM stays for debugging, takes no further job, and ends when the time is over. The first one counts."""

    TYPE: ClassVar[str] = "HOLD"
    #: The job that failed on it; "" when the VM could not be made ready for one.
    job: str
    #: Seconds since the epoch, on the clock of whoever wrote it.
    until: float
    #: What failed, for people.
    why: str = ""
    #: What set the end: `hold on failure`, or the bound that comes before: `maximum lifetime`, `maximum cost`.
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Drain(Record):
    """The VM takes no further job and ends."""

    TYPE: ClassVar[str] = "DRAIN"
    reason: str


@dataclass(frozen=True, slots=True)
class Delete(Record):
    """The VM is to be deleted; written before every delete call. Nothing but GONE counts after it."""

    TYPE: ClassVar[str] = "DELETE"
    why: str
    by: str


@dataclass(frozen=True, slots=True)
class Gone(Record):
    """The cloud was seen not to have the VM any more."""

    TYPE: ClassVar[str] = "GONE"
    evidence: str
    #: Seconds since the epoch by which it had ended, where that is known to be before the entry; 0: it is not.
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Relieve(Record):
    """Whoever wrote it gets the VM's job another machine, as this one is lost. So that two who wait do not both do."""

    TYPE: ClassVar[str] = "RELIEVE"
    #: A word of the writer's own, by which it knows its entry again.
    by: str


# --- a VM's heartbeat ---


@dataclass(frozen=True, slots=True)
class Heartbeat(Record):
    """A sign of life and what the VM is doing."""

    TYPE: ClassVar[str] = "HEARTBEAT"
    #: Counts up; liveness is that it changes.
    counter: int
    boot_id: str
    #: Number of entries of its own journal that the agent has seen.
    seen: int
    job: str = ""
    running: int = 0
    queued: int = 0
    done: int = 0
    #: Why it counts as busy; "" when it does not.
    busy: str = ""
    #: Seconds without work.
    idle: float = 0.0
    #: Seconds since the epoch, on the VM's clock, when it ends unless something changes, and what ends it then.
    ends_at: float = 0.0
    ends_because: str = ""
    #: Until when its timer lets it live unless the lease is renewed, by the same clock; 0: not renewed yet.
    lease: float = 0.0
    #: What it is waiting for or doing, for people.
    doing: str = ""
    #: Peak resident bytes of the agent.
    agent_memory: int = 0


_KINDS: tuple[type[Record], ...] = (*Record.__subclasses__(), Borrow, Outgrown, PoolState, Return)
#: By the word in the store.
TYPES: dict[str, type[Record]] = {kind.TYPE: kind for kind in _KINDS}


@dataclass(frozen=True, slots=True)
class Entry:
    """One verified entry of a journal."""

    n: int
    writer: str
    nonce: str
    #: Seconds since the epoch on the writer's clock: for people, never for a decision.
    at: float
    #: None for a type that this version does not know; folds pass over it.
    body: Record | None
    attachment: bytes = b""
