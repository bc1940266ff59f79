"""The entries that journals are made of, and their sealed form.

A sealed entry is three parts: one line of canonical JSON that says what, where (journal and number), who, and the
hash of the attachment; one line with the signature of the first; the attachment. Place and hash are under the
signature, so an entry can neither be moved to another slot nor be given other bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from . import codec, keys
from .errors import Corrupt, SchemaError, StoreError
from .host_records import Borrow, Return
from .model import FunctionSpec, JobSpec
from .ranges import Range
from .record import Record
from .signing import Signer, Verifier

#: Format of sealed entries. A reader refuses a larger one: it cannot know what it would misread.
SCHEMA = 1
#: Bytes of an entry's first line; larger is damage.
_HEAD_MAX = 8 * 1024 * 1024


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
class Final(Record):
    """How the job ended; the first one counts."""

    TYPE: ClassVar[str] = "FINAL"
    #: `done`, `failed` or `cancelled`.
    outcome: str
    done: int
    failed: int
    #: Why the job failed as a whole (its environment could not be installed); "" when tasks tell.
    error: str = ""
    hint: str = ""
    #: What kind of error it is, in one word: `budget`; "" for any other.
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
    #: Dollars that its first job may cost; 0: no limit.
    max_cost: float = 0.0
    #: Whether it is gone, and costs nothing, once it has powered itself off.
    poweroff_deletes: bool = False
    #: Bytes of disk that were asked for; 0 for what the configuration says.
    disk: int = 0


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
    #: What it is waiting for or doing, for people.
    doing: str = ""
    #: Peak resident bytes of the agent.
    agent_memory: int = 0


_KINDS: tuple[type[Record], ...] = (*Record.__subclasses__(), Borrow, Return)
_TYPES: dict[str, type[Record]] = {kind.TYPE: kind for kind in _KINDS}


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


def seal(journal: str, entry: Entry, signer: Signer) -> bytes:
    """The bytes of `entry`, to be stored as number `entry.n` of `journal`."""
    assert entry.body is not None
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "type": entry.body.TYPE,
        "journal": journal,
        "n": entry.n,
        "writer": signer.name,
        "nonce": entry.nonce,
        "at": round(entry.at, 3),
        "data": codec.to_data(entry.body),
    }
    if entry.attachment:
        head["attachment"] = {"size": len(entry.attachment), "sha256": codec.sha256(entry.attachment)}
    line = codec.canonical(head)
    if len(line) >= _HEAD_MAX:
        raise StoreError(
            f"an entry for {journal} is {len(line)} bytes without its attachment; nobody would read it",
            hint="let each task write fewer files, or put them into one archive",
        )
    return b"".join((line, b"\n", signer.sign(line).hex().encode(), b"\n", entry.attachment))


def authentic(data: bytes, writer: str, verifier: Verifier) -> bool:
    """Whether readers who trust what `verifier` trusts would take the sealed entry as `writer`'s."""
    line, signature, _ = _split(data)
    return verifier.verify(writer, line, signature)


def unseal(journal: str, n: int | None, data: bytes, verifier: Verifier) -> Entry:
    """The entry in `data`, which stood as number `n` of `journal` (None: any number, for what is overwritten).

    Raises Corrupt when place, hash or signature is wrong, SchemaError when written in a newer format.
    """
    where = journal if n is None else keys.entry(journal, n)
    try:
        line, signature, attachment = _split(data)
        head = codec.parse(line)
    except Corrupt as error:
        raise Corrupt(f"{where}: {error.message}") from error
    if not isinstance(head, dict):
        raise Corrupt(f"{where}: not an entry")
    writer = str(head.get("writer", ""))
    if not verifier.verify(writer, line, signature):
        raise Corrupt(f"{where}: the signature is not {writer[:40] or 'anybody'}'s; nothing of it was used")
    # Only now: what nobody signed must not pass for the work of a newer version.
    if isinstance(schema := head.get("schema"), int) and schema > SCHEMA:
        raise SchemaError(f"{where} was written in format {schema}; this vmrun knows {SCHEMA}", hint="upgrade vmrun")
    found = head.get("n")
    if head.get("journal") != journal or not isinstance(found, int) or n not in (None, found):
        raise Corrupt(f"{where}: the entry belongs to {head.get('journal')}, number {found}")
    _check_attachment(where, head.get("attachment"), attachment)
    kind = _TYPES.get(str(head.get("type")))
    body = None if kind is None else codec.from_data(kind, head.get("data"))
    at = codec.from_data(float, head.get("at", 0.0))
    return Entry(found, writer, str(head.get("nonce")), at, body, attachment)


def _split(data: bytes) -> tuple[bytes, bytes, bytes]:
    first = data.find(b"\n", 0, _HEAD_MAX)
    second = data.find(b"\n", first + 1, first + 1 + 1024) if first >= 0 else -1
    if second < 0:
        raise Corrupt("not a sealed entry")
    text = data[first + 1 : second]
    try:
        signature = bytes.fromhex(text.decode("ascii"))
    except ValueError as error:
        raise Corrupt("an entry's signature is not hexadecimal") from error
    if signature.hex().encode() != text:
        raise Corrupt("an entry's signature is not in lower-case hexadecimal")
    return data[:first], signature, data[second + 1 :]


def _check_attachment(where: str, declared: object, attachment: bytes) -> None:
    if declared is None:
        if attachment:
            raise Corrupt(f"{where}: bytes follow that nobody signed for")
        return
    if not isinstance(declared, dict) or declared.get("sha256") != codec.sha256(attachment):
        raise Corrupt(f"{where}: the attachment is not the one that was signed")
