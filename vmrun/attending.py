"""The process in the background that gets a job its machines, and others for lost ones, or for those that it outgrew.

It stays for the latter if the job asks for that, or if its machines are spot ones, which may be taken back at any time.
If it is killed the job waits, and whoever waits for it goes on.
"""

from __future__ import annotations

import logging

from .client import REVIVE_AFTER, Client
from .core.errors import CapacityError, VmrunError
from .core.model import JobState
from .core.views import JobView
from .fleet.lookout import may_pass, pause_of
from .fleet.replacing import PATIENCE
from .fleets import is_shared, may_need_others
from .settings import Settings
from .watch.observe import JobObserver

log = logging.getLogger(__name__)

#: Seconds between looks at the machines of a job, at most.
LOOK_EVERY = 5.0
#: Seconds after a search that found no machine; so a night's stockout is waited out.
PAUSE = 300.0
#: Looks in a row that may fail before the process gives up: whoever waits for the job goes on then.
FAILURES_MAX = 120


def bring_up_job(settings: Settings, job: str) -> None:
    """What the process does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s level=%(levelname)s module=%(name)s %(message)s")
    client = Client(settings)
    observer = JobObserver(client.desk, client.handle(job).id)
    view = observer.look()
    spec = observer.ledger.fold.spec
    client.clear_up(view.id, watch=0.0)
    if view.lost and may_need_others(spec):
        # It is attended until it has ended, and that a search finds nothing ends no attendance.
        log.info("event=lost job=%s", view.id)
    elif view.lost:
        _get_another(client, observer)
    elif view.state is JobState.pending or (is_shared(spec) and not view.state.ended):
        _bring_up(client, view)
    if is_shared(spec) or may_need_others(spec):
        attend(client, observer)
    client.clear_up(view.id)


def _bring_up(client: Client, view: JobView) -> None:
    try:
        client.bring_up(view.id, lambda text: log.info("event=stage text=%s", text))
    except CapacityError as error:
        # Whoever attends the job then searches again.
        if not (view.wants_larger and may_pass(error)):
            raise
        log.warning("event=no-larger-machine job=%s error=%s", view.id, error.message)


def _get_another(client: Client, observer: JobObserver) -> None:
    """Get the job a machine in the place of the lost one, or of one that was left half made.

    Whoever submitted it, or took the loss on, may have left right after that: others have their turn a while later.
    """
    clock = client.desk.clock
    until = clock.monotonic() + max(REVIVE_AFTER, PATIENCE) + LOOK_EVERY
    client.revive(observer.job, observer)
    while observer.look().lost and clock.monotonic() < until:
        clock.sleep(LOOK_EVERY)
        client.revive(observer.job, observer)


def attend(client: Client, observer: JobObserver) -> None:
    """Stay until all machines are there and, if lost or outgrown ones are to be replaced, until the job has ended.

    Raises what a look raised when too many in a row did.
    """
    job, failures, tidy = observer.job, 0, False
    every = min(LOOK_EVERY, pause_of(observer.ledger.refresh().spec))
    while client.fleets.wants_attendance(job):
        client.desk.clock.sleep(every)
        try:
            # What was left half made may take its time to go, and the job does not wait for that.
            tidy = tidy or client.clear_up(job, watch=0.0)
            client.see_to(job, observer)
            failures = 0
        except VmrunError as error:
            failures += 1
            log.warning("event=not-attended job=%s code=%s error=%s", job, error.code, error.message)
            if failures >= FAILURES_MAX:
                if not _is_over(client, job, error):
                    raise
            elif isinstance(error, CapacityError):
                client.desk.clock.sleep(PAUSE)
        for text in client.fleets.news(job):
            log.info("event=news text=%s", text)
    if observer.ledger.refresh().final is not None:
        client.settle(job)


def _is_over(client: Client, job: str, error: VmrunError) -> bool:
    """Whether the job has ended, as there is no larger machine for it."""
    return isinstance(error, CapacityError) and may_pass(error) and client.give_up(job, error)
