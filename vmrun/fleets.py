"""The machines of jobs that have several, or get others for lost ones: got together, looked after, left to others.

A job's own journal lists its machines (ENLIST) and says which lost one is being replaced (REPLACE), so that two clients
that look after the same job do not both pay for it; where nothing comes of that, another one takes it over. Machines
need none of this to finish: a client that dies leaves them to the job, and whoever waits for it next goes on here.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .core.clock import Clock
from .core.clouds import Market
from .core.errors import BudgetError, CapacityError, StoreError
from .core.folds import VmFold
from .core.growth import GROW
from .core.ledger import JobLedger
from .core.model import JobSpec
from .core.vm_ledger import VmLedger
from .fleet.bring_up import rent
from .fleet.budget import in_place_of, share
from .fleet.deck import OnStage
from .fleet.memory import Memory
from .fleet.muster import STOP_PATIENCE, Muster, Recruit, StoppableClock, Stopped
from .fleet.order import Order
from .fleet.owed import Owed
from .fleet.parting import LEAVE_PATIENCE, HalfMade
from .fleet.replacing import PATIENCE as REPLACE_PATIENCE
from .fleet.replacing import fallen_back, is_loss, is_met, short_of, unmet
from .fleet.replacing import losses as lost_machines
from .fleet.retire import WATCH, give_back
from .fleet.search import RuledOut
from .fleet.warm import take_warm
from .watch.observe import readable, vm_ids
from .wiring import Wiring

log = logging.getLogger(__name__)

#: The order for one more machine of a job, with the money of all. Raises BudgetError and CapacityError.
OrderOf = Callable[[JobSpec], Order]

#: Machines of a job that one look asks their cloud for: each is a request.
LOOKS_MAX = 16
#: Machines that are given back at the same time.
GIVEN_BACK_AT_ONCE = 8


def is_shared(spec: JobSpec) -> bool:
    """Whether the job's machines are looked after as a fleet."""
    return spec.vms > 1 or spec.replace_lost > 0


def may_need_others(spec: JobSpec) -> bool:
    """Whether somebody should stay to get other machines for those that are lost, or too small."""
    return spec.replace_lost > 0 or spec.need.market is not Market.on_demand or spec.on_oom == GROW


