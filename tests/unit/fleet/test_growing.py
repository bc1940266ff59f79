"""What a client does for a job that outgrew its machine: the next larger one, within what it may cost and live."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.core.world import DEPLOYMENT, JOB, job_spec
from tests.unit.fleet.test_failover import WayIn
from tests.unit.fleet.world import Fleet
from vmrun import attending
from vmrun.attending import attend
from vmrun.client import REVIVE_AFTER, Client
from vmrun.core.clouds import Fault, Offer
from vmrun.core.errors import CapacityError, JobFailed, StoreUnavailable, VmrunError
from vmrun.core.ledger import JobLedger
from vmrun.core.model import JobSpec, JobState
from vmrun.core.outgrown import Outgrown
from vmrun.core.records import Final, Intent, Submit
from vmrun.core.views import JobView
from vmrun.fleet import attempt, lookout
from vmrun.fleet import replacing as losing
from vmrun.fleet.growing import PATIENCE
from vmrun.fleet.lookout import AGAIN_FIRST
from vmrun.fleet.order import Timings
from vmrun.fleets import Fleets
from vmrun.handle import JobHandle, waiting_for
from vmrun.provisioners.fake import FakeCloud
from vmrun.settings import load_settings
from vmrun.watch.observe import JobObserver

GIB = 2**30
#: Types by name: vCPUs, GiB, dollars an hour; the first is what `Fleet.vm` makes.
TYPES = {"s": (2, 4, 1.0), "m": (2, 6, 1.1), "wide": (16, 8, 9.0), "l": (4, 8, 2.0), "xl": (8, 16, 4.0)}


def offers(names: str) -> list[Offer]:
    found = []
    for name in names.split():
        cpus, gib, price = TYPES[name]
        found.append(Offer("fake", name, "east", "east-1", "x86_64", cpus, cpus, gib * GIB, price))
    return found


class World(Fleet):
    """One job that may grow, on a machine of 4 GiB that it was the client's to bring up."""

    def __init__(self, folder: Path, types: str = "s m wide l xl") -> None:
        super().__init__(folder)
        self.cloud = FakeCloud(self.clock, self.rng, offers=offers(types))
        self.folder = folder

    def submit(self, **changes: Any) -> JobLedger:
        spec: JobSpec = dataclasses.replace(
            job_spec(tasks=4), **{"on": "fake", "on_oom": "grow", "max_lifetime": 7200.0, **changes}
        )
        ledger = JobLedger(self.desk(), JOB)
        assert ledger.submit(Submit(JOB, spec, DEPLOYMENT))
        self.clock.sleep(REVIVE_AFTER + 1)
        return ledger

    def client(self) -> Client:
        client = Client(load_settings(environ={"HOME": str(self.folder)}, cwd=self.folder))
        wiring: Any = SimpleNamespace(
            desk=self.deck.desk, deck=self.deck, timings=lambda on: Timings(), on_stage=lambda text: None
        )
        client._wiring = wiring
        client.fleets = Fleets(wiring, lambda job: None)
        return client

    def outgrow(self, vm: str, memory: int = 4 * GIB) -> Outgrown:
        """What the agent of a VM says that has worked for the job for a minute."""
        since = self.clock.now()
        self.clock.sleep(60)
        body = Outgrown(vm, memory, 2, 3, int(0.93 * memory), int(0.95 * memory), "short of memory", since)
        assert JobLedger(self.desk(f"vm:{vm}"), JOB).outgrow(body)
        return body

    def started(self, **changes: Any) -> tuple[Client, str]:
        """A client, and its machine that is too small."""
        self.submit(**changes)
        client, vm = self.client(), self.vm(JOB, keep_warm=float(changes.get("keep_warm", 0.0)))
        client._brought[JOB] = [vm]
        self.outgrow(vm)
        return client, vm

    def intent(self) -> Intent:
        """The one machine that there is."""
        (vm,) = self.running
        intent = self.ledger(vm).fold.intent
        assert intent is not None
        return intent

    def final(self) -> Final | None:
        return JobLedger(self.desk(), JOB).refresh().final


