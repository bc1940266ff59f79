"""How large a job's machine is to be, where the job leaves that to vmrun (`--memory auto`).

From experience if there is any; else a few tasks are run as a sample, on this computer where that is possible,
otherwise on a small machine; else a small machine is a beginning, which the job may outgrow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .core.blocks import PYTHON
from .core.clouds import Need
from .core.crew import Asked
from .core.errors import BudgetError, UsageError, VmrunError
from .core.growth import FAIL, GROW
from .core.growth import LEAST as SMALL
from .core.task_views import JobStats
from .environment.target import this_machine
from .fleet.explain import explain
from .fleet.offering import find_offers, ranked
from .names import NAME_MAX
from .submit.machine import check_machine
from .submit.prepare import Submission
from .submit.sizing import Sized, Usage, akin, choose, identity, memory_for, unknown
from .watch.experience import measured, past_runs

if TYPE_CHECKING:
    from .client import Client
    from .wiring import Wiring

#: Tasks of a sample, and of a job that is worth one.
SAMPLE, SAMPLED_FROM = 3, 8
#: Seconds that a sample may take.
SAMPLE_TIME = 300.0
#: Seconds that the small machine of a sample waits for the job itself, should it be large enough.
SAMPLE_WARM = 60.0
SAMPLE_NAME = " (sample)"
#: Seconds that tasks must take on average for their use of cores to be worth telling.
TOLD_FROM = 0.01


def right_size(
    client: Client,
    wiring: Wiring,
    submission: Submission,
    tell: Callable[[str], None],
    on_stage: Callable[[str], None] | None,
) -> None:
    """Decide on the machine of a submission that leaves it open, and `tell` where the number comes from.

    Without `on_stage`, for a plan, nothing is written and no task is run. Raises what explains that nothing fits.
    """
    options, spec = submission.options, submission.spec
    if not options.memory_auto or not (spec.tasks or spec.kind == "open"):
        return
    if options.need.instance_type:
        raise UsageError(
            f"--memory auto: the memory of {options.need.instance_type[:80]} is what it is",
            hint="leave out --memory, or --instance-type",
        )
    if client.same_machine(options.on):
        submission.sized = Sized(0, 0, "that of this computer, so --memory auto has no effect")
        tell(f"memory: {submission.sized.why}")
        return
    sizer = _Sizer(client, wiring, submission, tell)
    submission.sized = sized = sizer.decide(on_stage)
    need = replace(options.need, memory=sized.memory)
    alone = options.vms <= 1 and not options.replace_lost
    on_oom = GROW if sized.uncertain and alone else options.on_oom
    workers = options.workers or sized.workers
    money = _left(options.max_cost, sizer.spent)
    submission.options = replace(options, need=need, workers=workers, on_oom=on_oom, max_cost=money)
    submission.spec = replace(spec, need=need, workers=workers)
    tell(f"memory: {sized.why}")


def _left(max_cost: float, spent: float) -> float:
    """Dollars that are left to the job itself, 0 for no limit. Raises BudgetError if none are."""
    if max_cost and spent >= max_cost:
        raise BudgetError(
            f"running a sample has cost ${spent:.2f} of the ${max_cost:.2f} that the job may",
            hint="raise --max-cost; the sample counts as experience, so that none is run again",
        )
    return max(0.0, max_cost - spent) if max_cost else 0.0


class _Sizer:
    """Decides for one submission."""

    def __init__(self, client: Client, wiring: Wiring, submission: Submission, tell: Callable[[str], None]) -> None:
        #: Dollars that the sample cost.
        self.spent = 0.0
        self._tell = tell
        self._client = client
        self._wiring = wiring
        self._submission = submission
        self._options = submission.options
        self._spec = submission.spec

    def decide(self, on_stage: Callable[[str], None] | None) -> Sized:
        """What to ask for. Raises what explains that nothing fits."""
        usage = self._experience()
        if usage is not None:
            return self._fitting(usage)
        if self._spec.kind == "open" or self._spec.tasks < SAMPLED_FROM:
            return unknown("no task of it has run before, and it has too few for a sample")
        if on_stage is None:
            where = "on this computer" if self._runs_here() else "on a small machine"
            return unknown(f"no task of it has run before; a submit runs {SAMPLE} of them {where} and then decides")
        usage = self._sample(on_stage)
        if usage is None:
            return unknown(f"no task of it has run before, and none of a sample ended within {SAMPLE_TIME:.0f} s")
        return self._fitting(usage)

    def _fitting(self, usage: Usage) -> Sized:
        options, spec = self._options, self._spec
        offers, failures = find_offers(self._wiring.sellers, options.on, options.need)
        shared = spec.shared.payload.size if spec.shared is not None else 0
        asked = Asked(options.workers, options.threads_per_task, options.need.task_memory)
        sized = choose(usage, ranked(offers, options.need), asked, shared)
        if sized is None:
            need = replace(options.need, memory=memory_for(usage, max(1, options.workers), shared))
            raise explain(options.on, need, () if offers else failures, "")
        # The first few of many tasks need not be like the others.
        return replace(sized, uncertain=sized.uncertain or usage.tasks < spec.tasks)

    # --- experience ---

    def _experience(self) -> Usage | None:
        """What tasks of the same function took, or else those of jobs of that name; None if nothing is known."""
        spec, wanted = self._spec, identity(self._spec)
        # A store that is nobody's yet is left alone.
        if spec.function is None or not self._wiring.recorded():
            return None
        found = past_runs(
            self._client.desk,
            lambda past: akin(past, spec) or identity(past) == wanted,
        )
        exact = [stats for past, stats in found if identity(past) == wanted]
        if exact:
            return usage_of(exact, f"job {exact[0].job}")
        others = [stats for _, stats in found]
        return usage_of(others, f"job {others[0].job}, which had another version of it") if others else None

    # --- a sample ---

    def _runs_here(self) -> bool:
        """Whether this computer can run tasks of the job as a machine of its own would."""
        spec, arch = self._spec, self._options.need.arch
        own = spec.environment is None or (spec.python == PYTHON and sys.platform == "linux")
        return own and arch in ("", this_machine().arch)

    def _sample(self, on_stage: Callable[[str], None]) -> Usage | None:
        """Run the first few tasks, one after the other, as a job of its own; what they took."""
        here, client = self._runs_here(), self._client
        on_stage(f"running {SAMPLE} tasks {'here' if here else 'on a small machine'} to see how much memory they take")
        sample, wiring = self._sampled(here=here), self._wiring
        # What may not be paid for is not rented for a sample either, and its price is said before.
        if not here and (
            price := check_machine(sample, wiring.sellers, wiring.priced, wiring.settings, lambda: client.desk)
        ):
            self._tell(f"for the sample: {price}")
        job = client.write(sample, on_stage)
        handle = client.handle(job)
        try:
            client.bring_up(job, on_stage)
            handle.wait(SAMPLE_TIME)
        except TimeoutError:
            handle.cancel()
        except (KeyboardInterrupt, VmrunError):
            # The job that it is for is given up, too.
            handle.cancel()
            raise
        self.spent = handle.status().usd
        return usage_of([measured(client.desk, job)], f"a sample, job {job}")

    def _sampled(self, *, here: bool) -> Submission:
        options, spec = self._options, self._spec
        need = Need() if here else replace(options.need, memory=SMALL)
        options = replace(options, vms=1, replace_lost=0)
        changed = replace(options, on="local", max_cost=0.0, keep_warm=0.0, on_oom=FAIL)
        if not here:
            changed = replace(options, keep_warm=max(options.keep_warm, SAMPLE_WARM), on_oom=GROW)
        sample = replace(
            spec,
            name=f"{spec.name[: NAME_MAX - len(SAMPLE_NAME)]}{SAMPLE_NAME}",
            tasks=SAMPLE,
            shard_size=SAMPLE,
            workers=1,
            reduce=False,
            retries=0,
            need=need,
            vms=1,
            replace_lost=0,
        )
        return replace(self._submission, options=replace(changed, need=need), spec=sample)


def usage_of(runs: list[JobStats], source: str) -> Usage | None:
    """What the tasks of these jobs took; None where nothing was measured."""
    seconds = sum(stats.seconds.total for stats in runs)
    peak = max((stats.peak_bytes for stats in runs), default=0)
    if not peak:
        return None
    tasks = sum(stats.ended for stats in runs)
    return Usage(
        source=source,
        tasks=tasks,
        peak=peak,
        cpu=sum(stats.cpu_seconds for stats in runs) / seconds if seconds >= TOLD_FROM * tasks else 0.0,
        oom=sum(stats.kinds.get("oom", 0) for stats in runs),
    )
