"""The agent's sign of life: heartbeat, lease, and the VM's journal, in a thread of its own.

Kept apart from the work so that neither a long download nor a full commit delays a heartbeat. The lease is renewed
only while the work shows signs of life itself: a stuck agent must not keep its VM.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import resource
import threading

from vmrun.core.clock import Clock
from vmrun.core.errors import Corrupt, SchemaError, StoreError
from vmrun.core.folds import VmFold
from vmrun.core.heartbeats import write_heartbeat
from vmrun.core.ids import new_id
from vmrun.core.ledger import Desk
from vmrun.core.money import SAVING_MAX, hourly, paid_until, spent_on, stop_at
from vmrun.core.records import Entry, Heartbeat, Hold
from vmrun.core.vm_ledger import VmLedger

from .config import AgentConfig

log = logging.getLogger(__name__)

#: Seconds without a sign from the work, or without a heartbeat that the store took, after which the lease is no longer
#: renewed: nobody would learn what such a VM still does.
STUCK_AFTER, UNHEARD_AFTER = 900.0, 900.0
#: Seconds for an agent to take its leave when its VM was held long enough.
HOLD_MARGIN = 10.0


class Pulse:
    """Beats until stopped. All methods may be called from the thread that works."""

    def __init__(self, desk: Desk, config: AgentConfig, boot_id: str) -> None:
        assert desk.signer is not None
        self._desk = desk
        self._config = config
        self._clock: Clock = desk.clock
        self._ledger = VmLedger(desk, config.vm)
        #: Around what goes to the store; the work waits for it only where it must know the journal's end.
        self._journal_lock = threading.Lock()
        #: Around the fields below.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._beat = Heartbeat(counter=0, boot_id=boot_id, seen=0)
        #: Why this VM is of no use any more.
        self._given_up = ""
        #: Why this VM may be taken back soon.
        self._warned = ""
        #: Jobs that are behind this VM.
        self._finished = 0
        #: What ended its time, once that is over; "" before.
        self._over = ""
        #: What stands in the lease, in seconds since the epoch; 0.0 while this run has not renewed it.
        self._lease = 0.0
        self._last_sign = self._clock.monotonic()
        self._idle_since = self._last_sign
        #: Not yet: an agent that is started again and again while nobody hears it must not keep its VM.
        self._last_heard = float("-inf")
        self._rng = desk.rng
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat once more, then no more."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def sign(self, **changes: object) -> None:
        """The work is alive; `changes` are fields of the heartbeat that now hold."""
        with self._lock:
            self._last_sign = self._clock.monotonic()
            if not changes:
                # At every turn of the work, and more often than that.
                self._idle_since = self._last_sign if self._beat.busy else self._idle_since
                return
            before = self._beat
            self._beat = dataclasses.replace(before, **changes)  # type: ignore[arg-type]
            if self._beat.busy:
                self._idle_since = self._last_sign
            # People follow what it is doing, but for details after the colon: one beat per step, not per line.
            now_doing = self._beat.doing.partition(":")[0]
            turned = (
                before.job != self._beat.job
                or bool(before.busy) != bool(self._beat.busy)
                or before.doing.partition(":")[0] != now_doing
                or before.ends_because != self._beat.ends_because
            )
        if turned:
            self._wake.set()

    def finished(self, jobs: int) -> None:
        """The first `jobs` jobs that were given to this VM are behind it."""
        with self._lock:
            self._finished = jobs

    def jobs(self) -> list[str]:
        """The jobs given to this VM so far."""
        with self._journal_lock:
            self._ledger.refresh()
            return list(self._ledger.fold.jobs)

    def look(self) -> VmFold:
        """What the VM's journal says by now."""
        with self._journal_lock:
            return self._ledger.refresh()

    def ready(self) -> bool:
        """Whether the client has let this agent work."""
        with self._journal_lock:
            return self._ledger.refresh().ready is not None

    def give_up(self, why: str) -> None:
        """The VM is of no use any more: it takes no further work, and what it has in hand goes to others."""
        if not self._given_up:
            log.error("event=given-up why=%s", why)
        self._given_up = why

    def given_up(self) -> str:
        """Why this VM gave itself up; "" if it did not."""
        return self._given_up

    def warn(self, why: str) -> None:
        """The VM may end soon without further notice: as little as possible is to be in its hands only."""
        self._warned = why

    def warned(self) -> str:
        """Why this VM may end soon; "" if nothing says so."""
        return self._warned

    def condemned(self) -> str:
        """Why this VM is to end at once; "" if it is not. Costs no request."""
        if self._given_up:
            return self._given_up
        fold = self._ledger.fold
        if fold.delete is not None:
            return fold.delete.why
        if fold.gone is not None or fold.failed is not None:
            return "the VM's journal is closed"
        at, why = self._last_moment()
        if self._clock.now() >= at:
            # For good: the job that it was at is behind it from then on, and no other one is begun.
            self._over = why
        return self._over

    def _last_moment(self) -> tuple[float, str]:
        """When the VM must end whatever it is at, and though no store may answer; and what ends it then."""
        at, why = self._lifetime(), "maximum lifetime"
        paid = paid_until(self._ledger.fold)
        # The money is to end the job before, in its own time.
        return (at, why) if paid is None or at <= paid + SAVING_MAX else (paid + SAVING_MAX, "maximum cost")

    def _lifetime(self) -> float:
        """The hard deadline, or when the job that it is at may have it no longer."""
        hard, fold = self._config.hard_deadline, self._ledger.fold
        at_it = len(fold.jobs) > self._finished and fold.hold is None
        return min(hard, fold.job_until) if fold.job_until and at_it else hard

    def ends_at(self) -> tuple[float, str]:
        """When, in seconds since the epoch, the VM ends at the latest, and what ends it then."""
        last, paid = self._lifetime(), stop_at(self._ledger.fold)
        return (last, "maximum lifetime") if paid is None or paid > last else (paid, "maximum cost")

    def overspent(self, job: str = "") -> str:
        """That the last job, if it is `job`, has cost what it may but for what saving its results takes; else "".

        Costs no request: the price is in the VM's own journal, and the limit came with the job.
        """
        fold, now = self._ledger.fold, self._clock.now()
        at, last = stop_at(fold), "".join(fold.jobs[-1:])
        # Another thread may just be reading of the first job: its time and money are noted before its name.
        if at is None or now < at or not last or job not in ("", last):
            return ""
        return f"it has cost ${spent_on(fold, last, now):.2f} of the ${fold.max_cost:.2f} that it may"

    def waits(self) -> float:
        """Seconds for which the VM is still to wait for a job; 0 or less: it is not to wait."""
        fold = self._ledger.fold
        return max(fold.keep_warm - self.idle(), fold.stay_until - self._clock.now())

    def waits_for(self) -> str:
        """What ends the wait, for people."""
        fold = self._ledger.fold
        if fold.stay_until - self._clock.now() > max(0.0, fold.keep_warm - self.idle()):
            pool = fold.intent.pool if fold.intent is not None else ""
            return f"end of pool {pool}" if pool else "end of its stay"
        return "keep-warm window" if fold.keep_warm else "no more work"

    def idle(self) -> float:
        """Seconds without work."""
        with self._lock:
            return 0.0 if self._beat.busy else self._clock.monotonic() - self._idle_since

    def usd_per_hour(self) -> float | None:
        """Dollars an hour that this VM costs; None if its price is not known."""
        intent = self._ledger.fold.intent
        return hourly(intent) if intent is not None else None

    def held(self) -> Hold | None:
        """That the VM stays for debugging, and until when; None if it does not. Costs no request."""
        return self._ledger.fold.hold

    def hold(self, body: Hold, jobs: int) -> bool:
        """Stay for debugging after `jobs` jobs; False if a further one came in meanwhile, or the VM is to end."""
        with self._journal_lock:
            return self._ledger.hold(body, jobs=jobs)

    def stay_until(self) -> float:
        """Seconds since the epoch until which the VM was told to wait for jobs. Costs no request."""
        return self._ledger.fold.stay_until

    def drain(self, reason: str, jobs: int, stay_until: float | None = None) -> bool:
        """Take no further job; False if one came in meanwhile, or it is to wait until another time than that."""
        with self._journal_lock:
            return self._ledger.drain(reason, jobs=jobs, stay_until=stay_until)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._once()
            except StoreError as error:
                log.warning("event=heartbeat-failed error=%s", error.message)
            self._wake.wait(self._config.heartbeat)
            self._wake.clear()
        with contextlib.suppress(StoreError):
            self._once()

    def _once(self) -> None:
        self._renew_lease()
        self._read_journal()
        with self._journal_lock:
            # Both by one state of the journal: the work reads it, too.
            seen, given = self._ledger.seen, len(self._ledger.fold.jobs)
        with self._lock:
            now = self._clock.monotonic()
            # `seen` and `busy` go out together: a job that was read of and not begun makes the VM busy already.
            waiting = "" if given <= self._finished else "a job that it was given"
            self._beat = dataclasses.replace(
                self._beat,
                counter=self._beat.counter + 1,
                seen=seen,
                busy=self._beat.busy or waiting,
                idle=0.0 if self._beat.busy else round(now - self._idle_since, 1),
                lease=self._lease,
                agent_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            )
            beat = self._beat
        first = self._last_heard < 0
        self._send(beat)
        if first:
            self._renew_lease()

    def _send(self, beat: Heartbeat) -> None:
        assert self._desk.signer is not None
        entry = Entry(beat.counter, "", new_id(self._clock, self._rng), self._clock.now(), beat)
        write_heartbeat(self._desk.store, self._config.vm, entry, self._desk.signer)
        with self._lock:
            self._last_heard = self._clock.monotonic()

    def _read_journal(self) -> None:
        try:
            with self._journal_lock:
                if self._ledger.refresh().suspected:
                    self._ledger.alive()
        except (Corrupt, SchemaError) as error:
            # Written by somebody who must not, or by a later vmrun: nothing of it is obeyed, and the work goes on.
            log.error("event=journal-refused error=%s", error.message)

    def _renew_lease(self) -> None:
        with self._lock:
            now = self._clock.monotonic()
            stuck = now - self._last_sign > STUCK_AFTER or now - self._last_heard > UNHEARD_AFTER
        if stuck or self.condemned():
            return
        until = min(self._clock.now() + self._config.lease, self._config.hard_deadline)
        # The timer ends it in time, also one whose agent does not; the agent, which saves what there is, comes first.
        until = min(until, self._last_moment()[0] + SAVING_MAX)
        if (hold := self.held()) is not None:
            until = min(until, hold.until + HOLD_MARGIN)
        try:
            write_lease(self._config.lease_file, f"{int(until)}\n")
            self._lease = float(int(until))
        except OSError as error:
            log.error("event=lease-not-renewed error=%s", error)


def write_lease(path: str, text: str) -> None:
    """Replace the lease; on a full disk write over it, as its own block is the only space there is. Raises OSError."""
    fresh = f"{path}.new"
    try:
        with open(fresh, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or os.stat(path).st_size != len(text):
            raise
        # As long as before, in one write: whoever reads it meanwhile sees the old lease or the new one.
        with open(path, "r+b", buffering=0) as over:
            over.write(text.encode("ascii"))
