"""The moves of the protocol: each reads its journal to the end, judges by the fold, and appends or does not.

Every move says whether it holds. None rests on a lease or a clock: the journal's order decides.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence

from . import keys
from .desk import Desk
from .errors import Corrupt, StoreError
from .folds import Extent, JobFold, ShardFold, VmFold
from .ids import is_id
from .model import FunctionSpec, ShardPlan
from .outgrown import Outgrown
from .record import Record
from .records import (
    NO_CREW,
    NO_TRAFFIC,
    Alive,
    Assign,
    BlockRef,
    Cancel,
    Claim,
    Close,
    Created,
    CrewFacts,
    Delete,
    Drain,
    Enlist,
    Entry,
    Failed,
    FileRef,
    Final,
    Gone,
    Hold,
    Intent,
    Ready,
    Release,
    Relieve,
    Replace,
    Results,
    Saved,
    StateRef,
    Stay,
    Submit,
    Suspect,
    Tasks,
    Traffic,
)
from .signing import OwnCheck

__all__ = ["MOVES_MAX", "Desk", "JobLedger", "OwnCheck", "ShardLedger", "VmLedger", "WriterCheck"]

#: Attempts at one move before giving up; each lost attempt means that somebody else's move succeeded.
MOVES_MAX = 1000


class JobLedger:
    """A job's journal and what it means."""

    def __init__(self, desk: Desk, job: str) -> None:
        self.job = job
        self.fold = JobFold()
        self._desk = desk
        #: Number that a TASKS entry was sent for, until it is known what became of it; -1 for none.
        self._adding = -1
        # Agents may declare a job final: their keys are learnt from the VMs' own journals.
        self._check = WriterCheck(desk, job)
        self._journal = desk.journal(keys.job_journal(job), self._check)

    def shard(self, plan: ShardPlan) -> ShardLedger:
        """A shard of this job; who may write to it is found out once for all shards. Not for another thread."""
        return ShardLedger(self._desk, self.job, plan, self._check)

    def read_submission(self) -> Submit | None:
        """The job's submission, None when there is none; of what follows it nothing is read."""
        if self.fold.submit is None:
            for entry in self._journal.read():
                self.fold.apply(entry)
                break
        return self._checked().submit

    def refresh(self) -> JobFold:
        """Read what is new."""
        for entry in self._journal.read():
            self.fold.apply(entry)
        return self._checked()

    def _checked(self) -> JobFold:
        submit = self.fold.submit
        if submit is not None:
            self._desk.check_deployment(submit.deployment, f"job {self.job}")
            if submit.job != self.job:
                raise Corrupt(f"the journal of job {self.job} holds another job's submission")
        return self.fold

    def submit(self, body: Submit) -> bool:
        """Make the job exist; False if somebody else already did."""
        for _ in range(MOVES_MAX):
            if self.refresh().submit is not None:
                return self._journal.wrote(0)
            if self._journal.next:
                raise Corrupt(f"the journal of job {self.job} does not begin with a submission")
            if self._append(body) is not None:
                return True
        raise _contended(keys.job_journal(self.job))

    def add(self, count: int, function: FunctionSpec, block: Callable[[int], bytes]) -> ShardPlan | None:
        """Add tasks to the open job; `block(first)` is their task block. None once it is closed or ended.

        After StoreUnavailable the same call again adds them once, not twice.
        """
        assert count > 0
        for _ in range(MOVES_MAX):
            fold = self.refresh()
            held = self._added_in_doubt(count, function, block)
            if held is not None:
                return held
            if not fold.is_open or fold.closed or fold.cancelled_by or fold.final is not None:
                return None
            self._adding = self._journal.next
            if self._append(Tasks(fold.tasks, count, function), block(fold.tasks)) is not None:
                self._adding = -1
                return fold.added[-1]
        raise _contended(keys.job_journal(self.job))

    def _added_in_doubt(self, count: int, function: FunctionSpec, block: Callable[[int], bytes]) -> ShardPlan | None:
        """The shard of an earlier `add` of the same tasks, whose entry was found to hold only afterwards."""
        n = self._adding
        if n < 0 or not self._journal.wrote(n):
            return None
        plan = next((plan for plan in self.fold.added if plan.entry == n), None)
        same = plan is not None and (plan.count, plan.function) == (count, function)
        held = plan if plan is not None and same and self.attachment(n) == block(plan.first) else None
        self._adding = -1
        return held

    def close(self) -> bool:
        """Say that no tasks follow."""
        return self._move(Close(), lambda fold: fold.is_open and not fold.closed and fold.final is None)

    def cancel(self, by: str) -> bool:
        """Ask for the end; False if the job already ended or was cancelled."""
        return self._move(Cancel(by), lambda fold: fold.final is None and not fold.cancelled_by)

    def enlist(self, vm: str, most: int = 0, gone: Container[str] = ()) -> bool:
        """Note a VM that is made for the job, or given to it; False if it is known, or the job ended.

        With `most`, also if the list has so many VMs that are not `gone`: of clients that all get the job its
        machines at the same time, those that come last have nothing to add.
        """

        def allowed(fold: JobFold) -> bool:
            room = not most or sum(1 for each in fold.vms if each not in gone) < most
            return room and fold.final is None and vm not in fold.vms

        return self._move(Enlist(vm), allowed)

    def replace(self, vm: str) -> bool:
        """Have the right to get another VM for one that was lost; False if it is had, or so many were replaced."""
        return self._move(Replace(vm), lambda fold: fold.may_replace(vm))

    def outgrow(self, body: Outgrown) -> bool:
        """Say that a VM is too small for the job; whether that stands. Nothing of a job that ended is moved."""
        self._move(body, lambda fold: fold.final is None and not fold.outgrew(body.vm))
        return self.fold.final is None and self.fold.outgrew(body.vm)

    def finish(self, body: Final, *, tasks: int | None = None) -> bool:
        """Declare the end; False if it was declared before, or if there are more than `tasks` tasks by now."""
        return self._move(body, lambda fold: fold.final is None and tasks in (None, fold.tasks))

    def _move(self, body: Record, allowed: Callable[[JobFold], bool]) -> bool:
        for _ in range(MOVES_MAX):
            fold = self.refresh()
            # The first entry is the submission's: before it, nothing can be said of the job.
            if fold.submit is None or not allowed(fold):
                return False
            if self._append(body) is not None:
                return True
        raise _contended(keys.job_journal(self.job))

    def _append(self, body: Record, attachment: bytes = b"") -> Entry | None:
        entry = self._journal.append(body, attachment)
        if entry is not None:
            self.fold.apply(entry)
        return entry

    def attachment(self, n: int) -> bytes:
        """The attachment of entry `n`, verified again as it is read."""
        journal = self._desk.journal(keys.job_journal(self.job), self._check)
        journal.next = n
        for entry in journal.read():
            return entry.attachment
        raise Corrupt(f"entry {n} of job {self.job} is missing")


