"""What a VM costs, by its journal, and when the money for its job is spent. Pure.

Times in a journal are those of whoever wrote, so what comes out is as right as those clocks are; the cloud's bill has
the last word.
"""

from __future__ import annotations

from .folds import VmFold
from .records import Intent

#: Seconds for which a VM is counted after it took its leave, where its power-off ends it: it still shuts down.
LEAVE = 60.0
#: The last part of what is paid for, and seconds of it at least and at most, in which an agent saves what there is.
SAVING_PART, SAVING_LEAST, SAVING_MAX = 0.1, 2.0, 60.0


def hourly(intent: Intent) -> float | None:
    """Dollars an hour for the machine and, as far as their prices are known, its disk and address.

    None if the machine's own price is not known.
    """
    if intent.usd_per_hour is None:
        return None
    return intent.usd_per_hour + (intent.disk_usd_per_hour or 0.0) + (intent.address_usd_per_hour or 0.0)


def billed(fold: VmFold, now: float) -> tuple[float, float]:
    """From when to when a VM is counted, in seconds since the epoch; twice the same for one that never was.

    From CREATED on, or from the INTENT if the cloud's answer is not known: then it may exist. To GONE, or its hard
    deadline, or `now`; not beyond its own leave where a power-off ends it, as GONE is noted by whoever looks next.
    """
    intent = fold.intent
    if intent is None or (fold.failed is not None and not fold.cloud_id):
        return 0.0, 0.0
    begin = fold.created_at if fold.cloud_id else fold.intended_at
    ends = [now, intent.hard_deadline]
    ends += [fold.gone_at] if fold.gone is not None else []
    ends += [fold.drained_at + LEAVE] if fold.drain is not None and intent.poweroff_deletes else []
    ends += [fold.intended_at + intent.boot_grace] if not fold.cloud_id else []
    return begin, max(begin, min(ends))


def spent_on(fold: VmFold, job: str, until: float) -> float:
    """Dollars for the time in which a VM had a job: from when it was given until the next one, or `until`."""
    rate = hourly(fold.intent) if fold.intent is not None else None
    if rate is None or job not in fold.jobs:
        return 0.0
    begin, end = billed(fold, until)
    at = fold.jobs.index(job)
    if at or given_later(fold):
        begin = max(begin, fold.given_at[at])
    if at + 1 < len(fold.given_at):
        end = min(end, fold.given_at[at + 1])
    return rate * max(0.0, end - begin) / 3600


def reserved(fold: VmFold, job: str, now: float) -> float:
    """Dollars of a job's money that a VM of it has spent or may still spend."""
    spent = spent_on(fold, job, now)
    over = fold.ended or fold.drain is not None or fold.jobs[-1:] != [job]
    return spent if over else max(spent, fold.max_cost)


def still_due(fold: VmFold, now: float) -> float:
    """Dollars that a VM's last job may still spend on it; 0 where nothing limits that."""
    if not fold.jobs or fold.intent is None or now >= fold.intent.hard_deadline:
        return 0.0
    job, rate = fold.jobs[-1], hourly(fold.intent)
    due = reserved(fold, job, now) - spent_on(fold, job, now)
    # A small machine, as that of a sample, cannot spend all that its job may.
    return due if rate is None else min(due, rate * (fold.intent.hard_deadline - now) / 3600)


def given_later(fold: VmFold) -> bool:
    """Whether the VM was made before there was a job for it, and waited for its first one."""
    return fold.intent is not None and not fold.intent.job


def paid_until(fold: VmFold) -> float | None:
    """When, in seconds since the epoch, the VM has cost what its last job may cost; None if nothing limits that.

    Counted from when the job was given to it, which is before it begins to cost.
    """
    rate = hourly(fold.intent) if fold.intent is not None else None
    if not fold.max_cost or not rate or not fold.given_at:
        return None
    return fold.given_at[-1] + fold.max_cost * 3600 / rate


def stop_at(fold: VmFold) -> float | None:
    """When the agent must stop the job to have the rest of what is paid for to save results; None: never."""
    until = paid_until(fold)
    if until is None:
        return None
    whole = until - fold.given_at[-1]
    return until - min(whole / 2, SAVING_MAX, max(SAVING_LEAST, SAVING_PART * whole))
