"""The moves of jobs and shards: each reads its journal to the end, judges by the fold, and appends or does not.

Every move says whether it holds. None rests on a lease or a clock: the journal's order decides.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from . import keys
from .desk import Desk
from .errors import Corrupt
from .folds import Extent, JobFold, ShardFold
from .ids import is_id
from .model import FunctionSpec, ShardPlan
from .outgrown import Outgrown
from .record import Record
from .records import (
    NO_CREW,
    NO_TRAFFIC,
    BlockRef,
    Cancel,
    Claim,
    Close,
    CrewFacts,
    Enlist,
    Entry,
    FileRef,
    Final,
    Release,
    Replace,
    Results,
    Saved,
    StateRef,
    Submit,
    Tasks,
    Traffic,
)
from .signing import OwnCheck
from .vm_ledger import MOVES_MAX, VmLedger, contended

__all__ = ["Desk", "JobLedger", "OwnCheck", "ShardLedger", "WriterCheck"]


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
        raise contended(keys.job_journal(self.job))

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
        raise contended(keys.job_journal(self.job))

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

    def take_over(self, vm: str, failed: str, patience: float, now: float) -> bool:
        """Have the right to replace a lost VM that somebody took on `patience` seconds ago or more, by the clock.

        `failed` is what was listed in its place and is known to have come to nothing, "" for none: not if there is
        another one by now. True, too, while this object's own word stands, which is not said again before it is as old.
        """

        def waits(fold: JobFold) -> bool:
            return fold.final is None and not fold.cancelled_by and fold.replacements.waits(vm, failed)

        def forsaken(fold: JobFold) -> bool:
            return waits(fold) and abs(now - fold.replacements.taken[vm].at) >= patience

        if self._move(Replace(vm), forsaken):
            return True
        return waits(self.fold) and self._journal.wrote(self.fold.replacements.taken[vm].n)

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
        raise contended(keys.job_journal(self.job))

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
        raise contended(self.prefix)

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
        raise contended(self.prefix)

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
        raise contended(self.prefix)

    def _append(self, body: Record, attachment: bytes = b"") -> bool:
        entry = self._journal.append(body, attachment)
        if entry is not None:
            self.fold.apply(entry)
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
