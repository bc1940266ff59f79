"""What journals mean: pure folds from entries to the state of a job, a shard and a VM.

A fold sees every entry once, in order, and never forgets a decision: outcomes do not flip, a deleted VM does not
come back, whatever late writers append.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .errors import BudgetError
from .model import JobSpec, ShardPlan, plan_shards
from .outgrown import Outgrown
from .ranges import Range, RangeSet
from .records import (
    NO_CREW,
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
)
from .replacements import Replacements


@dataclass(slots=True)
class JobFold:
    """A job as its own journal tells it."""

    submit: Submit | None = None
    #: Seconds since the epoch, by the submitting client.
    created_at: float = 0.0
    ended_at: float = 0.0
    closed: bool = False
    cancelled_by: str = ""
    final: Final | None = None
    #: Shards of an open job, in order of their entries.
    added: list[ShardPlan] = field(default_factory=list)
    #: Tasks known so far.
    tasks: int = 0
    #: VMs of a job that several share, in order; and what is said of those among them that were lost.
    vms: list[str] = field(default_factory=list)
    replacements: Replacements = field(default_factory=Replacements)
    #: VMs that were too small, one entry each, and when the last one said so, on its clock.
    outgrown: list[Outgrown] = field(default_factory=list)
    outgrown_at: float = 0.0

    def apply(self, entry: Entry) -> None:
        """Take in the next entry. Only the client may write what is neither a FINAL nor an OUTGROWN."""
        body = entry.body
        if isinstance(body, Final):
            if self.final is None:
                self.final, self.ended_at = body, entry.at
        elif isinstance(body, Outgrown):
            self._outgrow(entry, body)
        elif not entry.writer.startswith("client"):
            return
        elif isinstance(body, Submit):
            self._submit(entry, body)
        elif isinstance(body, Tasks):
            self._add(entry, body)
        elif isinstance(body, Close):
            self.closed = True
        elif isinstance(body, Cancel) and not self.cancelled_by:
            self.cancelled_by = body.by or "somebody"
        elif isinstance(body, Enlist | Replace):
            self._note_vm(entry, body)

    def _note_vm(self, entry: Entry, body: Enlist | Replace) -> None:
        if isinstance(body, Replace):
            self.replacements.take(body.vm, entry.n, entry.at)
        elif body.vm not in self.vms:
            self.vms.append(body.vm)
            self.replacements.came(body.vm)

    def _submit(self, entry: Entry, body: Submit) -> None:
        if self.submit is None and entry.n == 0:
            self.submit, self.created_at, self.tasks = body, entry.at, body.spec.tasks

    def _outgrow(self, entry: Entry, body: Outgrown) -> None:
        # A VM speaks for itself only, and once.
        if entry.writer == f"vm:{body.vm}" and not self.outgrew(body.vm):
            self.outgrown.append(body)
            self.outgrown_at = entry.at

    def _add(self, entry: Entry, body: Tasks) -> None:
        # Numbers must follow on from what is there: a second client of the same open job loses its range.
        if self.is_open and not self.closed and body.first == self.tasks and body.count > 0:
            function = body.function
            if self.added and self.added[-1].function == function:
                function = self.added[-1].function  # one object for the many calls of one function
            first, count = body.first, body.count
            plan = ShardPlan(len(self.added), first, count, function=function, entry=entry.n, added=entry.at)
            self.added.append(plan)
            self.tasks += body.count

    def outgrew(self, vm: str) -> bool:
        """Whether the VM said that it is too small for the job."""
        return any(each.vm == vm for each in self.outgrown)

    @property
    def spec(self) -> JobSpec:
        """What was submitted."""
        assert self.submit is not None
        return self.submit.spec

    @property
    def may_be_held(self) -> bool:
        """Whether it asked that a machine on which it failed stays, and did fail; not when its money is spent."""
        failed = self.final is not None and self.final.outcome == "failed" and self.final.code != BudgetError.code
        return failed and self.spec.keep_on_failure > 0

    @property
    def is_open(self) -> bool:
        """Whether tasks are added after the submission."""
        return self.submit is not None and self.submit.spec.kind == "open"

    @property
    def replaced(self) -> list[str]:
        """VMs that were lost and that somebody took on to replace, in order."""
        return list(self.replacements.taken)

    def may_replace(self, vm: str) -> bool:
        """Whether another VM may be had for this one, which was lost."""
        waits = self.final is None and not self.cancelled_by and vm not in self.replaced
        return waits and len(self.replaced) < self.spec.replace_lost

    @property
    def complete(self) -> bool:
        """Whether all tasks that there will ever be are known."""
        return self.submit is not None and (not self.is_open or self.closed)

    def shards(self, start: int = 0) -> Iterator[ShardPlan]:
        """The shards known so far, from number `start` on, the reduce last."""
        if self.submit is None:
            return iter(())
        return iter(self.added[start:]) if self.is_open else plan_shards(self.spec, start)


@dataclass(frozen=True, slots=True)
class Extent:
    """Outcomes that count, of tasks `first` … `end - 1`, and the block that holds them (and perhaps others)."""

    first: int
    end: int
    #: Number of the entry in the shard's journal.
    entry: int
    block: BlockRef
    #: Tasks among `first` … `end - 1` that failed.
    failed: tuple[Range, ...] = ()


@dataclass(slots=True)
class ShardFold:
    """A shard as its journal tells it: who works on it, and the outcome of each task, settled by first occurrence."""

    plan: ShardPlan
    #: The VM that holds the shard; "" for nobody.
    owner: str = ""
    #: Number of the CLAIM under which it does.
    epoch: int = -1
    #: What the last claim told of those who work there.
    crew: CrewFacts = NO_CREW
    #: Claims since an outcome was last settled, those that were given back not counted.
    barren: int = 0
    #: Every VM that ever claimed the shard.
    claimants: set[str] = field(default_factory=set)
    done: RangeSet = field(default_factory=RangeSet)
    failed: RangeSet = field(default_factory=RangeSet)
    extents: list[Extent] = field(default_factory=list)
    files: list[FileRef] = field(default_factory=list)
    #: What tasks without an outcome saved last.
    saved: dict[int, StateRef] = field(default_factory=dict)

    def apply(self, entry: Entry) -> list[Extent]:
        """Take in the next entry; the outcomes that it settled."""
        body = entry.body
        # A VM speaks for itself only: an entry signed by one in the name of another is void.
        if isinstance(body, Claim | Results | Release | Saved) and entry.writer != f"vm:{body.vm}":
            return []
        if isinstance(body, Claim):
            self.owner, self.epoch = body.vm, entry.n
            self.crew = body.crew
            self.barren += 1
            self.claimants.add(body.vm)
        elif isinstance(body, Release):
            if self.owner == body.vm:
                self.owner, self.barren = "", max(0, self.barren - 1)
        elif isinstance(body, Results):
            return self._settle(entry.n, body)
        elif isinstance(body, Saved) and (body.vm, body.epoch) == (self.owner, self.epoch):
            self._save(body)
        return []

    def _save(self, body: Saved) -> None:
        """Who has lost the shard to another VM saves nothing more: that one may be further by now."""
        for state in body.states:
            if self.plan.first <= state.task < self.plan.end and not self.done.covered(state.task, state.task + 1):
                self.saved[state.task] = state
                self.barren = 0

    def _settle(self, n: int, body: Results) -> list[Extent]:
        settled: list[Extent] = []
        for block in body.blocks:
            end = block.first + block.count
            if block.count < 1 or block.first < self.plan.first or end > self.plan.end:
                continue
            for first, stop in self.done.add(block.first, end):
                failed = tuple(_clip(block.failed, first, stop))
                for low, high in failed:
                    self.failed.add(low, high)
                settled.append(Extent(first, stop, n, block, failed))
                for task in [task for task in self.saved if first <= task < stop]:
                    del self.saved[task]
        if settled:
            self.barren = 0
        self.extents.extend(settled)
        # Files count with the outcome that they came with.
        self.files.extend(
            file for file in body.files if any(extent.first <= file.task < extent.end for extent in settled)
        )
        return settled

    @property
    def complete(self) -> bool:
        """Whether every task of the shard has its outcome."""
        return len(self.done) == self.plan.count

    def knows(self, blocks: Iterable[BlockRef]) -> bool:
        """Whether every task in `blocks` has its outcome."""
        return all(self.done.covered(block.first, block.first + block.count) == block.count for block in blocks)

    def remaining(self) -> list[Range]:
        """Tasks without an outcome."""
        return self.done.missing(self.plan.first, self.plan.end)


def _clip(ranges: tuple[Range, ...], first: int, end: int) -> Iterator[Range]:
    for low, high in ranges:
        if max(low, first) < min(high, end):
            yield max(low, first), min(high, end)


#: Phases of a VM that works no more, whatever becomes of its job.
LEFT = frozenset({"draining", "deleting", "gone", "failed"})


@dataclass(slots=True)
class VmFold:
    """A VM as its journal tells it."""

    intent: Intent | None = None
    #: Seconds since the epoch, by the client that intended it.
    intended_at: float = 0.0
    cloud_id: str = ""
    #: When its cloud had accepted it, by the same clock; 0.0 if that is not known.
    created_at: float = 0.0
    failed: Failed | None = None
    ready: Ready | None = None
    ready_at: float = 0.0
    #: Jobs given to it, in order; the first is the intent's.
    jobs: list[str] = field(default_factory=list)
    keep_warm: float = 0.0
    #: Whether a SUSPECT stands unanswered.
    suspected: bool = False
    #: That it stays for debugging, and until when.
    hold: Hold | None = None
    drain: Drain | None = None
    delete: Delete | None = None
    gone: Gone | None = None
    #: Seconds since the epoch, by whoever wrote the entry; 0 for what did not happen.
    drained_at: float = 0.0
    gone_at: float = 0.0
    #: When each of `jobs` was given to it; the first with the intent.
    given_at: list[float] = field(default_factory=list)
    #: Number of the entry that gave it the last of them.
    given_n: int = 0
    #: Dollars that the last of `jobs` may cost; 0: no limit.
    max_cost: float = 0.0
    #: Seconds since the epoch until which the last of `jobs` may have it; 0: as long as it lives.
    job_until: float = 0.0
    #: Who gets its job another machine, by their own word, and since when by their clock; "" for nobody.
    relieved_by: str = ""
    relieved_at: float = 0.0
    #: Seconds since the epoch until which it waits for jobs, whatever they say; 0: they alone say it.
    stay_until: float = 0.0
    #: What its jobs found installed; it is still there.
    environments: set[str] = field(default_factory=set)

    def apply(self, entry: Entry) -> None:
        """Take in the next entry."""
        body = entry.body
        if entry.writer.startswith("vm:") and not self._own(entry):
            return
        if isinstance(body, Relieve):
            self.relieved_by, self.relieved_at = body.by, entry.at
        elif isinstance(body, Gone):
            if self.gone is None:
                self.gone, self.gone_at = body, min(entry.at, body.until or entry.at)
        elif self.delete is not None or self.gone is not None:
            return
        elif isinstance(body, Delete):
            self.delete = body
        elif isinstance(body, Intent | Created | Failed | Ready):
            self._apply_birth(entry)
        else:
            self._apply_life(entry)

    def _apply_birth(self, entry: Entry) -> None:
        body = entry.body
        if isinstance(body, Intent):
            if entry.n == 0:
                self.intent, self.intended_at = body, entry.at
                self.jobs, self.keep_warm = [body.job] if body.job else [], body.keep_warm
                self.given_at, self.max_cost = [entry.at] if body.job else [], body.max_cost
                self.stay_until = body.stay_until
                self.environments = {body.environment} - {""}
        elif isinstance(body, Created):
            if not self.cloud_id:
                self.cloud_id, self.created_at = body.cloud_id, entry.at
        elif isinstance(body, Failed):
            self.failed = self.failed or body
        elif isinstance(body, Ready) and self.ready is None:
            self.ready, self.ready_at = body, entry.at

    def _own(self, entry: Entry) -> bool:
        """Whether a VM's entry is one that its own agent may write."""
        own = self.intent is not None and entry.writer == f"vm:{self.intent.vm}"
        return own and isinstance(entry.body, Alive | Drain | Hold)

    def _apply_life(self, entry: Entry) -> None:
        body = entry.body
        if isinstance(body, Assign):
            if self.drain is None and self.hold is None:
                self.given_at.append(entry.at)
                self.given_n = entry.n
                self.keep_warm, self.max_cost, self.job_until = body.keep_warm, body.max_cost, body.until
                self.environments |= {body.environment} - {""}
                # Last: the agent's threads read on, and the time of an earlier job must not bound this one.
                self.jobs.append(body.job)
        elif isinstance(body, Stay):
            self.stay_until = body.until
        elif isinstance(body, Suspect):
            self.suspected = True
        elif isinstance(body, Alive):
            self.suspected = False
        elif isinstance(body, Hold):
            if self.drain is None:
                self.hold = self.hold or body
        elif isinstance(body, Drain) and self.drain is None:
            self.drain, self.drained_at = body, entry.at

    @property
    def ended(self) -> bool:
        """Whether it is to be, or is, no more."""
        return self.delete is not None or self.gone is not None or self.failed is not None

    @property
    def assignable(self) -> bool:
        """Whether a further job may be given to it."""
        return self.ready is not None and self.unsettled and not self.suspected

    @property
    def unsettled(self) -> bool:
        """Whether nothing was said of its end yet, nor of a time that it is held until."""
        return self.drain is None and self.hold is None and not self.ended

    def stays(self, now: float) -> bool:
        """Whether it is to wait for a further job once it has none."""
        return self.keep_warm > 0 or now < self.stay_until

    @property
    def phase(self) -> str:
        """One word for people."""
        for word, holds in (
            ("gone", self.gone is not None),
            ("failed", self.failed is not None),
            ("deleting", self.delete is not None),
            ("draining", self.drain is not None),
            ("suspected", self.suspected),
            ("held", self.hold is not None),
            ("ready", self.ready is not None),
            ("booting", bool(self.cloud_id)),
            ("intended", self.intent is not None),
        ):
            if holds:
                return word
        return "unknown"
