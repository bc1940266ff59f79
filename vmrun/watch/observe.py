"""Jobs and VMs as they stand, folded from the store into what users are shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from vmrun.core import keys
from vmrun.core.errors import Corrupt, SchemaError, UsageError
from vmrun.core.folds import JobFold, VmFold
from vmrun.core.ids import is_id
from vmrun.core.ledger import Desk, JobLedger, ShardLedger
from vmrun.core.model import THREAD_VARIABLES, JobState
from vmrun.core.money import billed, hourly, paid_until, spent_on
from vmrun.core.records import NO_CREW, CrewFacts, Heartbeat, Submit
from vmrun.core.views import Deadline, JobView, TaskCounts, VmView
from vmrun.core.vm_ledger import VmLedger

log = logging.getLogger(__name__)

#: Shards that are asked for news one by one; if there are more, and most are not complete, they are listed first.
READ_MOST = 16
#: Phases of a VM that takes its leave.
LEAVING = ("draining", "deleting", "gone")
#: Seconds without a sign of life after which a VM is said to end with its lease: clocks may differ by nearly as much.
SILENT = 300.0
#: Jobs that a listing looks at to resolve a name.
NAMES_MAX = 1000


def job_ids(desk: Desk) -> list[str]:
    """All jobs, newest first."""
    found = [listed.key[len(keys.JOBS_INDEX) :] for listed in desk.store.list(keys.JOBS_INDEX)]
    return [job for job in reversed(found) if is_id(job)]


def vm_ids(desk: Desk) -> list[str]:
    """All VMs that are not known to be gone."""
    found = [listed.key[len(keys.VMS_INDEX) :] for listed in desk.store.list(keys.VMS_INDEX)]
    return [vm for vm in found if is_id(vm)]


def find_job(desk: Desk, text: str) -> str:
    """The id that `text` means: an id, a unique beginning or end of one (6 characters or more), or a unique name.

    Raises UsageError.
    """
    jobs = job_ids(desk)
    if text in jobs:
        return text
    near = [job for job in jobs if len(text) >= 6 and (job.startswith(text) or job.endswith(text))]
    if not near:
        near = [job for job in jobs[:NAMES_MAX] if _name(desk, job) == text]
    if len(near) == 1:
        return near[0]
    if near:
        which = "say which, newest first: " + ", ".join(near[:5])
        raise UsageError(f"{text[:80]!r} means {len(near)} jobs", hint=which)
    raise UsageError(f"there is no job {text[:80]!r} in this store", hint="`vmrun status` lists the jobs")


def _name(desk: Desk, job: str) -> str:
    submit = submission_of(desk, job)
    return submit.spec.name if submit is not None else ""


def submission_of(desk: Desk, job: str) -> Submit | None:
    """What was submitted; None if there is nothing that can be trusted. One request, however long the journal."""
    try:
        return JobLedger(desk, job).read_submission()
    except (Corrupt, SchemaError):
        return None


def shard_lengths(desk: Desk, job: str) -> dict[int, int]:
    """Entries of each of the job's shards that has any, by one listing: cheaper than to ask many that have no news."""
    prefix, lengths = keys.shard_journals(job), dict[int, int]()
    for listed in desk.store.list(prefix):
        shard, _, entry = listed.key[len(prefix) :].partition("/")
        if shard.isdecimal() and entry.isdecimal():
            lengths[int(shard)] = max(lengths.get(int(shard), 0), int(entry) + 1)
    return lengths


def find_by_key(desk: Desk, key: str) -> str:
    """The job that was submitted with this idempotency key; "" if there is none."""
    for job in job_ids(desk):
        submit = submission_of(desk, job)
        if submit is not None and submit.idempotency_key == key:
            return job
    return ""