def move(client: Client) -> bool:
    return client.move(JOB, JobLedger(client.desk, JOB).refresh())


@pytest.fixture(autouse=True)
def way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WayIn, "troubles", [], raising=False)
    monkeypatch.setattr(WayIn, "acts", [], raising=False)
    monkeypatch.setattr(WayIn, "orders", [], raising=False)
    monkeypatch.setattr(attempt, "_way_in", lambda transport: WayIn)


def test_the_cheapest_that_is_a_size_larger_is_taken_and_the_old_one_given_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    client, old = world.started()
    assert move(client)
    assert world.intent().instance_type == "l"
    assert (world.intent().job, old in world.running) == (JOB, False)
    # A second look has nothing to move, and the second machine may turn out too small, too.
    assert not move(client)
    world.outgrow(world.intent().vm, 8 * GIB)
    assert move(client)
    assert world.intent().instance_type == "xl"
    client.settle(JOB)
    assert world.running == world.indexed == set()


def test_a_machine_that_is_to_stay_warm_is_left_to_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    client, old = world.started(keep_warm=600.0)
    assert move(client)
    assert old in world.running
    assert len(world.running) == 2
    # It does not count as this job's any more: without the second one, the job has none.
    view = JobObserver(world.desk(), JOB).look()
    assert [each.vm for each in view.outgrown] == [old]
    assert world.ledger(old).fold.jobs == [JOB]


def test_the_next_machine_may_live_and_cost_what_the_first_one_left(tmp_path: Path) -> None:
    world = World(tmp_path)
    client, _ = world.started(max_cost=0.5)
    began = JobLedger(world.desk(), JOB).refresh().outgrown[0].since
    assert move(client)
    assert world.intent().hard_deadline <= began + 7200
    assert 0.3 < world.intent().max_cost < 0.5


def test_where_there_is_no_larger_one_the_job_has_failed_and_says_how_much_it_wanted(tmp_path: Path) -> None:
    world = World(tmp_path, "s m")
    client, _ = world.started()
    assert move(client)
    final = world.final()
    assert final is not None
    assert (final.outcome, final.code) == ("failed", "")
    assert final.error == (
        "task 3 peaked at 3.99 GB, where 4.08 GB was the limit on a machine of 4.29 GB (short of memory); it cannot "
        "move to a larger machine: nothing on fake fits 7.52 GB of memory"
    )
    assert final.hint
    assert world.running == set()
    assert JobObserver(world.desk(), JOB).look().state is JobState.failed


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"max_lifetime": 100.0}, "", "--max-lifetime"),
        ({"max_cost": 0.02}, "budget", "pays for less than 5 seconds"),
    ],
)
def test_lifetime_and_money_bound_the_moves(tmp_path: Path, changes: dict[str, Any], code: str, said: str) -> None:
    world = World(tmp_path, "s l")
    if code:
        world.cloud = FakeCloud(world.clock, world.rng, offers=[
            offers("s")[0], dataclasses.replace(offers("l")[0], usd_per_hour=3600.0)
        ])  # fmt: skip
    client, _ = world.started(**changes)
    assert move(client)
    final = world.final()
    assert final is not None
    assert (final.outcome, final.code) == ("failed", code)
    assert said in final.error
    assert "peaked at 3.99 GB" in final.error
    assert world.running == set()


def test_what_is_not_to_be_had_just_now_ends_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, "s l")
    client, _ = world.started()
    world.cloud.fail("create", Fault.stockout)
    with pytest.raises(CapacityError) as caught:
        move(client)
    assert "vmrun wait" in caught.value.hint
    assert world.final() is None
    assert world.running == set()