class Fleets:
    """What this client has of jobs' machines. Its methods are for one thread at a time."""

    def __init__(self, wiring: Wiring, go_on: Callable[[str], None]) -> None:
        """`go_on` has another process get a job what it lacks."""
        self._wiring = wiring
        self._go_on = go_on
        self._ledgers: dict[str, JobLedger] = {}
        #: Around the journals of jobs, which the threads of a muster write to.
        self._lock = threading.Lock()
        self._preparing = threading.Lock()
        self._musters: dict[str, list[Muster]] = {}
        self._taken: dict[str, list[str]] = {}
        self._news: dict[str, list[str]] = {}
        self._owed: dict[str, Owed] = {}
        #: Machines on their way, and jobs that whoever waited for them has left, as said to another process or not yet.
        self._half = HalfMade()
        self._left: set[str] = set()
        self._handed: set[str] = set()
        #: Lost machines in whose places there are others, whoever got them.
        self._met: set[str] = set()
        #: Machines that are known to be no more, and how far the last look came.
        self._gone: set[str] = set()
        self._looked = 0

    # --- getting machines ---

    def bring_up(self, order: Order, spec: JobSpec, on_stage: OnStage) -> str:
        """Get the job the machines that it lacks; the id of the first that serves it, the others come by and by.

        `order` has the money of all. "" if the job ended meanwhile. Raises what explains why there is none at all.
        """
        job = order.job
        self._left.discard(job)
        folds = self._folds(job)
        self._adopt(job, folds)
        serving = [vm for vm, fold in folds.items() if self._serves(fold)]
        lack = spec.vms - len(serving)
        if lack <= 0:
            return serving[0]
        order = share(order, lack, folds.values(), self._wiring.clock.now())
        taken = self._take_warm(order, lack, on_stage)
        if lack == len(taken):
            return (serving + taken)[0]
        muster = self._muster(order, lack - len(taken), on_stage)
        if serving or taken:
            return (serving + taken)[0]
        try:
            return muster.first()
        except Stopped:
            # Another client got them at the same time, or the job ended.
            return next((vm for vm, fold in self._folds(job).items() if self._serves(fold)), "")
        except Exception:
            muster.stop()
            self._musters[job].remove(muster)
            raise

    def _folds(self, job: str) -> dict[str, VmFold]:
        """The job's machines: those that its journal lists, and those that somebody is about to create for it."""
        desk = self._wiring.desk
        listed = list(self._refresh(job).fold.vms)
        found = {vm: readable(VmLedger(desk, vm)) for vm in dict.fromkeys([*listed, *vm_ids(desk)])}
        return {vm: fold for vm, fold in found.items() if fold is not None and job in fold.jobs}

    def _adopt(self, job: str, folds: dict[str, VmFold]) -> None:
        """List those that work for the job and are not listed: their client died after it had given them the job."""
        with self._lock:
            ledger = self._ledgers[job]
            for vm, fold in folds.items():
                if vm not in ledger.fold.vms and fold.ready is not None and self._serves(fold):
                    ledger.enlist(vm)

    def _take_warm(self, order: Order, most: int, on_stage: OnStage) -> list[str]:
        """Warm machines that now have the job, in this one thread: two must not take the same."""
        taken: list[str] = []
        known = self._ledgers[order.job].fold.vms
        while len(taken) < most:
            vm = take_warm(self._wiring.deck, order, without={*known, *taken})
            if vm is None:
                break
            on_stage(f"taking the warm VM {vm}")
            with self._lock:
                self._ledgers[order.job].enlist(vm)
            taken.append(vm)
        if taken:
            self._stay()
            self._taken.setdefault(order.job, []).extend(taken)
        return taken

    def _muster(self, order: Order, machines: int, on_stage: OnStage, *, quiet: bool = False) -> Muster:
        self._stay()
        muster = Muster(self._recruit(order), machines, self._wiring.clock, on_stage, quiet=quiet)
        self._musters.setdefault(order.job, []).append(muster)
        return muster

    def _stay(self) -> None:
        """Before the first machine is had: see to it that they are left to the jobs if the program ends first."""
        if not any((*self._musters.values(), *self._taken.values())):
            atexit.register(self._leave)

    def _recruit(self, order: Order) -> Recruit:
        out: list[RuledOut] = []

        def recruit(on_stage: OnStage, clock: Clock) -> str:
            fold = self._refresh(order.job).fold
            if fold.final is not None or fold.cancelled_by:
                raise Stopped
            # Drivers are not made for several threads.
            wiring = self._wiring.sibling(clock)
            wiring.on_stage = on_stage
            with self._half.making(order.job) as begun:
                deck = replace(
                    wiring.deck,
                    begun=begun,
                    joined=lambda vm: self._enlist(order.job, vm),
                    steady=self._wiring.clock,
                    leaving=lambda: order.job in self._left,
                    preparing=self._preparing,
                )
                return rent(deck, order, on_stage, out)

        return recruit

    def _enlist(self, job: str, vm: str) -> None:
        """List a machine that was made for the job. Raises Stopped if that ended, or has all its machines by now."""
        with self._lock:
            ledger = self._ledgers[job]
            fold, gone = ledger.refresh(), set[str]()
            if len(fold.vms) >= fold.spec.vms:
                folds = {each: readable(VmLedger(self._wiring.desk, each)) for each in fold.vms}
                gone = {each for each, found in folds.items() if found is None or not self._serves(found)}
            if not ledger.enlist(vm, fold.spec.vms, gone) and vm not in fold.vms:
                log.info("event=not-needed job=%s vm=%s", job, vm)
                raise Stopped

    def _refresh(self, job: str) -> JobLedger:
        ledger = self._ledgers.setdefault(job, JobLedger(self._wiring.desk, job))
        with self._lock:
            ledger.refresh()
        return ledger

    def _serves(self, fold: VmFold) -> bool:
        """Whether it works, or may still come to that."""
        assert fold.intent is not None
        waits = fold.ready is not None or self._wiring.clock.now() < fold.intended_at + fold.intent.boot_grace
        return waits and fold.unsettled

    # --- looking after them ---

    def tend(self, job: str, lost: Callable[[str], bool], order: OrderOf) -> bool:
        """Find out which machines are no more and get others for them, as far as the job asks for it.

        `lost` asks the cloud; `order` is for one more machine, with the money of all. Returns whether any machine
        serves the job or is on its way.
        """
        ledger = self._refresh(job)
        with self._lock:
            vms, spec = list(ledger.fold.vms), ledger.fold.spec
        there = [vm for vm in vms if vm not in self._gone]
        for vm in self._some(there):
            if lost(vm):
                self._gone.add(vm)
        # They may have left since it was read because the job has ended, which was said before.
        if not self.on_the_way(job) and spec.replace_lost > 0 and self._refresh(job).fold.final is None:
            self._replace(job, [vm for vm in vms if vm in self._gone], order)
        return self.on_the_way(job) or any(vm not in self._gone for vm in vms)

    def _some(self, vms: list[str]) -> Iterable[str]:
        if len(vms) <= LOOKS_MAX:
            return vms
        begin, self._looked = self._looked % len(vms), self._looked + LOOKS_MAX
        return [*vms[begin:], *vms[:begin]][:LOOKS_MAX]

    def _replace(self, job: str, gone: list[str], order: OrderOf) -> None:
        ledger, owed = self._ledgers[job], self._owed.setdefault(job, Owed(self._wiring.clock))
        due = owed.due()
        others = [vm for vm in ledger.fold.replaced if not owed.knows(vm) and vm not in self._met]
        mine: list[str] = []
        try:
            mine = self._take_over(job, [*due, *others])
            if mine:
                self._get_others(job, mine, order, "searching again for" if due else "getting, as nobody else did,")
        except StoreError:
            owed.keep(due or mine)
            raise
        if mine:
            return
        folds = {vm: readable(VmLedger(self._wiring.desk, vm)) for vm in gone if vm not in ledger.fold.replaced}
        losses = [vm for vm, fold in folds.items() if fold is not None and is_loss(fold, job)]
        if losses and len(ledger.fold.replaced) < ledger.fold.spec.replace_lost:
            self._get_others(job, losses, order)

    def _take_over(self, job: str, vms: list[str]) -> list[str]:
        """Those of the lost machines, taken on by this client or another, that this client is to replace now.

        What this client took on, and another one has taken over meanwhile, is owed still.
        """
        ledger, owed, now = self._ledgers[job], self._owed[job], self._wiring.clock.now()
        taken = ledger.fold.replacements.taken
        if not any(owed.knows(vm) or abs(now - taken[vm].at) >= REPLACE_PATIENCE for vm in vms):
            return []
        folds = self._folds(job)
        waiting = unmet(ledger.fold, folds, self._serves)
        self._met |= {vm for vm in vms if vm not in waiting and is_met(ledger.fold, vm, folds)}
        wanted = {vm: waiting[vm] for vm in vms if vm in waiting}
        with self._lock:
            mine = [vm for vm, failed in wanted.items() if ledger.take_over(vm, failed, REPLACE_PATIENCE, now)]
        owed.keep([vm for vm in wanted if vm not in mine and owed.knows(vm)])
        return mine

    def _get_others(self, job: str, losses: list[str], order: OrderOf, again: str = "") -> None:
        """Get machines in the place of the `losses`, as far as this client takes them on.

        `again` says why, for people, if it has taken them on already.
        """
        ledger, owed = self._ledgers[job], self._owed[job]
        if again:
            owed.took(losses)
        try:
            one, losses = self._in_place_of(losses, order(ledger.fold.spec))
        except (BudgetError, CapacityError) as error:
            log.info("event=not-replaced job=%s error=%s", job, error.message)
            return
        if not again:
            with self._lock:
                losses = [vm for vm in losses if ledger.replace(vm)]
        if losses:
            what = f"{again or 'getting'} {len(losses)} in its place"
            self._news.setdefault(job, []).append(f"lost {', '.join(losses)}; {what}")
            owed.getting(self._muster(one, len(losses), log.debug, quiet=True), losses)

    def _in_place_of(self, losses: list[str], order: Order) -> tuple[Order, list[str]]:
        """The order for each machine that replaces one of the `losses`, and which of them left money for that.

        Raises BudgetError if nothing is left.
        """
        folds, now = self._folds(order.job), self._wiring.clock.now()
        # As for a job of one machine: another offer than what was taken back, and in the end none of that kind.
        Memory(self._wiring.deck.cache_dir).note(short_of((folds[vm] for vm in losses if vm in folds), now), now)
        order = fallen_back(order, lost_machines(folds.values(), order.job))
        return in_place_of(losses, order, folds, now)

    def on_the_way(self, job: str) -> bool:
        """Whether this client is getting the job further machines."""
        return any(muster.running for muster in self._musters.get(job, ()))

    def news(self, job: str) -> list[str]:
        """What a person should know of the job's machines and was not told yet."""
        news = self._news.pop(job, [])
        for muster in self._musters.get(job, ()):
            news += muster.news()
        return news

    def has(self, job: str) -> bool:
        """Whether this client got the job machines here."""
        return bool(self._musters.get(job) or self._taken.get(job))

    def wants_attendance(self, job: str) -> bool:
        """Whether somebody should stay: for machines that are on their way, or to replace those that are lost."""
        fold = self._refresh(job).fold
        return fold.final is None and (self.on_the_way(job) or may_need_others(fold.spec))

    # --- the end ---

    def settle(self, job: str, watch: float = WATCH) -> None:
        """Give back what this client got a job that ended, but for what is to stay warm or has another job."""
        vms, stop = self.stop(job), threading.Event()
        decks = [self._wiring.sibling(StoppableClock(self._wiring.clock, stop)).deck for _ in vms]
        if vms:
            # Each waits until its machine is seen to be gone, or for `watch` seconds.
            with ThreadPoolExecutor(GIVEN_BACK_AT_ONCE, thread_name_prefix="vmrun-give-back") as pool:
                try:
                    list(pool.map(lambda deck, vm: give_back(deck, vm, job, watch=watch), decks, vms))
                except BaseException:
                    # A person who leaves does not wait for that.
                    stop.set()
                    raise

    def stop(self, job: str, patience: float = STOP_PATIENCE) -> list[str]:
        """Get the job no more machines, and give back half-made ones; those that this client got it.

        What is not given back after `patience` seconds is condemned, for others to delete.
        """
        musters, taken = self._musters.pop(job, []), self._taken.pop(job, [])
        self._owed.pop(job, None)
        try:
            for muster in musters:
                muster.stop(0.0)
            for muster in musters:
                muster.stop(patience)
        finally:
            if any(muster.running for muster in musters):
                # If the store does not answer, they end at the end of their boot grace.
                with contextlib.suppress(StoreError):
                    self._half.condemn(self._wiring.desk, job)
            if not any((*self._musters.values(), *self._taken.values())):
                atexit.unregister(self._leave)
        return [*taken, *(vm for muster in musters for vm in muster.ready)]

    def hand_over(self, job: str) -> None:
        """The person leaves, the job does not: another process goes on, with what is half made given back or condemned.

        Takes a few seconds at most, and none once the person has lost patience. A second call does nothing.
        """
        if job in self._handed:
            return
        self._handed.add(job)
        try:
            self.part(job)
        finally:
            self._go_on(job)

    @contextlib.contextmanager
    def left_to_others(self, job: str) -> Iterator[None]:
        """A person who leaves while the job gets a machine here leaves that to another process."""
        self._handed.discard(job)
        try:
            yield
        except KeyboardInterrupt:
            self.hand_over(job)
            raise

    def part(self, job: str) -> None:
        """Get the job no more machines; those that are half made nobody watches any longer."""
        self._left.add(job)
        with contextlib.suppress(KeyboardInterrupt):
            self.stop(job, LEAVE_PATIENCE)

    def _leave(self) -> None:
        """The program ends before the jobs do: what is on its way is given back, and another process goes on."""
        hurried = {job for job in self._musters if self.on_the_way(job)}
        for job in {**self._musters, **self._taken}:
            spec = self._ledgers[job].fold.spec
            self.part(job)
            # If the store does not answer, whoever waits for the job goes on with it.
            with contextlib.suppress(StoreError):
                if spec.kind != "open" and (job in hurried or self.wants_attendance(job)):
                    self._go_on(job)