class JobObserver:
    """One job, looked at again and again; each look reads only what is new."""

    def __init__(self, desk: Desk, job: str) -> None:
        self._desk = desk
        self.job = job
        self.ledger = JobLedger(desk, job)
        self.shards: dict[int, ShardLedger] = {}
        self._vms: dict[str, VmLedger] = {}
        #: Entries of each shard at the last look, if the shards were listed then.
        self._lengths: dict[int, int] = {}
        #: VMs that the caller knows to be made for the job.
        self.expected: set[str] = set()

    def look(self) -> JobView:
        """The job now. Raises UsageError when there is no such job."""
        fold = self.ledger.refresh()
        if fold.submit is None:
            raise UsageError(f"there is no job {self.job} in this store", hint="`vmrun status` lists the jobs")
        self._refresh_shards(fold)
        vms = tuple(self._look_at_vms(fold))
        if fold.final is None and any(view.state in LEAVING for view, _ in vms):
            # What a VM says last, it says after the job's end: if there is one, it is there to be read by now.
            fold = self.ledger.refresh()
            if fold.final is not None:
                # And so are the outcomes that were committed since the shards were read; what it cost ends there.
                self._refresh_shards(fold)
                vms = tuple(self._look_at_vms(fold))
        counts = self._counts(fold, vms)
        final, crew = fold.final, self._crew()
        return JobView(
            id=self.job,
            name=fold.spec.name,
            state=self._state(fold, vms),
            tasks=counts,
            vms=tuple(view for view, _ in vms),
            usd=round(sum(view.usd for view, _ in vms), 6),
            created=fold.created_at,
            ended=fold.ended_at,
            error=final.error if final is not None else "",
            hint=final.hint if final is not None else "",
            error_code=final.code if final is not None else "",
            outgrown=tuple(fold.outgrown),
            kind=fold.spec.kind,
            reduce=fold.spec.reduce,
            keep_on_failure=fold.spec.keep_on_failure,
            workers=crew.workers,
            cores=crew.cores,
            # The user's own word about threads goes before ours.
            threads=0 if THREAD_VARIABLES & fold.spec.env.keys() else crew.threads,
            vms_asked=fold.spec.vms,
            vms_replaced=len(fold.replaced),
        )

    def _crew(self) -> CrewFacts:
        crews = (ledger.fold.crew for ledger in self.shards.values())
        return next((crew for crew in crews if crew.workers), NO_CREW)

    def _refresh_shards(self, fold: JobFold) -> None:
        for plan in fold.shards():
            ledger = self.shards.get(plan.shard)
            if ledger is None:
                ledger = self.shards[plan.shard] = self.ledger.shard(plan)
        unfinished = [ledger for ledger in self.shards.values() if not ledger.fold.complete]
        lengths: dict[int, int] = {}
        if len(unfinished) > max(READ_MOST, len(self.shards) // 2):
            lengths, before = shard_lengths(self._desk, self.job), self._lengths
            news = {shard for shard, length in lengths.items() if length > before.get(shard, 0)}
            unfinished = [ledger for ledger in unfinished if ledger.plan.shard in news]
        for ledger in unfinished:
            ledger.catch_up()
        # Only now: what an error kept from being read is news the next time, too.
        self._lengths = lengths

    def _look_at_vms(self, fold: JobFold) -> Iterator[tuple[VmView, Heartbeat | None]]:
        wanted = {*self.expected, *fold.vms}
        for ledger in self.shards.values():
            wanted.update(ledger.fold.claimants)
        views = {vm: self._view(vm, fold) for vm in wanted}
        if fold.final is None and all(self._left(view, fold) for view, _ in views.values()):
            # None that is known works on it: there may be one that has not begun.
            others = [vm for vm in vm_ids(self._desk) if vm not in views and self._has_job(self._vm(vm))]
            views.update((vm, self._view(vm, fold)) for vm in others)
        for vm in sorted(views):
            yield views[vm]

    def _view(self, vm: str, fold: JobFold) -> tuple[VmView, Heartbeat | None]:
        return view_vm(self._desk, self._vm(vm), fold.ended_at or None, self.job)

    def _left(self, view: VmView, job: JobFold) -> bool:
        """Whether the VM does nothing for the job any more; its journal was just read."""
        fold = self._vm(view.id).fold
        return view.state == "unreadable" or fold.ended or fold.drain is not None or job.outgrew(view.id)

    def _has_job(self, ledger: VmLedger) -> bool:
        fold = readable(ledger)
        return fold is not None and self.job in fold.jobs

    def _vm(self, vm: str) -> VmLedger:
        return self._vms.setdefault(vm, VmLedger(self._desk, vm))

    def _counts(self, fold: JobFold, vms: tuple[tuple[VmView, Heartbeat | None], ...]) -> TaskCounts:
        total = fold.spec.total if not fold.is_open else fold.tasks
        failed = sum(len(ledger.fold.failed) for ledger in self.shards.values())
        done = sum(len(ledger.fold.done) for ledger in self.shards.values()) - failed
        alive = [beat for view, beat in vms if view.state not in ("failed", "deleting", "gone")]
        running = sum(beat.running for beat in alive if beat is not None and beat.job == self.job)
        return TaskCounts(total, done, failed, 0 if fold.final is not None else min(running, total - done - failed))

    def _state(self, fold: JobFold, vms: tuple[tuple[VmView, Heartbeat | None], ...]) -> JobState:
        if fold.final is not None:
            return JobState(fold.final.outcome)
        # Those that are too small wait for other jobs, or for their end.
        vms = tuple(each for each in vms if not fold.outgrew(each[0].id))
        owners = {owner for ledger in self.shards.values() if not fold.outgrew(owner := ledger.fold.owner)} - {""}
        if any(not self._vm(owner).fold.ended for owner in owners):
            return JobState.running
        if any(view.state in ("ready", "suspected") for view, _ in vms):
            return JobState.running
        now = self._desk.clock.now()
        if any(view.state in ("intended", "booting") and now < view.ends_at for view, _ in vms):
            return JobState.provisioning
        return JobState.pending


def readable(ledger: VmLedger) -> VmFold | None:
    """The VM as its journal tells it; None when that cannot be trusted, which must not hide the other VMs."""
    try:
        return ledger.refresh()
    except (Corrupt, SchemaError) as error:
        log.warning("event=journal-refused vm=%s error=%s", ledger.vm, error.message)
        return None


def view_vm(desk: Desk, ledger: VmLedger, until: float | None = None, job: str = "") -> tuple[VmView, Heartbeat | None]:
    """A VM and its last sign of life.

    `until`: seconds since the epoch to which its cost is counted, None for now; `job`: only what it cost for that one.
    """
    fold = readable(ledger)
    if fold is None:
        return VmView(ledger.vm, "", "", "", "unreadable"), None
    beat, since = _heard(desk, ledger)
    intent = fold.intent
    if intent is None:
        return VmView(ledger.vm, "", "", "", "unknown"), beat
    working = beat is not None and not fold.ended
    bounds = deadlines(fold, beat, silent=since > 0)
    return (
        VmView(
            id=ledger.vm,
            on=intent.on,
            instance_type=intent.instance_type,
            region=intent.region,
            state=fold.phase,
            job=beat.job if beat is not None else (fold.jobs[-1] if fold.jobs else ""),
            busy_because=_busy(beat, since) if working and beat is not None else _booting(fold),
            ends_at=bounds[0].at if bounds else 0.0,
            ends_because=bounds[0].what if bounds else "",
            deadlines=bounds,
            usd_per_hour=hourly(intent),
            usd=_dollars(fold, until or desk.clock.now(), job),
            created=fold.intended_at,
            vcpus=intent.vcpus,
            doing=beat.doing if working and beat is not None else "",
            agent_memory=beat.agent_memory if beat is not None else 0,
            pool=intent.pool,
        ),
        beat,
    )


def _heard(desk: Desk, ledger: VmLedger) -> tuple[Heartbeat | None, float]:
    """A VM's last sign of life; and since when it is silent, in seconds since the epoch, 0.0 if it is not."""
    entry = ledger.heartbeats.read_entry() if ledger.fold.ready is not None else None
    if entry is None or not isinstance(entry.body, Heartbeat):
        return None, 0.0
    return entry.body, entry.at if desk.clock.now() - entry.at > SILENT else 0.0


def _busy(beat: Heartbeat, since: float) -> str:
    # Not how long ago: what is watched for changes has changed only if something happened.
    at = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if since else ""
    return f"{beat.busy}, by its last sign of life at {at}" if beat.busy and at else beat.busy


def _booting(fold: VmFold) -> str:
    if fold.ended:
        return ""
    if fold.hold is not None:
        return f"held for debugging: {fold.hold.why}"
    return "" if fold.ready is not None else "being made ready"


def deadlines(fold: VmFold, beat: Heartbeat | None, *, silent: bool = False) -> tuple[Deadline, ...]:
    """What ends the VM, and when, the earliest first: bounds of its journal, and what its agent says.

    One that is `silent` ends with its lease, which nobody but its agent renews.
    """
    intent = fold.intent
    if intent is None or fold.ended:
        return ()
    found = {"maximum lifetime": intent.hard_deadline}
    if (paid := paid_until(fold)) is not None:
        found["maximum cost"] = paid
    if fold.hold is not None:
        found[fold.hold.bound or "hold on failure"] = fold.hold.until
    if fold.ready is None:
        found["boot grace"] = fold.intended_at + intent.boot_grace
    elif beat is not None and beat.ends_at and beat.ends_because:
        found[beat.ends_because] = min(beat.ends_at, found.get(beat.ends_because, beat.ends_at))
    if beat is not None and beat.lease and silent:
        found["lease"] = beat.lease
    return tuple(sorted((Deadline(what, at) for what, at in found.items()), key=lambda each: each.at))


def _dollars(fold: VmFold, until: float, job: str) -> float:
    assert fold.intent is not None
    begin, end = billed(fold, until)
    whole = (hourly(fold.intent) or 0.0) * (end - begin) / 3600
    return round(spent_on(fold, job, until) if job in fold.jobs else whole, 6)


def cost_at_most(usd_per_hour: float | None, lifetime: float) -> float | None:
    """Dollars if the machine lives as long as it may; None for an unknown price."""
    return None if usd_per_hour is None else round(usd_per_hour * lifetime / 3600, 4)