class ShardLedger:
    """A shard's journal and what it means."""

    def __init__(self, desk: Desk, job: str, plan: ShardPlan, check: WriterCheck | None = None) -> None:
        self.fold = ShardFold(plan)
        self.plan = plan
        self.prefix = keys.shard_journal(job, plan.shard)
        self._journal = desk.journal(self.prefix, check or WriterCheck(desk, job))
        self._fresh: list[tuple[Entry, list[Extent]]] = []

    def refresh(self) -> list[tuple[Entry, list[Extent]]]:
        """Read what is new; the entries and the outcomes that each settled.

        What was read before an error is told by the next call that ends without one.
        """
        for entry in self._journal.read():
            self._fresh.append((entry, self.fold.apply(entry)))
        fresh, self._fresh = self._fresh, []
        return fresh

    def catch_up(self) -> ShardFold:
        """Read what is new and keep only what it means: of a long journal, no more than one entry is in memory."""
        for entry in self._journal.read():
            self.fold.apply(entry)
        return self.fold

    def claim(self, vm: str, *, from_owner: str | None = None, crew: CrewFacts = NO_CREW) -> bool:
        """Take the shard for `vm` if nobody has it, or if `from_owner` (judged dead by the caller) still does.

        `crew` is told for those who look. True, too, when an earlier call's claim ended in doubt and is found to hold.
        """
        for _ in range(MOVES_MAX):
            self.refresh()
            if self.fold.complete:
                return False
            if self.fold.owner == vm and self._journal.wrote(self.fold.epoch):
                return True
            if self.fold.owner and self.fold.owner != from_owner:
                return False
            if self._append(Claim(vm, crew)):
                return True
        raise _contended(self.prefix)

    def commit(
        self,
        vm: str,
        epoch: int,
        blocks: Sequence[BlockRef],
        files: Sequence[FileRef],
        inline: bytes,
        *,
        traffic: Traffic = NO_TRAFFIC,
    ) -> bool:
        """Append outcomes, and the `traffic` on the way to them; False when, after it, the shard is not this VM's.

        They are appended even then: first occurrence counts, so finished work is never thrown away. What is settled
        already, by an earlier call that ended in doubt or by another VM, is not appended again.
        """
        body = Results(vm, epoch, tuple(blocks), tuple(files), traffic)
        for _ in range(MOVES_MAX):
            self.refresh()
            if (blocks and self.fold.knows(blocks)) or self._append(body, inline):
                return self.fold.owner == vm and self.fold.epoch == epoch
        raise _contended(self.prefix)

    def release(self, vm: str, reason: str) -> bool:
        """Give the shard back; False if it is not this VM's."""
        return self._move(Release(vm, reason), lambda fold: fold.owner == vm)

    def save(self, vm: str, epoch: int, states: Sequence[StateRef]) -> bool:
        """Note what tasks saved of themselves; False if the shard is not this VM's any more."""
        return self._move(Saved(vm, epoch, tuple(states)), lambda fold: (fold.owner, fold.epoch) == (vm, epoch))

    def _move(self, body: Record, allowed: Callable[[ShardFold], bool]) -> bool:
        for _ in range(MOVES_MAX):
            self.refresh()
            if not allowed(self.fold):
                return False
            if self._append(body):
                return True
        raise _contended(self.prefix)

    def _append(self, body: Record, attachment: bytes = b"") -> bool:
        entry = self._journal.append(body, attachment)
        if entry is not None:
            self.fold.apply(entry)
        return entry is not None


