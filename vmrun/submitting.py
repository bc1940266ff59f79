"""From what a user asks to a job in the store: prepared, sized, checked for a machine and for money, then written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .core.views import Plan
from .settings.directories import check_directories
from .sizing import right_size
from .submit.machine import check_machine
from .submit.money import keep_to_budget
from .submit.plan import plan_of
from .submit.prepare import Preparer, Submission
from .submit.publish import job_of, publish, put_all, whole_spec
from .submit.request import SubmitRequest
from .watch.observe import find_by_key
from .wiring import Wiring

if TYPE_CHECKING:
    from .client import Client

OnStage = Callable[[str], None]


def _silent(_: str) -> None:
    return


class Submitting:
    """The submissions of one client; no machine is got here but for a sample."""

    def __init__(self, client: Client, wiring: Wiring) -> None:
        self._client = client
        self._wiring = wiring

    def publish(self, request: SubmitRequest, stage: OnStage, on_price: OnStage) -> tuple[str, bool]:
        """The job's id, and whether it was made: there may be one of the same idempotency key."""
        if request.idempotency_key:
            known = find_by_key(self._wiring.desk, request.idempotency_key)
            if known:
                return known, False
        with tempfile.TemporaryDirectory(prefix="vmrun-") as folder:
            submission = self._preparer(Path(folder), stage).prepare(request)
            if submission.said:
                stage(f"the job's file printed: {submission.said.strip()[-500:]}")
            right_size(self._client, self._wiring, submission, on_price, stage)
            if price := self._check_machine(submission):
                on_price(price)
            return self.write(submission, stage, request.idempotency_key or "")

    def publish_open(self, request: SubmitRequest) -> str:
        """Write an open job; its id."""
        with tempfile.TemporaryDirectory(prefix="vmrun-") as folder:
            submission = self._preparer(Path(folder), _silent).prepare_open(request)
            right_size(self._client, self._wiring, submission, _silent, _silent)
            self._check_machine(submission)
            job, _ = self.write(submission, _silent)
            return job

    def plan(self, request: SubmitRequest, stage: OnStage) -> Plan:
        """What a submission would do; nothing is written."""
        wiring = self._wiring
        wiring.on_stage = stage
        with tempfile.TemporaryDirectory(prefix="vmrun-") as folder:
            submission = self._preparer(Path(folder), stage).prepare(request)
            right_size(self._client, wiring, submission, _silent, None)
        plan = plan_of(submission, wiring.sellers, wiring.settings, wiring.timings)
        on = str(plan.offers[0]["on"]) if plan.offers else plan.on
        told = wiring.lender.warning(on) if plan.tasks else ""
        return replace(plan, warnings=(told,)) if told else plan

    def write(self, submission: Submission, stage: OnStage, key: str = "") -> tuple[str, bool]:
        """Write a job that was prepared, its payloads first; its id, and whether it was made: as in `publish`.

        Raises BudgetError if others were faster.
        """
        # Nothing goes into a store before it is known to be this deployment's own, and a safe one.
        deployment, desk = self._client.deployment, self._wiring.desk
        stage("uploading")
        put_all(self._wiring.blobs, submission)
        job = job_of(desk, key)
        if not publish(desk, deployment, job, whole_spec(submission), key):
            return job, False
        max_cost = submission.options.max_cost if submission.costs else 0.0
        keep_to_budget(self._wiring.settings, desk, job, max_cost)
        return job, True

    def _preparer(self, folder: Path, stage: OnStage) -> Preparer:
        check_directories(self._wiring.settings)
        return Preparer(self._wiring.settings, folder, stage, self._client.same_machine, self._wiring.clock)

    def _check_machine(self, submission: Submission) -> str:
        wiring = self._wiring
        return check_machine(submission, wiring.sellers, wiring.priced, wiring.settings, lambda: wiring.desk)
