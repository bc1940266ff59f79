"""One job on one VM: claim shards, feed the engine, commit what comes out, declare the end."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator

from vmrun.core.blocks import TaskBlock, lengths_of
from vmrun.core.errors import BudgetError, Corrupt, StoreError, StoreUnavailable, UsageError, VmrunError
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.model import ShardPlan
from vmrun.core.ranges import RangeSet
from vmrun.core.records import Download, Final, Traffic
from vmrun.core.views import OutputChunk

from .commit import COMMIT_MIN, Batch, OutputWriter, commit_interval
from .engine import Engine, Event, Files, LargeResult, Load, Output, Results, RunnerDied
from .gather import gather_results
from .growth import Growth
from .inputs import ArgumentReader, clip, decode_tasks, without_arguments
from .leaving import last_events
from .network import Network
from .setup import Prepared, crew_facts, define_shard, prepare
from .share import HeldShard, Share
from .states import States
from .suspects import Suspects
from .tally import Tally
from .uploads import Uploads
from .workshop import OVERSPENT, Workshop

log = logging.getLogger(__name__)

#: A VM gives up when more than one of this many workers cannot be ended.
STUCK_PART = 10
#: Claims of a shard in a row that gave no outcome, after which its job is given up: it may be what ends its VMs.
BARREN_CLAIMS_MAX = 8
#: Bytes of outcomes that wait for the store before no more tasks are started.
UNCOMMITTED_MAX = 256 * 1024 * 1024
#: Seconds between attempts while the store does not answer.
STORE_PAUSE = 2.0
#: Seconds of a download that is worth a record.
DOWNLOAD_MIN = 0.0001


class JobRun:
    """Runs one job to its end, or until the VM is condemned."""

    def __init__(self, shop: Workshop, job: str) -> None:
        self._shop = shop
        self._job = job
        self._clock = shop.desk.clock
        self._ledger = JobLedger(shop.desk, job)
        self._tally = Tally(self._ledger, shop.config.vm)
        self._held: dict[int, HeldShard] = {}
        self._prepared: Prepared | None = None
        self._share: Share | None = None
        #: Tasks that ended here.
        self._gathered = 0
        self._growth = Growth(shop, job, self._ledger)
        self._arguments: ArgumentReader | None = None
        self._uploads = Uploads(shop.blobs, job, shop.desk.clock, alive=shop.pulse.sign)
        self._output = OutputWriter(shop.blobs, job, shop.stream, self._clock)
        self._network = Network()
        self._started = self._clock.monotonic()
        self._committed = self._started
        self._polled = -1e9
        self._poll = shop.config.poll_min
        self._suspects = Suspects()
        self._cancelling = False
        #: That this VM said that the job fails as a whole.
        self._gave_up = False
        #: That the job has cost what it may: no more of it is run, whatever the clock says later.
        self._overspent = ""
        #: What the engine has told and was not dealt with yet; stays while the store does not answer.
        self._events: deque[Event] = deque()
        #: Why the runner is gone, until there is another.
        self._fallen = ""

    def run(self) -> None:
        """Return when the job is final or this VM is to end. Raises VmrunError only when the store is lost."""
        fold = self._ledger.refresh()
        if fold.submit is None or fold.submit.deployment != self._shop.config.deployment:
            raise Corrupt(f"job {self._job} was not submitted to this deployment")
        if fold.final is not None or self._growth.barred():
            return
        try:
            self._prepared = prepare(self._shop, self._job, fold.spec, fold.outgrown)
        except StoreUnavailable:
            raise
        except VmrunError as error:
            log.error("event=job-not-startable job=%s error=%s", self._job, error.message)
            self._fail(error.message, error.hint)
            return
        try:
            while not self._finished():
                self._step()
        finally:
            self._leave()
            self._uploads.close()
            if self._ledger.fold.final is not None:
                self._prepared.states.clear()
            self._prepared.close(keep_files=self.to_hold)

    @property
    def to_hold(self) -> bool:
        """Whether the job failed, on this VM, and asked that the machine stays for debugging then."""
        failed = self._gave_up or self._tally.failed_here
        return failed and self._ledger.fold.may_be_held

    def _leave(self) -> None:
        """Before this VM ends with work in hand: commit what is finished, and let others have the rest."""
        if not self._held:
            return
        try:
            self._take([] if self._fallen else list(last_events(self._engine, self._clock)))
            self._commit()
            if self._ledger.fold.final is None:  # else another VM declared the end meanwhile
                self._states.save(held.batch for held in self._held.values())
                for held in self._held.values():
                    held.batch.ledger.release(self._shop.config.vm, self._shop.pulse.condemned() or "agent stopped")
        except StoreError as error:
            log.warning("event=not-released error=%s", error.message)

    @property
    def _engine(self) -> Engine:
        assert self._prepared is not None
        return self._prepared.engine

    @property
    def _states(self) -> States:
        assert self._prepared is not None
        return self._prepared.states

    def _finished(self) -> bool:
        return self._growth.ended(self._held) or bool(self._shop.pulse.condemned())

    def _step(self) -> None:
        """One turn: look at the journal when it is time, feed, wait for events, commit when it is due."""
        try:
            self._take([])
            if self._fallen:
                self._restart()
            self._look()
            self._feed()
            self._take(self._engine.poll(0.0 if self._fallen else self._poll))
            self._commit_if_due()
            if not self._cancelling:
                self._growth.depart(self._engine, self._workers, self._held, self._claim, self._commit, self._states)
        except StoreUnavailable as error:
            # Outcomes stay in their batches, events where they are, and the engine goes on with what it has.
            log.warning("event=store-unavailable error=%s", error.message)
            self._shop.pulse.sign()
            self._events.extend(self._engine.poll(STORE_PAUSE))

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._polled < self._poll:
            return
        self._polled = now
        fold = self._ledger.refresh()
        if fold.cancelled_by:
            self._stop("cancelled")
            return
        self._overspent = self._overspent or self._shop.pulse.overspent(self._job)
        if self._overspent:
            if fold.spec.vms > 1:
                # Others may have money left; if none has, the daemon ends the job after this VM has taken its leave.
                self._shop.pulse.give_up(f"{OVERSPENT}: {self._overspent}")
            else:
                self._stop("failed", f"its money is spent: {self._overspent}", BudgetError.code)
            return
        progress = self._claim()
        if not self._held:
            progress = self._conclude() or progress
        config = self._shop.config
        if fold.complete and self._held:
            # Nothing can come but a cancellation; the engine's events need no look at the store.
            self._poll = config.poll_max
        else:
            self._poll = config.poll_min if progress else min(config.poll_max, self._poll * 1.3)

    def _claim(self) -> bool:
        """Take shards that nobody has, as long as there is a want of them; whether any was taken."""
        taken = False
        fold = self._ledger.fold
        share = self._share = self._share or Share(self._shop.config.vm, fold.spec.vms, self._workers)
        if not self._wants(share):
            return False
        for plan in share.turn(self._tally.unknown(self._held)):
            taken = self._claim_shard(plan) or taken
            if not self._wants(share):
                break
        return taken

    def _wants(self, share: Share) -> bool:
        rate = self._gathered / max(1.0, self._clock.monotonic() - self._started)
        return share.wants(len(self._held), sum(held.left for held in self._held.values()), rate)

    @property
    def _workers(self) -> int:
        assert self._prepared is not None
        return self._prepared.engine_spec.workers

    def _claim_shard(self, plan: ShardPlan) -> bool:
        if self._growth.closed() or self._tally.is_settled(plan):
            return False
        ledger, vm = self._tally.journal(plan), self._shop.config.vm
        owner = ledger.fold.owner
        if owner and owner != vm and not self._growth.leaves(owner):
            return False
        if ledger.fold.barren >= BARREN_CLAIMS_MAX:
            tasks = f"tasks {plan.first}-{plan.end - 1}"
            self._fail(
                f"{ledger.fold.barren} times in a row {tasks} were taken and their VM ended before any outcome",
                "the job may be what ends its machines: look at `vmrun logs`, ask for more --memory",
            )
            return False
        if not ledger.claim(vm, from_owner=owner or None, crew=crew_facts(self._prepared)):
            return False
        batch = Batch(self._shop.blobs, self._job, ledger, vm, clock=self._clock, uploads=self._uploads)
        self._held[plan.shard] = HeldShard(plan, batch, self._feed_of(plan, ledger, RangeSet()))
        log.info("event=claimed job=%s shard=%d tasks=%d", self._job, plan.shard, plan.count)
        return True

    def _feed_of(self, plan: ShardPlan, ledger: ShardLedger, given: RangeSet) -> Iterator[tuple[TaskBlock, str]]:
        """The shard's tasks that have no outcome yet and were not `given`, with the function that each block calls."""
        assert self._prepared is not None
        known = RangeSet([*ledger.fold.done, *given])
        remaining = known.missing(plan.first, plan.end)
        function = define_shard(self._shop, self._prepared, plan)
        spec = self._ledger.fold.spec
        if plan.reduce:
            directory = os.path.dirname(self._prepared.engine_spec.directory)
            path = gather_results(self._shop, self._ledger, directory)
            payload = path.encode()
            block = TaskBlock(plan.first, lengths_of([payload]), payload, "results")
            yield block, function
            return
        if plan.entry >= 0:
            blocks = iter((decode_tasks(self._ledger.attachment(plan.entry)),))
        elif spec.arguments is not None:
            self._arguments = self._arguments or ArgumentReader(self._shop.blobs, spec.arguments)
            blocks = self._arguments.blocks(plan.first, plan.end)
        else:
            blocks = without_arguments(plan.first, plan.end)
        for block in clip(blocks, remaining):
            yield block, function

    def _feed(self) -> None:
        waiting = sum(held.batch.bytes for held in self._held.values())
        if self._cancelling or self._growth.leaving or waiting > UNCOMMITTED_MAX:
            return
        for held in self._held.values():
            while not held.fed and self._engine.wants() and self._suspects.room:
                self._feed_next(held)

    def _feed_next(self, held: HeldShard) -> None:
        began = self._clock.monotonic()
        try:
            fed = next(held.feed, None)
            if fed is not None and held.batch.ledger.fold.saved:
                self._states.restore(held.batch.ledger.fold, fed[0].first, fed[0].count)
        except StoreUnavailable:
            # A generator that raised is at its end: the next one begins with what the engine does not have.
            held.feed = self._feed_of(held.plan, held.batch.ledger, held.given)
            raise
        if fed is None:
            held.fed = True
            return
        block, function = held.cut(*fed, self._suspects.room)
        took = round(self._clock.monotonic() - began, 6)
        if took >= DOWNLOAD_MIN:
            held.batch.add_traffic(Traffic((Download(block.first, block.count, took),)))
        self._engine.feed(block, function)
        held.given.add(block.first, block.first + block.count)
        self._suspects.given(block.count)

    def _take(self, events: list[Event]) -> None:
        """Deal with what the engine told. What the store did not take stays first in line."""
        self._shop.pulse.sign()
        self._events.extend(events)
        while self._events:
            self._take_one(self._events[0])
            self._events.popleft()

    def _take_one(self, event: Event) -> None:
        if isinstance(event, Results | LargeResult | Files):
            self._gather(event)
        elif isinstance(event, Output):
            reduce = self._is_reduce(event.task)
            self._output.add(OutputChunk(event.task, event.attempt, event.stream, event.data, reduce))
        elif isinstance(event, Load):
            self._shop.pulse.sign(running=event.running, queued=event.queued, done=event.done)
            if event.stuck * STUCK_PART > self._workers:
                self._shop.pulse.give_up(f"{event.stuck} of its {self._workers} workers cannot be ended")
        elif isinstance(event, RunnerDied):
            self._fallen = event.reason
            self._suspects.fell(event, self._held.values())

    def _gather(self, event: Results | LargeResult | Files) -> None:
        """Put what a task gave into its shard's batch; what belongs to a shard that was taken over is dropped."""
        task = event.block.first if isinstance(event, Results) else event.task
        self._suspects.ended(event)
        held = next((held for held in self._held.values() if held.plan.first <= task < held.plan.end), None)
        if held is None:
            log.warning("event=dropped task=%d reason=shard-taken-over", task)
        elif isinstance(event, Results):
            for block in self._growth.sift(event.block, self._output):
                held.batch.add(block)
                self._states.ended(block.first, block.count)
            self._gathered += event.block.count
        elif isinstance(event, LargeResult):
            self._states.ended(task)
            held.batch.add_large(task, event.path)
            self._gathered += 1
        else:
            held.batch.add_files(task, event.attempt, event.path, self._output)

    def _is_reduce(self, task: int) -> bool:
        spec = self._ledger.fold.spec
        return spec.reduce and task == spec.tasks

    def _restart(self) -> None:
        """A new engine for the tasks that have no outcome yet."""
        self._commit()
        if self._suspects.unfit:
            self._fail(self._suspects.unfit)
            return
        assert self._prepared is not None
        try:
            self._prepared.restart()
        except UsageError as error:
            self._fail(error.message, error.hint)
            return
        self._fallen = ""
        for held in self._held.values():
            held.given = RangeSet()
            held.feed, held.fed = self._feed_of(held.plan, held.batch.ledger, held.given), False

    def _fail(self, message: str, hint: str = "") -> None:
        # Of several VMs that cannot begin it, the first to say so is the one that is looked at.
        tally = self._tally
        final = Final("failed", tally.ended - tally.failed, tally.failed, message, hint)
        self._gave_up |= self._ledger.finish(final)

    def _commit_if_due(self) -> None:
        now = self._clock.monotonic()
        # Somebody waits for each call of an open job. What is not committed when a machine is taken back is lost.
        hurried = self._ledger.fold.is_open or self._shop.pulse.warned()
        interval = COMMIT_MIN if hurried else commit_interval(now - self._started)
        idle = self._engine.idle() and all(held.fed for held in self._held.values())
        if self._output.due(interval) or idle:
            self._output.flush()
        # A job's last outcomes go at once; that one of many shards is complete is no hurry.
        alone = self._ledger.fold.spec.vms <= 1
        urgent = any(held.batch.full or (held.batch.whole and alone) for held in self._held.values())
        due = now - self._committed >= interval or idle or urgent
        if due and any(held.batch.tasks for held in self._held.values()):
            self._commit(patient=idle or urgent)
            if idle:
                self._polled = -1e9
        if self._states.due(interval):
            self._states.save(held.batch for held in self._held.values())

    def _commit(self, *, patient: bool = True) -> None:
        # Output first: whoever sees the outcome of a task can read all that the task wrote.
        self._output.flush()
        for number, held in list(self._held.items()):
            if held.batch.tasks:
                held.batch.add_traffic(self._network.passed())
            ours = held.batch.commit(patient=patient)
            if self._tally.is_settled(held.plan) or not ours:
                del self._held[number]
        self._committed = self._clock.monotonic()

    def _conclude(self) -> bool:
        """With nothing in hand: run the reduce or declare the end, if all else is settled."""
        fold, tally = self._ledger.fold, self._tally
        settled, reduce = tally.look()
        if not settled:
            return False
        if not fold.complete:
            return self._abandoned()
        failed = tally.failed
        done = tally.ended - failed
        if fold.spec.reduce and fold.spec.tasks and not failed:
            if reduce is not None and not tally.is_settled(reduce):
                return self._claim_shard(reduce)
            failed = tally.reduce_failed
            done += 1 - failed
        self._ledger.finish(Final("failed" if failed else "done", done, failed))
        return True

    def _abandoned(self) -> bool:
        """End an open job to which nobody has added a call for too long: its client is gone."""
        idle, limit = self._clock.monotonic() - self._committed, self._ledger.fold.spec.idle_timeout
        if idle < limit:
            return False
        ended, failed = self._tally.ended, self._tally.failed
        message = f"no calls for {limit:.0f} s"
        final = Final("done", ended - failed, failed, message, "make a new Executor")
        return self._ledger.finish(final, tasks=ended)

    def _stop(self, outcome: str, why: str = "", code: str = "") -> None:
        """Stop what runs, commit what finished, declare the job's end."""
        if not self._cancelling:
            self._cancelling = True
            self._engine.cancel()
        if not self._engine.idle():
            return
        self._commit()
        for held in self._held.values():
            held.batch.ledger.release(self._shop.config.vm, why or outcome)
        self._held.clear()
        ended, failed = self._tally.counts()
        hint = f"`vmrun result {self._job}` has what had finished; a higher --max-cost lets it run on" if why else ""
        self._ledger.finish(Final(outcome, ended - failed, failed, why, hint, code))
