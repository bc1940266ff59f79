"""Tasks that need more memory than this VM has: set aside while the others go on, and then left to a larger VM."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from vmrun.core.blocks import ResultBlock, Status, read_failure
from vmrun.core.crew import usable_memory
from vmrun.core.growth import GROW, grown_limit, may_grow, too_small
from vmrun.core.ledger import JobLedger
from vmrun.core.outgrown import Outgrown
from vmrun.core.views import OutputChunk
from vmrun.machine.programs import facts

from .commit import OutputWriter
from .engine import Engine
from .share import HeldShard
from .states import States
from .workshop import Workshop

log = logging.getLogger(__name__)

#: Tasks that run out of memory one after the other, for each worker and at least, before no more are tried here.
ROW_PER_WORKER, ROW_MIN = 2, 4
#: Characters of what a failure says that go into the job's journal.
MESSAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class _Home:
    """The VM as it was rented."""

    #: Bytes; 0 where there is no larger one.
    memory: int
    #: Seconds since the epoch, when it was given the job.
    since: float


@dataclass(frozen=True, slots=True)
class _Aside:
    task: int
    peak: int
    message: str


class Growth:
    """What this VM is too small for, of one job."""

    def __init__(self, shop: Workshop, job: str, ledger: JobLedger) -> None:
        self._shop = shop
        self._job = job
        self._ledger = ledger
        self._known: _Home | None = None
        self._aside: dict[int, _Aside] = {}
        self._row = 0
        #: No further task is tried here; what is cancelled for that has no outcome.
        self.leaving = False

    @property
    def _home(self) -> _Home:
        if self._known is None:
            self._known = self._look_up()
        return self._known

    def _look_up(self) -> _Home:
        fold, shop = self._ledger.fold, self._shop
        if fold.submit is None or fold.spec.on_oom != GROW or shop.config.same_machine:
            return _Home(0, 0.0)
        vm = shop.pulse.look()
        assert vm.intent is not None
        # Another thread may just be reading of a further job.
        since = dict(zip(vm.jobs, vm.given_at, strict=False)).get(self._job, vm.intended_at)
        return _Home(vm.intent.memory, since)

    def barred(self) -> bool:
        """Whether this VM is known to be too small for the job."""
        outgrown = self._ledger.fold.outgrown
        return bool(outgrown and self._home.memory) and too_small(self._home.memory, outgrown)

    def ended(self, held: Mapping[int, HeldShard]) -> bool:
        """Whether there is nothing more to do here: the job is at its end, or too large with nothing `held`."""
        return self._ledger.fold.final is not None or (not held and self.barred())

    def closed(self) -> bool:
        """Whether nothing more of the job is to be taken up here."""
        return self.leaving or self.barred()

    def leaves(self, owner: str) -> bool:
        """Whether another VM does nothing more of what it holds: it is dead, or said that it is too small."""
        return self._ledger.fold.outgrew(owner) or self._shop.owners.dead(owner)

    def sift(self, block: ResultBlock, output: OutputWriter) -> Iterator[ResultBlock]:
        """The outcomes that are to be committed; tasks that the VM is too small for are set aside, and told of that."""
        status = block.status
        if Status.ok in status:
            self._row = 0
        unwanted = {Status.cancelled} if self.leaving else set()
        if Status.oom in status and self._home.memory and may_grow(self._ledger.fold.spec, self._ledger.fold.outgrown):
            unwanted.add(Status.oom)
        start = 0
        # After the runner died, what was set aside runs again, and may have had more room than the first time.
        for task in [task for task in self._aside if block.first <= task < block.first + block.count]:
            del self._aside[task]
        for at, code in enumerate(status if unwanted else b""):
            if code not in unwanted:
                continue
            if start < at:
                yield block.slice(block.first + start, at - start)
            start = at + 1
            if code == Status.oom:
                self._set_aside(block.slice(block.first + at, 1), output)
        if start < block.count:
            yield block.slice(block.first + start, block.count - start)

    def _set_aside(self, block: ResultBlock, output: OutputWriter) -> None:
        message = str(read_failure(block.payload).get("message", ""))[:MESSAGE_MAX]
        task, peak, attempt = block.first, block.facts.get("peak_bytes"), block.facts.get("attempt")
        log.info("event=set-aside job=%s task=%d peak=%s message=%s", self._job, task, peak, message)
        self._row += 1
        self._aside[task] = _Aside(task, peak if type(peak) is int and peak > 0 else 0, message)
        text = f"vmrun: task {task} ran out of memory, and runs again on a larger machine: {message}\n"
        spec = self._ledger.fold.spec
        output.add(
            OutputChunk(
                *(task, attempt if type(attempt) is int else 0, "stderr", text.encode()),
                reduce=spec.reduce and task == spec.tasks,
            )
        )

    def depart(
        self,
        engine: Engine,
        workers: int,
        held: dict[int, HeldShard],
        claim: Callable[[], bool],
        commit: Callable[[], None],
        states: States,
    ) -> None:
        """Leave to a larger VM what this one is too small for, when it is time; nothing is `held` then.

        That is when nothing else is left to do, nor can be had by `claim`, or when nothing else comes any more; then
        what runs is broken off first.
        """
        if not self._aside:
            return
        if not self.leaving and self._row >= max(ROW_MIN, ROW_PER_WORKER * workers):
            self.leaving = True
            engine.cancel()
        fed = self.leaving or all(each.fed for each in held.values())
        if not fed or not engine.idle() or claim():
            return
        commit()
        # They go on from there on the larger VM.
        states.save(each.batch for each in held.values())
        if self._tell(workers):
            for each in held.values():
                each.batch.ledger.release(self._shop.config.vm, "out of memory")
            held.clear()

    def _tell(self, workers: int) -> bool:
        """Say in the job's journal that the VM is too small; whether that stands. May be repeated."""
        worst = max(self._aside.values(), key=lambda aside: aside.peak)
        body = Outgrown(
            vm=self._shop.config.vm,
            memory=self._home.memory,
            workers=workers,
            task=worst.task,
            peak=worst.peak,
            limit=self._limit(),
            message=worst.message,
            since=self._home.since,
        )
        return self._ledger.outgrow(body)

    def _limit(self) -> int:
        """Bytes that one task may take, or all together."""
        fold = self._ledger.fold
        return grown_limit(fold.spec.need, fold.outgrown) or usable_memory(facts.memory())
