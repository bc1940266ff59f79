"""What a deployment has cost, read from the journals in its store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vmrun.core import keys
from vmrun.core.errors import Corrupt, SchemaError
from vmrun.core.folds import VmFold
from vmrun.core.ids import first_id, is_id
from vmrun.core.ledger import Desk, JobLedger
from vmrun.core.money import reserved, still_due
from vmrun.core.vm_ledger import VmLedger

from .costs import By, Costs, pieces
from .observe import readable, submission_of

#: Seconds that a VM lives at most, and a day for clocks that differ: older journals are not even listed.
LONGEST_LIFE = 367 * 86400.0
#: Seconds after its submission in which a job that lacks a VM may be getting one: as long as a search takes.
ON_ITS_WAY = 1800.0
#: Journals that are read at the same time, and that are in memory at most.
READERS, BATCH = 16, 256


def known_vms(desk: Desk, since: float) -> Iterator[str]:
    """Every VM with a journal that may have lived after `since`, ended ones too, oldest first; in bounded memory.

    The index names only those that are not known to be gone, so it is the journals that are listed.
    """
    before = ""
    for listed in desk.store.list(keys.VMS, after=f"{keys.VMS}{first_id(since - LONGEST_LIFE)}"):
        vm = listed.key[len(keys.VMS) :].partition("/")[0]
        if vm != before and is_id(vm):
            yield vm
        before = vm


def read_costs(desk: Desk, by: By, since: float) -> Costs:
    """The report from `since` until now."""
    now = desk.clock.now()
    costs, jobs = Costs(by, since, now), _Jobs(desk)
    for fold in _folds(desk, since):
        if fold is None:
            costs.unreadable += 1
        else:
            costs.add(pieces(fold, now, jobs.ended))
    costs.names = {job: jobs.names[job] for job in costs.rows if jobs.names.get(job)}
    return costs


@dataclass(frozen=True, slots=True)
class Outlay:
    """What a deployment has paid for VMs, and is still to pay, in dollars, as far as prices are known."""

    spent: float
    #: What jobs that have VMs now, or are getting one, may still cost at most, where they have a limit.
    promised: float = 0.0


def outlay(desk: Desk, since: float, without: str = "") -> Outlay:
    """What was spent since then, and what is promised to others than the job `without`."""
    now, promised = desk.clock.now(), 0.0
    # What the VMs that each of these has already may cost it.
    recent = dict.fromkeys(_recent(desk, now - ON_ITS_WAY) - {without}, 0.0)
    costs = Costs(By.cloud, since, now)
    for fold in _folds(desk, since):
        if fold is not None:
            costs.add(pieces(fold, now, lambda _: None))
            promised += still_due(fold, now)
            for job in recent.keys() & set(fold.jobs):
                recent[job] += reserved(fold, job, now)
    promised += sum(_left_to(desk, job, taken) for job, taken in recent.items())
    return Outlay(costs.total.total, promised)


def _recent(desk: Desk, since: float) -> set[str]:
    """Jobs that were submitted since then."""
    listed = desk.store.list(keys.JOBS_INDEX, after=f"{keys.JOBS_INDEX}{first_id(since)}")
    return {job for each in listed if is_id(job := each.key[len(keys.JOBS_INDEX) :])}


def _left_to(desk: Desk, job: str, taken: float) -> float:
    """Dollars that a job may cost on VMs that it has not got yet; 0 if it has no limit, has ended or cannot be read."""
    submit = submission_of(desk, job)
    if submit is None or submit.spec.max_cost <= taken:
        return 0.0
    try:
        fold = JobLedger(desk, job).refresh()
    except (Corrupt, SchemaError):
        return 0.0
    return 0.0 if fold.final is not None or fold.cancelled_by else submit.spec.max_cost - taken


def _folds(desk: Desk, since: float) -> Iterator[VmFold | None]:
    """What the journals of VMs say that may have lived after `since`, oldest first; None for each that cannot be read.

    Several are read at once: a remote store answers in the time of many local reads.
    """
    vms = known_vms(desk, since)
    with ThreadPoolExecutor(READERS, thread_name_prefix="vmrun-costs") as pool:
        while batch := list(itertools.islice(vms, BATCH)):
            for fold in pool.map(lambda vm: readable(VmLedger(desk, vm)), batch):
                if fold is None or (fold.intent is not None and fold.intent.hard_deadline > since):
                    yield fold


class _Jobs:
    """When jobs ended, and what they are called; each is read once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ended: dict[str, float | None] = {}
        self.names: dict[str, str] = {}

    def ended(self, job: str) -> float | None:
        """None while it has not, and for one that cannot be read."""
        if job not in self._ended:
            self._ended[job] = self._read(job)
        return self._ended[job]

    def _read(self, job: str) -> float | None:
        try:
            fold = JobLedger(self._desk, job).refresh()
        except (Corrupt, SchemaError):
            return None
        if fold.submit is not None:
            self.names[job] = fold.spec.name
        return fold.ended_at if fold.final is not None else None
