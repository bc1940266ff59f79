"""Whether a number comes from experience, from a sample or from nowhere, and what a submission then asks for."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.core.world import ManualClock, job_spec
from vmrun import sizing
from vmrun.commands.request import check_option
from vmrun.core.clouds import Need, Offer
from vmrun.core.errors import BudgetError, CapacityError, UsageError, VmrunError
from vmrun.core.growth import LEAST, MOVES_MAX
from vmrun.core.model import JobSpec, JobState, Payload
from vmrun.core.task_views import JobStats, Spread
from vmrun.fleet.offering import Sellers
from vmrun.fleet.order import Timings
from vmrun.job import AUTO_MEMORY, check_options
from vmrun.provisioners.fake import FakeCloud
from vmrun.rendering import documents, tables
from vmrun.rendering.text import Style
from vmrun.settings import load_settings
from vmrun.sizing import SAMPLE, SAMPLED_FROM, right_size
from vmrun.submit import money
from vmrun.submit.options import decide
from vmrun.submit.plan import make_plan
from vmrun.submit.prepare import Submission
from vmrun.submit.request import SubmitRequest
from vmrun.watch.spending import Outlay

GIB = 2**30
OFFERS = [
    Offer("fake", f"t{cores}", "east", "east-1", "x86_64", cores, cores, gib * GIB, float(gib))
    for cores, gib in ((2, 2), (2, 4), (4, 16), (8, 64))
]


def stats(peak: int = GIB, *, job: str = "j1", ended: int = 10, **kinds: int) -> JobStats:
    return JobStats(
        *(job, "a job", JobState.done, ended, ended, kinds or {"ok": ended}, 0, Spread(total=10.0)),
        *(8.0, 7.0, 1.0, peak, 0, 0, 0.0, 0.0, 0.0, 0.0, 1),
    )


class World:
    """A client that notes what it is asked to do, over a cloud in memory."""

    def __init__(self, tmp_path: Path) -> None:
        clock = ManualClock()
        cloud = FakeCloud(clock, random.Random(1), offers=OFFERS)
        self.settings = load_settings(environ={"HOME": str(tmp_path), "VMRUN_STORE": "s3://bucket/x"}, cwd=tmp_path)
        self.past: list[tuple[JobSpec, JobStats]] = []
        self.written: list[Submission] = []
        self.said: list[str] = []
        self.late = False
        self.cancelled = False
        #: Raised where the sample gets its machine; dollars that it costs.
        self.trouble: VmrunError | None = None
        self.cost = 0.0
        #: What the sample's tasks take.
        self.sampled = stats(job="s1", ended=SAMPLE)
        self.wiring: Any = SimpleNamespace(
            sellers=Sellers(clock, random.Random(1), lambda name: cloud, lambda on: (on,)),
            recorded=lambda: "a deployment",
            priced=lambda need: lambda offer: offer.usd_per_hour,
            settings=self.settings,
        )
        self.client: Any = SimpleNamespace(
            desk=None,
            same_machine=lambda on: on == "local",
            write=self.write,
            bring_up=self.bring_up,
            handle=lambda job: SimpleNamespace(
                wait=self.wait, status=lambda: SimpleNamespace(usd=self.cost), cancel=self.cancel
            ),
        )

    def write(self, submission: Submission, stage: object) -> str:
        self.written.append(submission)
        return "s1"

    def bring_up(self, job: str, stage: object) -> str:
        if self.trouble is not None:
            raise self.trouble
        return "vm"

    def wait(self, seconds: float) -> None:
        assert 0 < seconds < 3600
        if self.late:
            raise TimeoutError

    def cancel(self) -> None:
        self.cancelled = True

    def submission(self, *, tasks: int = 100, spec: dict[str, Any] | None = None, **asked: Any) -> Submission:
        request = SubmitRequest(**{"on": "fake", "memory": AUTO_MEMORY, **asked})
        options = decide(request, {}, {}, self.settings, "a job")
        return Submission(dataclasses.replace(job_spec(tasks=tasks), **(spec or {})), options)

    def decide(self, submission: Submission, *, dry: bool = False) -> Submission:
        right_size(self.client, self.wiring, submission, self.said.append, None if dry else lambda text: None)
        return submission


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(sizing, "past_runs", lambda desk, same: [each for each in made.past if same(each[0])])
    monkeypatch.setattr(sizing, "measured", lambda desk, job: made.sampled)
    return made


def test_auto_is_a_memory_of_a_job_and_no_size_elsewhere(world: World) -> None:
    assert check_options({"memory": "auto"}, "x") == {"memory": AUTO_MEMORY}
    assert check_option("memory", "auto", auto=True) == AUTO_MEMORY
    with pytest.raises(UsageError, match="'auto' is not a size"):
        check_option("memory", "auto")
    options = world.submission().options
    assert (options.memory_auto, options.need.memory) == (True, 0)
    assert not world.submission(memory=GIB).options.memory_auto


def test_without_auto_nothing_is_decided(world: World) -> None:
    submission = world.submission(memory=GIB)
    assert world.decide(submission).sized is None
    assert submission.options.need == Need(memory=GIB)
    assert world.said == []


def test_experience_with_the_same_function_decides(world: World) -> None:
    world.past = [(dataclasses.replace(job_spec(tasks=9), name="other"), stats(job="j7"))]
    submission = world.decide(world.submission(tasks=10))
    # The smallest machine has no room for a gigabyte and a quarter per core.
    assert submission.sized is not None
    assert "of 10 tasks of job j7, with 0.80 cores each" in submission.sized.why
    assert 2.5 * GIB < submission.spec.need.memory < 3 * GIB
    assert submission.options.need == submission.spec.need
    assert (submission.spec.workers, submission.options.workers, submission.options.on_oom) == (2, 2, "fail")
    assert (world.written, world.said) == ([], [f"memory: {submission.sized.why}"])


def test_of_tasks_that_are_over_at_once_the_use_of_cores_is_not_told(world: World) -> None:
    quick = dataclasses.replace(stats(), seconds=Spread(total=0.0001))
    world.past = [(job_spec(), quick)]
    sized = world.decide(world.submission()).sized
    assert sized is not None
    assert sized.why.endswith("of 10 tasks of job j1")


def test_another_version_of_it_is_better_than_nothing_and_worse_than_the_same(world: World) -> None:
    older = dataclasses.replace(job_spec(), code=Payload("c" * 64, 1))
    world.past = [(older, stats(3 * GIB, job="old"))]
    said = world.decide(world.submission()).sized
    assert said is not None
    assert "job old, which had another version of it" in said.why
    world.past.append((job_spec(), stats(job="same")))
    said = world.decide(world.submission()).sized
    assert said is not None
    assert "of 10 tasks of job same," in said.why
    # Another job of another name is neither.
    world.past = [(dataclasses.replace(older, name="another"), stats(job="far"))]
    world.decide(world.submission())
    assert len(world.written) == 1


def test_a_peak_that_was_not_enough_lets_the_job_grow(world: World) -> None:
    world.past = [(job_spec(), stats(ok=9, oom=1))]
    assert world.decide(world.submission(on_oom="fail")).options.on_oom == "grow"


def test_a_plan_runs_nothing_and_says_what_a_submit_would_do(world: World) -> None:
    submission = world.decide(world.submission(), dry=True)
    assert submission.sized is not None
    assert "a submit runs 3 of them on this computer and then decides" in submission.sized.why
    assert submission.options.need.memory == LEAST
    assert world.written == []


def test_a_sample_is_a_small_job_of_its_own_on_this_computer(world: World) -> None:
    submission = world.decide(world.submission(max_cost=5.0, retries=2, spec={"reduce": True}))
    (sample,) = world.written
    assert (sample.spec.name, sample.spec.tasks, sample.spec.workers) == ("a job (sample)", SAMPLE, 1)
    assert (sample.spec.reduce, sample.spec.retries, sample.spec.need) == (False, 0, Need())
    assert (sample.options.on, sample.options.max_cost, sample.options.on_oom) == ("local", 0.0, "fail")
    assert sample.spec.function == submission.spec.function
    assert submission.sized is not None
    assert "of 3 tasks of a sample, job s1" in submission.sized.why
    # The job itself is what it was.
    assert (submission.spec.tasks, submission.spec.reduce, submission.options.max_cost) == (100, True, 5.0)


def test_what_this_computer_cannot_run_is_sampled_on_a_small_machine(world: World) -> None:
    world.decide(world.submission(spec={"environment": Payload("e" * 64, 1), "python": "3.99"}))
    (sample,) = world.written
    assert (sample.options.on, sample.options.on_oom) == ("fake", "grow")
    assert sample.options.need == Need(memory=LEAST)
    # Should it be large enough, the job itself takes it.
    assert sample.options.keep_warm > 0


def test_a_sample_that_takes_too_long_is_given_up(world: World) -> None:
    world.late, world.sampled = True, stats(0, ended=0)
    submission = world.decide(world.submission())
    assert world.cancelled
    assert submission.sized is not None
    assert "none of a sample ended within 300 s" in submission.sized.why
    assert (submission.options.need.memory, submission.options.on_oom) == (LEAST, "grow")


@pytest.mark.parametrize("spec", [{"tasks": SAMPLED_FROM - 1}, {"kind": "open", "tasks": 0, "function": None}])
def test_a_job_that_is_not_worth_a_sample_begins_small_and_may_grow(world: World, spec: dict[str, Any]) -> None:
    submission = world.decide(world.submission(spec=spec))
    assert world.written == []
    assert (submission.options.need.memory, submission.options.on_oom) == (LEAST, "grow")
    # So it gets as far as the largest machines that there are.
    assert LEAST * 1.75**MOVES_MAX > 8 * LEAST


def test_a_size_that_nothing_has_is_refused_with_that_size(world: World) -> None:
    world.past = [(job_spec(), stats(300 * GIB))]
    with pytest.raises(CapacityError, match=r"nothing on fake fits 4\d\d GB of memory"):
        world.decide(world.submission())


def test_what_cannot_be_decided_on_is_left_or_refused(world: World) -> None:
    local = world.decide(world.submission(on="local"))
    assert local.sized is not None
    assert local.sized.memory == 0
    assert world.said == ["memory: that of this computer, so --memory auto has no effect"]
    assert local.options == world.submission(on="local").options
    with pytest.raises(UsageError, match="--memory auto: the memory of t8 is what it is"):
        world.decide(world.submission(instance_type="t8"))
    world.said.clear()
    assert world.decide(world.submission(tasks=0)).sized is None
    assert world.said == []


def test_what_was_measured_of_few_tasks_may_be_too_little_for_many(world: World) -> None:
    # Nobody knows what the other 97 take, whether the three were a sample or a job.
    assert world.decide(world.submission()).options.on_oom == "grow"
    world.past = [(job_spec(), stats(ended=99))]
    assert world.decide(world.submission()).options.on_oom == "grow"
    world.past = [(job_spec(), stats(ended=100))]
    assert world.decide(world.submission()).options.on_oom == "fail"


NOT_HERE = {"environment": Payload("e" * 64, 1), "python": "3.99"}


def test_a_sample_is_part_of_what_the_job_may_cost(world: World) -> None:
    world.cost = 1.25
    submission = world.decide(world.submission(max_cost=5.0, spec=NOT_HERE))
    assert submission.options.max_cost == 3.75
    assert world.said[0].startswith("for the sample: t2 on fake costs $2.0000 an hour")
    world.cost = 5.0
    with pytest.raises(BudgetError, match=r"has cost \$5.00 of the \$5.00"):
        world.decide(world.submission(max_cost=5.0, spec=NOT_HERE))
    assert world.decide(world.submission(spec=NOT_HERE)).options.max_cost == 0.0


def test_no_machine_is_rented_for_a_sample_that_may_not_be_paid_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(money, "outlay", lambda desk, since, without: Outlay(10.0))
    environ = {"HOME": str(tmp_path), "VMRUN_STORE": "s3://bucket/x"}
    world.wiring.settings = load_settings({"budget.usd_per_day": 10.0}, environ=environ, cwd=tmp_path)
    world.client.desk = SimpleNamespace(clock=ManualClock())
    with pytest.raises(BudgetError, match="used up"):
        world.decide(world.submission(spec=NOT_HERE))
    assert world.written == []


@pytest.mark.parametrize("trouble", [CapacityError("no machine"), None])
def test_a_sample_whose_job_is_given_up_waits_for_nothing(world: World, trouble: VmrunError | None) -> None:
    world.trouble = trouble
    if trouble is None:
        world.decide(world.submission())
    else:
        with pytest.raises(CapacityError):
            world.decide(world.submission())
    assert world.cancelled == (trouble is not None)


def test_a_plan_says_that_it_has_no_effect_here(world: World) -> None:
    submission = world.decide(world.submission(on="local"), dry=True)
    planned = make_plan(submission, OFFERS, Timings())
    told = documents.plan(planned)
    assert (told["memory_bytes"], told["memory_why"]) == (None, "that of this computer, so --memory auto has no effect")
    assert f"memory: {told['memory_why']}" in tables.plan(planned, Style())
