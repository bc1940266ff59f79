"""The one who sees everything: what each entry means the moment it takes effect, and whether that may be.

Written from the specification, not from the folds: it reads the raw bytes, keeps its own account of jobs, shards and
VMs, and raises Violation at the act. Readers' observations are compared with this account byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.sim.world import Violation, World
from vmrun.core.blocks import ResultBlock
from vmrun.core.codec import sha256
from vmrun.core.records import Entry, Record


@dataclass
class Fact:
    """One entry as it stands in the store."""

    type: str
    writer: str
    nonce: str
    data: dict[str, Any]
    body: bytes


@dataclass
class JobTruth:
    tasks: int = 0
    open: bool = False
    submitted: bool = False
    closed: bool = False
    cancelled: bool = False
    final: dict[str, Any] | None = None
    #: (first, count) of each shard.
    shards: list[tuple[int, int]] = field(default_factory=list)
    #: Outcome of each task: (payload, failed).
    settled: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    #: What readers were shown.
    shown: dict[int, bytes] = field(default_factory=dict)
    ran: int = 0
    #: Whether its journal lists its VMs; which these are, which were replaced, and how many may be.
    lists: bool = False
    vms: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    replace_lost: int = 0


@dataclass
class ShardTruth:
    job: str
    first: int
    count: int
    owner: str = ""
    claims: int = 0


@dataclass
class VmTruth:
    jobs: list[str] = field(default_factory=list)
    intended: bool = False
    ready: bool = False
    suspected: bool = False
    drained: bool = False
    deleted: bool = False
    failed: bool = False
    gone: bool = False


class Oracle:
    """Judges every write, every act on the cloud, and every observation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.journals: dict[str, list[Fact]] = {}
        self.jobs: dict[str, JobTruth] = {}
        self.shards: dict[str, ShardTruth] = {}
        self.vms: dict[str, VmTruth] = {}
        #: Journals that an intruder made unreadable, and from which number on.
        self.quarantined: dict[str, int] = {}
        #: Entries that an intruder wrote with a key that may write there, and that must not count.
        self.void: set[bytes] = set()
        #: The jobs that an agent had finished when it asked to drain.
        self.draining: dict[str, tuple[str, ...]] = {}
        #: Whom a claimant judged dead.
        self.judged_dead: set[tuple[str, str]] = set()
        self.objects: Callable[[str], bytes | None] = lambda key: None

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            raise Violation(f"{what} (at {self._world.now:.1f} s)")

    # --- the store ---

    def writing(self, key: str, body: bytes, found: bytes | None) -> None:
        """An object takes effect."""
        place = entry_place(key)
        if place is None:
            return
        self.require(found is None, f"I7: {key} was overwritten")
        self.landed(*place, body)

    def deleting(self, key: str) -> None:
        self.require(entry_place(key) is None, f"I7: {key} was deleted")

    def landed(self, prefix: str, n: int, body: bytes) -> None:
        """An entry takes effect."""
        journal = self.journals.setdefault(prefix, [])
        self.require(prefix not in self.quarantined, f"{prefix}{n} follows an entry that cannot be trusted")
        self.require(n == len(journal), f"I7: {prefix}{n} leaves a gap after {len(journal)} entries")
        head = json.loads(body[: body.index(b"\n")])
        fact = Fact(head["type"], head["writer"], head["nonce"], head["data"], body)
        journal.append(fact)
        self._world.log(f"landed {prefix}{n} {fact.type}")
        if body not in self.void:
            kind, _, rest = prefix.partition("/")
            if kind == "vms":
                self._vm_entry(rest.rstrip("/"), n, fact)
            elif "/shards/" in prefix:
                self._shard_entry(prefix, fact)
            else:
                self._job_entry(rest.partition("/")[0], n, fact)

    def planted(self, prefix: str, body: bytes, *, trusted: bool) -> None:
        """An intruder puts an entry at the end of a journal, with a key that may write there or without."""
        if trusted:
            self.void.add(body)
            self.landed(prefix, len(self.journals.get(prefix, [])), body)
        else:
            self.quarantined[prefix] = len(self.journals.get(prefix, []))

    # --- appends, as their callers were told ---

    def appended(self, prefix: str, n: int, body: Record, entry: Entry | None, *, resent: bool) -> None:
        """What `Journal.append` said: never that one's own entry is lost, never that one is there that is not."""
        journal = self.journals.get(prefix, [])
        fact = journal[n] if n < len(journal) else None
        if entry is not None:
            self.require(
                fact is not None and fact.nonce == entry.nonce,
                f"S8: {body.TYPE} was reported as {prefix}{n}, where it is not",
            )
            return
        if resent:
            self._world.note("doubtful bytes sent again")
            return
        process = self._world.current
        assert process is not None
        self.require(
            fact is None or fact.body != process.last_create[1],
            f"S8: {body.TYPE} is {prefix}{n}, and was reported lost",
        )
        self._world.note("lost race")
        if fact is not None and prefix.startswith("vms/"):
            self._world.note(f"{fact.type} beat {body.TYPE}")

    def committed(self, job: str, tasks: Iterable[int]) -> None:
        """A commit was reported as done: then each task has an outcome, of this commit or an earlier one."""
        settled = self.jobs[job].settled
        for task in tasks:
            self.require(task in settled, f"a commit of task {task} was acknowledged and is not there")

    def moved(self, vm: str, kind: str) -> None:
        """A ledger said that a move on a VM's journal holds: then it is there."""
        facts = self.journals.get(f"vms/{vm}/", [])
        self.require(any(fact.type == kind for fact in facts), f"{kind} was reported to hold, and is not there")

    def claimed(self, prefix: str, vm: str, epoch: int) -> None:
        """A ledger said that a shard is its VM's."""
        journal = self.journals.get(prefix, [])
        fact = journal[epoch] if epoch < len(journal) else None
        self.require(
            fact is not None and fact.type == "CLAIM" and fact.data["vm"] == vm,
            f"{prefix} was reported as claimed by {vm[-4:]} with entry {epoch}, which is no such claim",
        )

    # --- jobs ---

    def _vm_of_job(self, job: str, truth: JobTruth, fact: Fact) -> None:
        vm = fact.data["vm"]
        self.require(truth.final is None, f"{fact.type} after the end of job {job[-4:]}")
        if fact.type == "ENLIST":
            self.require(vm not in truth.vms, f"{vm[-4:]} was enlisted twice")
            truth.vms.add(vm)
            return
        self.require(vm in truth.vms and vm not in truth.replaced, f"{vm[-4:]} was replaced twice, or never there")
        truth.replaced.add(vm)
        self.require(len(truth.replaced) <= truth.replace_lost, f"more than {truth.replace_lost} VMs were replaced")

    def _job_entry(self, job: str, n: int, fact: Fact) -> None:
        truth = self.jobs.setdefault(job, JobTruth())
        data = fact.data
        self.require(truth.submitted != (n == 0), f"{fact.type} is entry {n} of job {job[-4:]}")
        self.require(fact.writer == "client" or fact.type == "FINAL", f"{fact.writer} wrote {fact.type}")
        self._trusted(fact.writer, job)
        if fact.type == "SUBMIT":
            spec = data["spec"]
            truth.submitted, truth.open, truth.tasks = True, spec["kind"] == "open", spec.get("tasks", 0)
            truth.lists, truth.replace_lost = spec["name"] == "fleet", spec.get("replace_lost", 0)
            size = spec.get("shard_size", 0) or 1
            for first in range(0, truth.tasks, size):
                self._add_shard(job, first, min(size, truth.tasks - first))
        elif fact.type == "TASKS":
            ended = truth.closed or truth.cancelled or truth.final is not None
            self.require(truth.open and not ended, "TASKS after the end of the job")
            self.require(data["first"] == truth.tasks, "TASKS do not follow on")
            truth.tasks += data["count"]
            self._add_shard(job, data["first"], data["count"])
        elif fact.type == "CLOSE":
            self.require(truth.open and not truth.closed and truth.final is None, "CLOSE twice or after the end")
            truth.closed = True
        elif fact.type == "CANCEL":
            self.require(not truth.cancelled and truth.final is None, "CANCEL twice or after the end")
            truth.cancelled = True
        elif fact.type in ("ENLIST", "REPLACE"):
            self._vm_of_job(job, truth, fact)
        elif fact.type == "FINAL":
            self._final(truth, data)

    def _add_shard(self, job: str, first: int, count: int) -> None:
        truth = self.jobs[job]
        prefix = f"jobs/{job}/shards/{len(truth.shards):06d}/"
        truth.shards.append((first, count))
        self.shards[prefix] = ShardTruth(job, first, count)

    def _final(self, truth: JobTruth, data: dict[str, Any]) -> None:
        self.require(truth.final is None, "I4: FINAL twice")
        truth.final = data
        failed = sum(lost for _, lost in truth.settled.values())
        if data["outcome"] == "cancelled":
            self.require(truth.cancelled, "FINAL(cancelled) without CANCEL")
            return
        self.require(not truth.open or truth.closed, "FINAL while tasks may still be added")
        self.require(
            len(truth.settled) == truth.tasks,
            f"FINAL({data['outcome']}) with {len(truth.settled)} of {truth.tasks} tasks committed",
        )
        told = (data["outcome"], data["done"], data["failed"])
        self.require(told == ("failed" if failed else "done", truth.tasks - failed, failed), f"FINAL says {told}")

    def _trusted(self, writer: str, job: str) -> None:
        if writer.startswith("vm:"):
            truth = self.vms.get(writer[3:])
            self.require(
                truth is not None and truth.ready and job in truth.jobs,
                f"{writer} wrote for a job that it was not given, or before it was ready",
            )

    # --- shards ---

    def _shard_entry(self, prefix: str, fact: Fact) -> None:
        truth = self.shards.get(prefix)
        self.require(truth is not None, f"{prefix} belongs to no shard")
        assert truth is not None
        self._trusted(fact.writer, truth.job)
        vm = fact.data["vm"]
        self.require(fact.writer == f"vm:{vm}", f"{fact.writer} speaks for {vm}")
        if fact.type == "CLAIM":
            self._claim(truth, vm)
        elif fact.type == "RELEASE":
            self.require(truth.owner == vm, "RELEASE of a shard that is another's")
            truth.owner = ""
            self._world.note("release")
        else:
            self._results(truth, vm, fact)

    def _claim(self, truth: ShardTruth, vm: str) -> None:
        settled = self.jobs[truth.job].settled
        complete = all(task in settled for task in range(truth.first, truth.first + truth.count))
        self.require(not complete, "CLAIM of a complete shard")
        job = self.jobs[truth.job]
        self.require(not job.lists or vm in job.vms, f"{vm[-4:]} claims a shard of a job that does not list it")
        owners = {other.owner for other in self.shards.values() if other.job == truth.job} - {""}
        if len(owners | {vm}) > 2:
            self._world.note("three VMs with shards of one job")
        if truth.owner and truth.owner != vm:
            self.require((vm, truth.owner) in self.judged_dead, "CLAIM of a shard whose owner was not judged dead")
            self._world.note("takeover")
        truth.owner = vm
        truth.claims += 1

    def _results(self, truth: ShardTruth, vm: str, fact: Fact) -> None:
        job = self.jobs[truth.job]
        attachment = fact.body[fact.body.index(b"\n", fact.body.index(b"\n") + 1) + 1 :]
        fresh = known = 0
        for ref in fact.data["blocks"]:
            data = attachment
            if ref.get("segment"):
                found = self.objects(f"jobs/{truth.job}/segments/{ref['segment']}")
                self.require(found is not None, "RESULTS name a segment that is not there yet")
                data = found or b""
            data = data[ref["offset"] : ref["offset"] + ref["size"]]
            self.require(sha256(data) == ref["sha256"], "RESULTS name bytes with another hash")
            block = ResultBlock.decode(data)
            self.require((block.first, block.count) == (ref["first"], ref["count"]), "RESULTS name another block")
            for task, status, payload in block.items():
                inside = truth.first <= task < truth.first + truth.count
                self.require(inside, f"S9: an outcome of task {task} in the shard {truth.first}+{truth.count}")
                if task in job.settled:
                    known += 1
                else:
                    job.settled[task] = (bytes(payload), bool(status))
                    fresh += 1
        self.require(fresh > 0, "RESULTS that settle nothing")
        if vm != truth.owner:
            self._world.note("zombie commit")
        if known:
            self._world.note("duplicate outcome")

    def observed(self, job: str, task: int, payload: bytes) -> None:
        """A reader was shown an outcome."""
        truth = self.jobs[job]
        settled = truth.settled.get(task)
        self.require(settled is not None, f"a reader was shown an outcome of task {task}, which has none")
        assert settled is not None
        before = truth.shown.setdefault(task, payload)
        self.require(before == payload, f"I2: the outcome of task {task} changed from {before!r} to {payload!r}")
        self.require(settled[0] == payload, f"I4: task {task}: shown {payload!r}, first was {settled[0]!r}")
        self.require(payload.startswith(f"{job}|{task}|".encode()), f"task {task} was given {payload!r}")

    # --- VMs ---

    def _vm_entry(self, vm: str, n: int, fact: Fact) -> None:
        truth = self.vms.setdefault(vm, VmTruth())
        kind = fact.type
        what = f"{kind} for VM {vm[-4:]}"
        own = fact.writer == f"vm:{vm}" and truth.ready and kind in ("ALIVE", "DRAIN")
        self.require(fact.writer == "client" or own, f"{fact.writer} wrote {what}")
        self.require(not truth.gone, f"{what} after GONE")
        self.require(not truth.deleted or kind == "GONE", f"{what} after DELETE")
        self.require((n == 0) == (kind == "INTENT"), f"{what} is entry {n}")
        if kind == "INTENT":
            truth.intended, truth.jobs = True, [fact.data["job"]]
        elif kind == "READY":
            self.require(not truth.ready, f"{what} twice")
            truth.ready = True
        elif kind == "FAILED":
            truth.failed = True
        elif kind == "ASSIGN":
            usable = truth.ready and not truth.drained and not truth.suspected and not truth.failed
            self.require(usable, f"{what}, which takes no job")
            self.require(fact.data["job"] not in truth.jobs, f"{what} twice")
            truth.jobs.append(fact.data["job"])
        elif kind == "SUSPECT":
            self.require(not truth.suspected, f"{what} twice")
            truth.suspected = True
        elif kind == "ALIVE":
            self.require(truth.suspected, f"{what}, which nobody suspected")
            truth.suspected = False
            self._world.note("refuted SUSPECT")
        elif kind == "DRAIN":
            self._drain(vm, truth)
        elif kind == "DELETE":
            self._delete(n, truth, fact.data)
        elif kind == "GONE":
            truth.gone = True

    def _drain(self, vm: str, truth: VmTruth) -> None:
        self.require(not truth.drained, "DRAIN twice")
        self.require(
            self.draining.get(vm) == tuple(truth.jobs), "DRAIN over an ASSIGN that the agent had not seen or not done"
        )
        truth.drained = True

    def _delete(self, n: int, truth: VmTruth, data: dict[str, Any]) -> None:
        why, seen = data["why"], int(data["by"].rpartition("#")[2])
        self.require(n == seen, f"DELETE({why}) was decided on {seen} entries and is entry {n}")
        if why == "dead":
            self.require(truth.suspected, "S6: DELETE(dead) without a SUSPECT that stands")
        if why == "idle":
            undone = [job for job in truth.jobs if self.jobs[job].final is None]
            self.require(not undone, f"S5: DELETE(idle) of a VM with {len(undone)} unfinished jobs")
        truth.deleted = True
        self._world.note(f"DELETE({why})")

    # --- the cloud ---

    def creating(self, vm: str) -> None:
        truth = self.vms.get(vm)
        self.require(truth is not None and truth.intended, "I9: create without INTENT")

    def terminating(self, vm: str) -> None:
        truth = self.vms.get(vm)
        self.require(truth is not None and (truth.deleted or truth.gone), "I9: cloud delete without DELETE")


def entry_place(key: str) -> tuple[str, int] | None:
    """(journal, number) of an entry's key; None for other objects."""
    prefix, _, name = key.rpartition("/")
    if not prefix.startswith(("vms/", "jobs/")) or not (prefix.startswith("vms/") or _is_journal(prefix)):
        return None
    return f"{prefix}/", int(name)


def _is_journal(prefix: str) -> bool:
    parts = prefix.split("/")
    return (len(parts) == 3 and parts[2] == "journal") or (len(parts) == 4 and parts[2] == "shards")
