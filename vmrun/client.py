"""`Client`: everything that can be done with one deployment. The command line and the Python API are thin over it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .background import start_in_background
from .core.clock import Clock, Rng
from .core.errors import CapacityError, Corrupt, SchemaError, StoreError, UsageError, VmrunError
from .core.folds import LEFT, JobFold
from .core.ledger import Desk, JobLedger
from .core.model import JobSpec, JobState, Payload
from .core.outgrown import Outgrown
from .core.records import Final
from .core.storage import BlobStore
from .core.views import JobView, Plan, Verdict, VmView
from .fleet.bring_up import bring_up
from .fleet.growing import PATIENCE, give_up, last_word, next_spec, relocate
from .fleet.login import login_argv
from .fleet.losses import Losses, with_ways
from .fleet.order import Order
from .fleet.parting import clear_up
from .fleet.presence import present
from .fleet.release import Released, release
from .fleet.retire import WATCH, give_back
from .fleets import Fleets, is_shared, may_need_others
from .handle import JobHandle
from .reaping import Reaping
from .registry import AUTO
from .settings import Settings, load_settings
from .submit.checked import checked_request
from .submit.money import left_to_spend
from .submit.order import order_of
from .submit.prepare import Submission
from .submit.publish import put_payload
from .submit.request import SubmitRequest
from .submitting import Submitting
from .watch.costs import By, Costs
from .watch.life import Life, find_vm, life_of
from .watch.observe import JobObserver, find_job, job_ids
from .watch.spending import read_costs
from .wiring import Wiring

if TYPE_CHECKING:
    from .account import Account
    from .pools import Pools

log = logging.getLogger(__name__)
#: What is logged is for programs that ask for it; a person is told by errors and progress.
logging.getLogger("vmrun").addHandler(logging.NullHandler())
OnStage = Callable[[str], None]

#: Seconds after a submission in which its own client may still be getting it a machine.
REVIVE_AFTER = 5.0
#: Seconds that the end of an executor waits for its VM to say that all is done.
FINISH_PATIENCE = 60.0
#: Options of an executor beside those of `@vmrun.job`.
_OPEN_OPTIONS = ("python", "with_packages", "requirements", "shared_file")


def _silent(_: str) -> None:
    return


class Client:
    """One deployment: a configuration, its store, its machines. Opened at first use; safe to make and throw away."""

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None, rng: Rng | None = None) -> None:
        self.settings = settings or load_settings()
        self._wiring = Wiring(self.settings, clock, rng)
        #: VMs that this client brought up, by job.
        self._brought: dict[str, list[str]] = {}
        #: Journals of executors' jobs, which grow with every call; each is read further.
        self._ledgers: dict[str, JobLedger] = {}
        #: The machines of jobs that several share, as far as they are this client's.
        self.fleets = Fleets(self._wiring, self.continue_in_background)
        self._losses = Losses(lambda: self._wiring.deck)

    @property
    def desk(self) -> Desk:
        """Journals, read and written as the client."""
        return self._wiring.desk

    @property
    def blobs(self) -> BlobStore:
        """The store."""
        return self._wiring.blobs

    @property
    def deployment(self) -> str:
        """The deployment's id: part of the name of everything that is made in a cloud."""
        return self._wiring.deployment.id

    # --- submitting ---

    def submit(
        self,
        request: SubmitRequest,
        *,
        detach: bool = False,
        on_stage: OnStage | None = None,
        on_price: OnStage | None = None,
    ) -> JobHandle:
        """Write the job and get it a machine.

        With `detach` the machine is got by a process in the background. The job exists once this returns, and also
        when getting a machine failed: the error then says how to go on.
        """
        stage = on_stage or _silent
        job, made = self._submitting.publish(request, stage, on_price or _silent)
        try:
            handle = JobHandle(self, job)
            if not made or handle.status().state.ended:
                return handle
            if detach:
                self.continue_in_background(job)
            else:
                handle.expect(self.bring_up(job, stage))
        except KeyboardInterrupt:
            self.fleets.hand_over(job)
            raise KeyboardInterrupt(job) from None
        except VmrunError as error:
            raise with_ways(error, job) from error.__cause__
        return handle

    @cached_property
    def _submitting(self) -> Submitting:
        return Submitting(self, self._wiring)

    def same_machine(self, on: str) -> bool:
        """Whether machines of that driver are this computer."""
        return on != AUTO and self._wiring.provisioner(on).capabilities.transport == "process"

    def write(self, submission: Submission, stage: OnStage, key: str = "") -> str:
        """Write a job that was prepared, its payloads first; its id. Raises BudgetError if others were faster."""
        return self._submitting.write(submission, stage, key)[0]

    def submit_open(self, shared: object = None, **options: Any) -> str:
        """Write an open job for an executor; its id. `options` are those of `vmrun.submit`. Raises UsageError."""
        request = SubmitRequest(shared=shared, **checked_request(options, "vmrun.Executor", _OPEN_OPTIONS))
        return self._submitting.publish_open(request)

    def put_payload(self, data: bytes) -> Payload:
        """Bytes under their hash, written unless they are there."""
        return put_payload(self.blobs, data)

    def plan(self, request: SubmitRequest, on_stage: OnStage | None = None) -> Plan:
        """What a submission would do; nothing is written."""
        return self._submitting.plan(request, on_stage or _silent)

    # --- machines ---

    def bring_up(self, job: str, on_stage: OnStage | None = None) -> str:
        """Get the job a machine, warm or new; the VM's id. Of several, the first that is ready: the others follow.

        "" for a job that ended meanwhile.
        """
        ledger = JobLedger(self.desk, job)
        fold = ledger.refresh()
        if fold.submit is None:
            raise UsageError(f"there is no job {job} in this store", hint="`vmrun status` lists the jobs")
        if fold.final is not None:
            return ""
        stage = self._wiring.on_stage = on_stage or _silent
        with last_word(ledger, job):
            spec = next_spec(fold, self.desk.clock.now())
            left = left_to_spend(self.desk, job, spec.max_cost, self._losses.vms(job))
            if is_shared(spec):
                return self.fleets.bring_up(self._order(job, spec), spec, stage)
            vm = bring_up(self._wiring.deck, replace(self._order(job, spec, fold.outgrown), max_cost=left), stage)
        self._brought[job] = [vm]
        return vm

    def _order(self, job: str, spec: JobSpec, outgrown: Sequence[Outgrown] = ()) -> Order:
        """A machine for the job, of all its money, after those that it lost and has `outgrown`."""
        return self._losses.order(order_of(job, spec, self.settings, self._wiring.timings(spec.on)), outgrown)

    def continue_in_background(self, job: str) -> None:
        """Have a process of its own get the job a machine; it outlives this one."""
        start_in_background(self.settings, job)

    def leave(self, job: str) -> None:
        """The person who watched the job leaves; it must get the further machines that it may need all the same."""
        # A fleet sees to it at the end of this program. Without the store, whoever waits for the job goes on with it.
        with contextlib.suppress(StoreError):
            fold = JobLedger(self.desk, job).refresh()
            if fold.final is None and may_need_others(fold.spec) and not self.fleets.has(job):
                self.fleets.hand_over(job)

    def revive(self, job: str, observer: JobObserver | None = None) -> None:
        """Get a job a machine if it has none any more and none on its way: its client died, or its VM was lost.

        `observer` has looked at the job before. Raises what getting a machine raises. Not if another client, too, waits
        for the job and is about to do it.
        """
        observer = observer or JobObserver(self.desk, job)
        view = observer.look()
        if view.state.ended:
            return
        self._losses.see_off()
        fold = observer.ledger.fold
        if is_shared(fold.spec) and not fold.cancelled_by:
            alive = self._tend(job)
        else:
            there = [vm.id for vm in view.vms if vm.state not in (*LEFT, "held") and not fold.outgrew(vm.id)]
            alive = bool([vm for vm in there if not self._losses.is_lost(vm)])
        # Whoever brought up a machine that was outgrown gets the next one, if it is still there.
        others = max(view.created + REVIVE_AFTER, fold.outgrown_at + PATIENCE) > self.desk.clock.now()
        if alive or (others and not self._losses.took_on(job)):
            return
        if fold.cancelled_by:
            # Nobody is left to say so; no machine is rented for that.
            observer.ledger.finish(Final("cancelled", view.tasks.done, view.tasks.failed))
            return
        self._replace(job, observer.ledger, [vm.id for vm in view.vms if not fold.outgrew(vm.id)], fold.outgrown)

    def see_to(self, job: str, observer: JobObserver) -> None:
        """Get a job a larger machine for the one that it outgrew here, or any if it has none. Raises as `revive`."""
        if not self.move(job, observer.ledger.refresh()):
            self.revive(job, observer)

    def give_up(self, job: str, error: CapacityError) -> bool:
        """End a job for whose larger machine nobody is to search any more, after the last search; whether it is one.

        Not one that another client has got a machine meanwhile.
        """
        view = JobObserver(self.desk, job).look()
        if not (view.stranded or view.state.ended):
            return False
        return give_up(JobLedger(self.desk, job), error)

    def replace_lost(self, job: str) -> None:
        """Get the job another machine if the one that this client brought up is no more, leaves it, or is too small."""
        brought, fold = self._brought.get(job, []), self._ledgers.setdefault(job, JobLedger(self.desk, job)).refresh()
        if brought and self.move(job, fold):
            return
        if fold.outgrown and not brought:
            # It has none since: a larger one was not to be had, or is another client's to get.
            self.revive(job)
            return
        self._losses.see_off()
        lost = all(map(self._losses.is_lost, brought)) if brought else self.fleets.has(job) and not self._tend(job)
        if lost:
            self._replace(job, self._ledgers[job], brought)

    def _replace(self, job: str, ledger: JobLedger, vms: list[str], outgrown: Sequence[Outgrown] = ()) -> None:
        """Get the job a machine in the place of these, none of which works for it any more."""
        # They may have left it since it was read because it has ended, which was said before they left.
        if ledger.refresh().final is not None or not self._losses.take_on(job, vms, outgrown):
            return
        try:
            with self.fleets.left_to_others(job):
                self.bring_up(job)
        except VmrunError as error:
            raise with_ways(error, job) from error.__cause__

    def move(self, job: str, fold: JobFold) -> bool:
        """Get the job a larger machine if it outgrew the one that this client brought up; whether it did.

        That one is given back. If there is no larger one, the job has ended, which its journal says.
        """
        small = [vm for vm in self._brought.get(job, []) if fold.outgrew(vm)]
        if not small or fold.final is not None or fold.cancelled_by:
            return False
        del self._brought[job]
        # Taken on first: where clouds are slow to answer, others that wait for the job would take this one for dead.
        with self.fleets.left_to_others(job):
            relocate(
                *(self._wiring.deck, job, small),
                lambda: self._losses.take_on(job, (), fold.outgrown) and self.bring_up(job),
            )
        return True

    def _tend(self, job: str) -> bool:
        """Look after the machines of a job that has several; whether any serves it."""
        return self.fleets.tend(job, self._losses.is_lost, lambda spec: self._order(job, spec))

    def clear_up(self, job: str, watch: float = WATCH) -> bool:
        """Delete what a client of the job left half made, and watch each go for `watch` seconds; whether all are."""
        return clear_up(self._wiring.deck, job, watch)

    def settle(self, job: str, watch: float = WATCH) -> None:
        """Give back what this client brought up for a job that ended, unless it is to stay warm or has another job.

        Returns when each machine is seen to be gone, or after `watch` seconds.
        """
        self._losses.close(job, watch)
        self._ledgers.pop(job, None)
        for vm in self._brought.pop(job, []):
            give_back(self._wiring.deck, vm, job, watch=watch)
        self.fleets.settle(job, watch)

    def finish(self, job: str) -> None:
        """End an executor's job, which takes no more calls: wait until it is final, then give back its machine."""
        ledger = JobLedger(self.desk, job)
        if job not in self._brought and not self.fleets.has(job):
            ledger.cancel("executor")
            return
        clock, (pause, longest) = self.desk.clock, self.polls()
        deadline = clock.monotonic() + FINISH_PATIENCE
        while ledger.refresh().final is None and clock.monotonic() < deadline:
            clock.sleep(pause)
            pause = min(longest, pause * 1.5)
        if ledger.fold.final is None:
            log.warning("event=not-final job=%s vms=%s", job, self._brought.get(job, "several"))
        self.settle(job)

    def settle_cancelled(self, job: str) -> None:
        """Declare a cancelled job final at once if no VM has any part of it."""
        observer = JobObserver(self.desk, job)
        view = observer.look()
        if view.state in (JobState.pending, JobState.provisioning):
            observer.ledger.finish(Final("cancelled", view.tasks.done, view.tasks.failed))

    def polls(self) -> tuple[float, float]:
        """Seconds between looks at the store: shortest, longest."""
        timings = self._wiring.timings("local")
        return timings.poll_min, min(timings.poll_max, 0.5)

    def reap(
        self,
        *,
        dry_run: bool = False,
        all_: bool = False,
        on_stage: OnStage | None = None,
        stopping: Callable[[], bool] | None = None,
        among: Container[str] | None = None,
    ) -> list[Verdict]:
        """One pass over this deployment's machines, and over its pools, whose missing VMs are made.

        With `all_` every VM is meant, or every one that is `among` these. A service, which passes again soon, is asked
        by `stopping` between steps whether to break off.
        """
        return self._reaping.sweep(
            on_stage or _silent, dry_run=dry_run, everything=all_, stopping=stopping, among=among
        )

    @cached_property
    def _reaping(self) -> Reaping:
        return Reaping(self._wiring, lambda: self.pools)

    def ssh_argv(self, target: str, words: Sequence[str] = (), *, plain: bool = False) -> list[str]:
        """The command that lands on a VM, or in a job on one, and runs `words` there. Raises UsageError."""
        return login_argv(self._wiring.deck, target, words, plain=plain)

    def release(self, target: str, on_stage: OnStage) -> Released:
        """Give back the machine(s) of a VM or a job that need not stay any longer. Raises UsageError."""
        return release(self._wiring.deck, target, on_stage)

    @cached_property
    def pools(self) -> Pools:
        """VMs that wait for jobs."""
        from .pools import Pools

        return Pools(self._wiring, self.settings)

    @property
    def account(self) -> Account:
        """What must be in place, here and at the clouds."""
        from .account import Account

        return Account(self._wiring)

    def init_docker(self, on_stage: OnStage) -> None:
        """Build the image of docker machines, if it is not there."""
        self._wiring.on_stage = on_stage
        self._wiring.provisioner("docker").prepare()

    # --- looking ---

    def jobs(self, limit: int = 50) -> list[JobView]:
        """Jobs, newest first; what cannot be read is left out."""
        views = []
        for job in job_ids(self.desk)[:limit]:
            # An id without a submission is one whose client died on the way.
            with contextlib.suppress(Corrupt, SchemaError, UsageError):
                views.append(JobObserver(self.desk, job).look())
        return views

    def vms(self) -> list[VmView]:
        """VMs that are not known to be gone. Of one that took its leave, its cloud is asked, where that is cheap."""
        return present(self.desk, lambda: self._wiring.deck)

    def costs(self, by: By, seconds: float) -> Costs:
        """What was spent in the last `seconds`, by the journals of all VMs, ended ones too."""
        return read_costs(self.desk, by, self.desk.clock.now() - seconds)

    def life(self, vm: str) -> Life:
        """All that the store tells of one VM, also of one that is gone. Raises UsageError for one that never was."""
        return life_of(self.desk, find_vm(self.desk, vm))

    def handle(self, job: str) -> JobHandle:
        """A job by id, by a unique part of it, or by a unique name. Raises UsageError."""
        return JobHandle(self, find_job(self.desk, job))