class VmLedger:
    """A VM's journal and what it means. Learns the VM's key from READY, for this and for other journals."""

    def __init__(self, desk: Desk, vm: str) -> None:
        self.vm = vm
        self.fold = VmFold()
        self._desk = desk
        self._keyring = desk.keyring
        self._journal = desk.journal(keys.vm_journal(vm), OwnCheck(desk.keyring, vm))

    @property
    def seen(self) -> int:
        """Number of entries read."""
        return self._journal.next

    def refresh(self) -> VmFold:
        """Read what is new."""
        for _ in self.read():
            pass
        self._check_intent()
        return self.fold

    def read(self) -> Iterator[Entry]:
        """What is new, entry by entry, each folded when it is given."""
        for entry in self._journal.read():
            self._take(entry)
            yield entry

    def _check_intent(self) -> None:
        if self.fold.intent is not None:
            self._desk.check_deployment(self.fold.intent.deployment, f"VM {self.vm}")

    def has(self, job: str) -> bool:
        """Whether the VM was made ready and given `job` at any time. Reads no further than it must.

        So what a VM did for a job stays readable whatever is appended to, or befalls, its journal later.
        """
        if not self._has(job):
            for entry in self._journal.read():
                self._take(entry)
                if self._has(job):
                    break
        return self._has(job)

    def _has(self, job: str) -> bool:
        self._check_intent()
        return self.fold.ready is not None and job in self.fold.jobs

    def _take(self, entry: Entry) -> None:
        self.fold.apply(entry)
        self._check_intent()
        ready = self.fold.ready
        if ready is not None and entry.body is ready:
            self._keyring.add(f"vm:{self.vm}", _public_key(self.vm, ready))

    def intend(self, body: Intent) -> bool:
        """Fix what may be created; nothing may be created before, nor when this is False."""
        for _ in range(MOVES_MAX):
            self.refresh()
            # An intent counts as the first entry only: an id that was condemned before is burnt.
            if self.seen:
                return self._journal.wrote(0) and not self.fold.ended
            if self._append(body):
                return True
        raise _contended(keys.vm_journal(self.vm))

    def created(self, cloud_id: str) -> bool:
        """Note the cloud's identifier."""
        return self._move(Created(cloud_id), lambda fold: not fold.cloud_id and not fold.ended)

    def failed(self, fault: str, message: str) -> bool:
        """Note that the cloud refused for good."""
        return self._move(Failed(fault, message[:2000]), lambda fold: not fold.cloud_id and not fold.ended)

    def ready(self, body: Ready) -> bool:
        """Let the agent work. Raises Corrupt, with nothing written, for a key that is none."""
        _public_key(self.vm, body)
        return self._move(body, lambda fold: fold.ready is None and not fold.ended)

    def assign(self, job: str, keep_warm: float, max_cost: float = 0.0, environment: str = "") -> bool:
        """Give it a further job; False if it can take none. One that it has already is not given twice."""
        self._move(Assign(job, keep_warm, max_cost, environment), lambda fold: fold.assignable and job not in fold.jobs)
        return job in self.fold.jobs and self.fold.drain is None and not self.fold.ended

    def stay(self, until: float) -> bool:
        """Have it wait for jobs until then, 0 for no longer than they say; False if it ends already."""
        self._move(Stay(until), lambda fold: fold.drain is None and not fold.ended and fold.stay_until != until)
        return self.fold.stay_until == until and self.fold.drain is None and not self.fold.ended

    def suspect(self, by: str) -> bool:
        """Say that it seems dead."""
        return self._move(Suspect(by), lambda fold: not fold.suspected and not fold.ended)

    def alive(self) -> bool:
        """Refute a SUSPECT."""
        return self._move(Alive(), lambda fold: fold.suspected and not fold.ended)

    def hold(self, body: Hold, *, jobs: int) -> bool:
        """Keep it for debugging after the `jobs` jobs it has been given; False if it has another one, or ends."""
        self._move(body, lambda fold: fold.unsettled and len(fold.jobs) == jobs)
        return self.fold.hold is not None and self.fold.drain is None and not self.fold.ended

    def drain(self, reason: str, *, jobs: int) -> bool:
        """End after the `jobs` jobs that it has been given; False if a further one came in meanwhile, or it ended."""
        self._move(Drain(reason), lambda fold: fold.drain is None and not fold.ended and len(fold.jobs) == jobs)
        return self.fold.drain is not None and not self.fold.ended and len(self.fold.jobs) == jobs

    def delete(self, why: str, by: str, *, seen: int | None = None, jobs: int | None = None) -> bool:
        """Condemn it; False if that is so already, if there are more entries than `seen`, or other than `jobs` jobs.

        A refused creation too: the refusal may have been wrong. Without any entry, it burns the id.
        """
        for _ in range(MOVES_MAX):
            fold = self.refresh()
            if fold.delete is not None or fold.gone is not None or seen not in (None, self.seen):
                return False
            if jobs not in (None, len(fold.jobs)):
                return False
            if self._append(Delete(why, by)):
                return True
        raise _contended(keys.vm_journal(self.vm))

    def gone(self, evidence: str) -> bool:
        """Note that it is no more."""
        return self._move(Gone(evidence), lambda fold: fold.gone is None)

    def relieve(self, by: str, patience: float, now: float) -> bool:
        """Take it on to replace the lost VM; False while another has, for at most `patience` seconds by the clock."""
        self._move(Relieve(by), lambda fold: fold.relieved_by != by and fold.relieved_at + patience <= now)
        return self.fold.relieved_by == by

    def _move(self, body: Record, allowed: Callable[[VmFold], bool]) -> bool:
        for _ in range(MOVES_MAX):
            fold = self.refresh()
            # The first entry is the intent's: before it, nothing but its end can be said of the VM.
            if (fold.intent is None and fold.delete is None) or not allowed(fold):
                return False
            if self._append(body):
                return True
        raise _contended(keys.vm_journal(self.vm))

    def _append(self, body: Record) -> bool:
        entry = self._journal.append(body)
        if entry is not None:
            self._take(entry)
        return entry is not None


class WriterCheck:
    """Trusts the client, and of the VMs only those to which the client gave this very job."""

    def __init__(self, desk: Desk, job: str) -> None:
        self._desk = desk
        self._job = job
        self._ledgers: dict[str, VmLedger] = {}

    def verify(self, writer: str, message: bytes, signature: bytes) -> bool:
        kind, _, vm = writer.partition(":")
        if kind == "vm" and not self._assigned(vm):
            return False
        return self._desk.keyring.verify(writer, message, signature)

    def _assigned(self, vm: str) -> bool:
        if not is_id(vm):
            return False
        ledger = self._ledgers.get(vm)
        if ledger is None:
            ledger = self._ledgers[vm] = VmLedger(self._desk, vm)
        return ledger.has(self._job)


def _public_key(vm: str, ready: Ready) -> bytes:
    try:
        return bytes.fromhex(ready.agent_key)
    except ValueError as error:
        raise Corrupt(f"the key of VM {vm} is not hexadecimal") from error


def _contended(prefix: str) -> StoreError:
    return StoreError(
        f"{MOVES_MAX} attempts to append to {prefix} were all overtaken",
        hint="another vmrun process appends to it without end; look for a runaway client",
    )
