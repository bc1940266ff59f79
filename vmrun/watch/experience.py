"""What tasks of a function took in earlier jobs, from the records that stay in the store."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from vmrun.core.errors import Corrupt, SchemaError, UsageError
from vmrun.core.ledger import Desk
from vmrun.core.model import JobSpec
from vmrun.core.task_views import JobStats

from .measures import facts_of
from .observe import JobObserver, job_ids, submission_of
from .stats import Tally
from .stretches import StretchReader

log = logging.getLogger(__name__)

#: Jobs that are looked at, newest first, and of those that called the function, those whose tasks are read.
LOOKED_MAX, READ_MAX = 200, 3


def past_runs(desk: Desk, same: Callable[[JobSpec], bool]) -> list[tuple[JobSpec, JobStats]]:
    """The newest jobs for which `same` holds and of which tasks have ended, newest first.

    What cannot be read or trusted is left out: it is experience, not truth.
    """
    found: list[tuple[JobSpec, JobStats]] = []
    for job in islice(job_ids(desk), LOOKED_MAX):
        submit = submission_of(desk, job)
        if submit is None or not same(submit.spec):
            continue
        try:
            stats = measured(desk, job)
        except (Corrupt, SchemaError, UsageError) as error:
            log.warning("event=experience-refused job=%s error=%s", job, error.message)
            continue
        if stats.ended and stats.peak_bytes:
            found.append((submit.spec, stats))
        if len(found) == READ_MAX:
            break
    return found


def measured(desk: Desk, job: str) -> JobStats:
    """The numbers of a job, its peak with what child processes of its tasks had: those of a program are all it has."""
    view = JobObserver(desk, job).look()
    reader, tally, peak = StretchReader(desk, job), Tally(), 0
    for stretch in reader.stretches():
        tally.see(stretch)
        peak = max(peak, facts_of(stretch.block).peak or 0)
    stats = tally.stats(view, reader)
    return replace(stats, peak_bytes=max(peak, stats.peak_bytes))