def ending(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the job be done as soon as a larger machine works for it."""
    sleep = world.clock.sleep

    def passing(seconds: float) -> None:
        sleep(seconds)
        if JobObserver(world.desk(), JOB).look().state is JobState.running:
            JobLedger(world.desk(), JOB).finish(Final("done", 4, 0))

    monkeypatch.setattr(world.clock, "sleep", passing)


def watched(client: Client) -> tuple[JobView, list[str]]:
    """The job as a watcher saw it at last, and what was said meanwhile."""
    view, said = None, list[str]()
    for snapshot in JobHandle(client, JOB).watch(output=False):
        view = snapshot.job
        said += snapshot.news
    assert view is not None
    return view, said


MISSED = "no larger machine is to be had just now: no machine was to be had on fake: stockout in east-1"


def test_who_watches_the_job_is_told_and_searches_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, "s l")
    client, old = world.started()
    world.cloud.fail("create", Fault.stockout, times=2)
    ending(world, monkeypatch)
    began = world.clock.now()
    view, said = watched(client)
    assert said == [f"{MISSED}; searching again in {text}" for text in ("15s", "30s")]
    assert view.state is JobState.done
    (large,) = [machine for machine in world.cloud.machines if machine.instance_type == "l"]
    assert large.began - began == pytest.approx(3 * AGAIN_FIRST, abs=5.0)
    assert world.ledger(old).fold.gone is not None
    assert world.running == set()


@pytest.mark.parametrize("its_own", [True, False])
def test_if_none_is_ever_to_be_had_the_job_fails_as_its_tasks_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, its_own: bool
) -> None:
    monkeypatch.setattr(lookout, "AGAIN_FOR", 120.0)
    world = World(tmp_path, "s l")
    client, _ = world.started()
    world.cloud.fail("create", Fault.stockout, times=1000)
    began = world.clock.now()
    if its_own:
        view, said = watched(client)
        assert len(said) == 3
    else:
        # As `vmrun wait`, or `results()` of another program, after its own client died
        view = JobHandle(world.client(), JOB).wait()
    # After 15, 30 and 60 seconds; another 120 would be too long
    waited = 0.0 if its_own else PATIENCE
    assert world.clock.now() - began == pytest.approx(waited + 105.0, abs=5.0)
    assert view.state is JobState.failed
    assert view.error.startswith("task 3 peaked at 3.99 GB, where 4.08 GB was the limit on a machine of 4.29 GB")
    assert "; no larger machine was to be had: no machine was to be had on fake: stockout" in view.error
    assert f"`vmrun result {JOB}` has what had finished" in view.hint
    # What it has is there to be read
    assert JobHandle(client, JOB).collect(None).values == [None] * 4


def test_searches_end_with_the_lifetime_of_the_job(tmp_path: Path) -> None:
    world = World(tmp_path, "s l")
    client, _ = world.started(max_lifetime=150.0)
    world.cloud.fail("create", Fault.stockout, times=1000)
    view, said = watched(client)
    assert len(said) == 2
    assert view.state is JobState.failed
    assert "peaked at 3.99 GB" in view.error
    assert "--max-lifetime" in view.error


def test_whoever_waits_for_it_later_searches_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, "s l")
    world.started()
    world.cloud.fail("create", Fault.stockout, times=2)
    ending(world, monkeypatch)
    assert JobHandle(world.client(), JOB).wait().state is JobState.done
    assert [machine.instance_type for machine in world.cloud.machines] == ["s", "l"]


def test_of_two_that_search_again_one_gets_it_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, "s l")
    client, old = world.started()
    other = world.client()
    world.cloud.fail("create", Fault.stockout, times=5)
    for _ in range(60):
        for each in (client, other):
            with contextlib.suppress(CapacityError):
                each.see_to(JOB, JobObserver(each.desk, JOB))
        world.clock.sleep(10.0)
    assert len(world.running - {old}) == 1


def test_a_job_that_is_left_to_the_background_is_not_left_to_nobody_by_a_stockout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attending, "FAILURES_MAX", 3)
    world = World(tmp_path, "s l")
    client, _ = world.started()
    world.cloud.fail("create", Fault.stockout, times=1000)
    attend(client, JobObserver(world.desk(), JOB))
    final = world.final()
    assert final is not None
    assert "no larger machine was to be had" in final.error
    assert world.running == set()


def test_after_its_client_died_anybody_continues_it_and_one_machine_is_enough(tmp_path: Path) -> None:
    world = World(tmp_path)
    _, old = world.started(keep_warm=600.0)
    view = JobObserver(world.desk(), JOB).look()
    assert (view.state, waiting_for(view)) == (JobState.pending, "waiting for a larger machine")
    # Its own client is given the time to do it.
    other = world.client()
    other.revive(JOB)
    assert world.running == {old}
    world.clock.sleep(PATIENCE + 1)
    other.revive(JOB)
    assert len(world.running) == 2
    (new,) = world.running - {old}
    # A third one sees the machine that is on its way.
    world.client().revive(JOB)
    assert world.running == {old, new}
    intent = world.ledger(new).fold.intent
    assert intent is not None
    assert intent.memory == 8 * GIB


def test_a_client_that_slept_leaves_it_at_the_machine_that_another_one_got(tmp_path: Path) -> None:
    world = World(tmp_path)
    client, old = world.started()
    world.clock.sleep(PATIENCE + 1)
    world.client().revive(JOB)
    (new,) = world.running - {old}
    assert move(client)
    assert world.running == {new}
    assert not move(client)


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_job_that_is_over_is_not_moved(tmp_path: Path, cancelled: bool) -> None:
    world = World(tmp_path)
    client, old = world.started()
    ledger = JobLedger(world.desk(), JOB)
    assert ledger.cancel("user") if cancelled else ledger.finish(Final("done", 4, 0))
    assert not move(client)
    assert world.running == {old}
    client.settle(JOB)
    assert world.running == set()


def test_whoever_continues_it_is_told_that_there_is_no_larger_one(tmp_path: Path) -> None:
    world = World(tmp_path, "s")
    world.started()
    world.clock.sleep(PATIENCE + 1)
    with pytest.raises(JobFailed, match=r"peaked at 3\.99 GB"):
        world.client().revive(JOB)
    assert world.final() is not None


def test_an_executors_machine_is_replaced_by_a_larger_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    client, old = world.started()
    client.replace_lost(JOB)
    assert world.intent().memory == 8 * GIB
    assert old not in world.running


def test_an_executor_searches_again_for_a_larger_one_that_was_not_to_be_had(tmp_path: Path) -> None:
    world = World(tmp_path, "s l")
    client, _ = world.started()
    world.cloud.fail("create", Fault.stockout)
    with pytest.raises(CapacityError):
        client.replace_lost(JOB)
    assert world.running == set()
    world.clock.sleep(PATIENCE + 1)
    client.replace_lost(JOB)
    assert world.intent().memory == 8 * GIB
    # Which is looked after like the first one
    client.replace_lost(JOB)
    assert len(world.running) == 1
    client.settle(JOB)
    assert world.running == set()


def test_whoever_leaves_while_it_moves_does_not_wait_until_the_small_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    client, old = world.started()
    left = list[str]()
    monkeypatch.setattr(client.fleets, "_go_on", left.append)
    world.cloud.knobs = dataclasses.replace(world.cloud.knobs, vanish=(60.0, 60.0))

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    WayIn.acts.append(interrupt)
    began = world.clock.now()
    with pytest.raises(KeyboardInterrupt):
        move(client)
    assert world.clock.now() - began < 5
    assert world.ledger(old).fold.delete is not None
    assert left == [JOB]


def test_a_failure_of_another_job_is_none_of_this(tmp_path: Path) -> None:
    world = World(tmp_path, "s")
    world.submit()
    client = world.client()
    with pytest.raises(VmrunError):
        client.bring_up(JOB.replace("j", "k"))
    assert world.final() is None


@pytest.mark.parametrize(
    ("on_oom", "ended", "looked_after"), [("grow", False, 1), ("fail", False, 0), ("grow", True, 0)]
)
def test_a_job_that_its_client_leaves_is_looked_after_if_it_may_grow(
    tmp_path: Path, on_oom: str, ended: bool, looked_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    ledger = world.submit(on_oom=on_oom)
    if ended:
        ledger.finish(Final("done", 4, 0))
    client, left = world.client(), list[str]()
    monkeypatch.setattr(client.fleets, "_go_on", left.append)
    client.leave(JOB)
    assert left == [JOB] * looked_after


def test_leaving_a_job_while_the_store_is_away_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.submit(on_oom="grow")
    client, left = world.client(), list[str]()
    monkeypatch.setattr(client.fleets, "_go_on", left.append)

    def away(key: str) -> bytes:
        raise StoreUnavailable(f"no answer for {key}")

    monkeypatch.setattr(client.desk.store, "get", away)
    client.leave(JOB)
    assert left == []


def test_whoever_looks_after_a_job_gets_it_its_machines_until_it_has_ended(tmp_path: Path) -> None:
    world = World(tmp_path)
    client, _ = world.started()
    ends = world.clock.now() + 60
    sleep = world.clock.sleep

    def passing(seconds: float) -> None:
        sleep(seconds)
        if world.clock.now() > ends:
            JobLedger(world.desk(), JOB).finish(Final("done", 4, 0))

    world.clock.sleep = passing  # type: ignore[method-assign]
    attend(client, JobObserver(world.desk(), JOB))
    assert [machine.instance_type for machine in world.cloud.machines] == ["s", "l"]
    assert world.running == set()


def test_nobody_looks_after_a_job_that_may_not_grow(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.submit(on_oom="fail")
    assert not world.client().fleets.wants_attendance(JOB)


def interrupted_by(world: World, act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `act` happen once, while the next client looks for offers."""
    offered, acts = world.cloud.offers, [act]

    def offering(need: Any) -> Any:
        if acts:
            acts.pop()()
        return offered(need)

    monkeypatch.setattr(world.cloud, "offers", offering)


def test_of_several_that_wait_for_it_one_gets_it_the_larger_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    _, old = world.started()
    world.clock.sleep(PATIENCE + 1)
    one, other = world.client(), world.client()
    interrupted_by(world, lambda: other.revive(JOB), monkeypatch)
    one.revive(JOB)
    assert len(world.running - {old}) == 1


def test_nobody_comes_between_its_own_client_and_the_larger_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    client, old = world.started()
    other = world.client()

    def late() -> None:
        # Its cloud took longer to answer than others wait for its own client.
        world.clock.sleep(PATIENCE + 1)
        other.revive(JOB)

    interrupted_by(world, late, monkeypatch)
    assert move(client)
    assert len(world.running - {old}) == 1


def test_if_whoever_took_it_on_dies_another_one_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    _, old = world.started()
    world.clock.sleep(PATIENCE + 1)

    def dies() -> None:
        raise KeyboardInterrupt

    interrupted_by(world, dies, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        world.client().revive(JOB)
    other = world.client()
    other.revive(JOB)
    assert world.running <= {old}
    world.clock.sleep(losing.PATIENCE + 1)
    other.revive(JOB)
    assert len(world.running - {old}) == 1


def test_time_is_taken_off_its_lifetime_once_when_it_outgrew_one_machine_and_lost_the_next(tmp_path: Path) -> None:
    world = World(tmp_path)
    client, _ = world.started()
    began = JobLedger(world.desk(), JOB).refresh().outgrown[0].since
    assert move(client)
    second = world.intent().vm
    world.clock.sleep(4000)
    assert world.ledger(second).drain("its cloud takes it back", jobs=1)
    client.replace_lost(JOB)
    assert world.intent().vm != second
    assert world.intent().hard_deadline == pytest.approx(began + 7200, abs=5)
