"""What a client does for a job that has several machines: fills up, replaces, keeps to the money, gives back."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.core.world import DEPLOYMENT, JOB, OTHER_JOB, intent, job_spec
from tests.unit.fleet.test_failover import WayIn, World
from vmrun import fleets as module_fleets
from vmrun.core.clock import Clock, SystemClock
from vmrun.core.clouds import Fault, Market, Need, Scope
from vmrun.core.errors import BudgetError, CapacityError, StoreUnavailable
from vmrun.core.ids import new_id
from vmrun.core.ledger import JobLedger
from vmrun.core.model import JobSpec
from vmrun.core.money import reserved
from vmrun.core.records import Final, Hold, Submit
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet import attempt as module
from vmrun.fleet import lookout, muster, parting
from vmrun.fleet.budget import share
from vmrun.fleet.lookout import AGAIN_FIRST, AGAIN_LONGEST
from vmrun.fleet.memory import Memory
from vmrun.fleet.muster import Muster, Stopped
from vmrun.fleet.order import Order
from vmrun.fleet.replacing import PATIENCE as STALE
from vmrun.fleet.replacing import is_loss
from vmrun.fleet.retire import close_if_gone
from vmrun.fleets import Fleets

PATIENCE = 60.0


class Site:
    """A client's machines in a world of its own; several clients may have the same world."""

    def __init__(self, world: World) -> None:
        self.world = world
        wiring: Any = SimpleNamespace(
            desk=world.deck.desk, deck=world.deck, clock=world.clock, settings=None, on_stage=print
        )
        wiring.sibling = self._sibling
        self.left_to: list[str] = []
        self.fleets = Fleets(wiring, self.left_to.append)

    def _sibling(self, clock: Clock) -> Any:
        deck = dataclasses.replace(self.world.deck, desk=dataclasses.replace(self.world.deck.desk, clock=clock))
        return SimpleNamespace(deck=deck, on_stage=print)

    def order(self, spec: JobSpec) -> Order:
        return Order(job=JOB, on="one", need=Need(), python="3.11", keep_warm=spec.keep_warm, max_cost=spec.max_cost)

    def up(self, spec: JobSpec) -> str:
        first = self.fleets.bring_up(self.order(spec), spec, self.world.said.append)
        self.join()
        return first

    def join(self) -> None:
        for each in self.fleets._musters.get(JOB, ()):
            assert each.join(PATIENCE)

    def tend(self) -> bool:
        there = self.fleets.tend(JOB, lambda vm: close_if_gone(self.world.deck, vm), self.order)
        self.join()
        return there


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    WayIn.troubles, WayIn.acts, WayIn.orders = [], [], []
    monkeypatch.setattr(module, "_way_in", lambda transport: WayIn)
    # What is in memory here is for one thread at a time
    monkeypatch.setattr(muster, "AT_ONCE", 1)
    return World(tmp_path)


@pytest.fixture
def site(world: World) -> Any:
    made = Site(world)
    yield made
    made.fleets.stop(JOB)


def submitted(world: World, **changes: Any) -> JobSpec:
    spec = dataclasses.replace(job_spec(tasks=40), **changes)
    assert JobLedger(world.desk(), JOB).submit(Submit(JOB, spec, DEPLOYMENT))
    return spec


def enlisted(world: World) -> list[str]:
    return JobLedger(world.desk(), JOB).refresh().vms


def lose(world: World, vm: str) -> None:
    (machine,) = [machine for machine in world.alive if machine.tags["vmrun-vm"] == vm]
    world.one.take_away(machine.id)
    world.clock.sleep(3600)


def test_all_machines_are_got_and_stand_in_the_jobs_journal(world: World, site: Site) -> None:
    spec = submitted(world, vms=3)
    first = site.up(spec)
    assert sorted(enlisted(world)) == sorted(machine.tags["vmrun-vm"] for machine in world.alive)
    assert len(world.alive) == 3
    assert first in enlisted(world)
    # Whoever comes later has nothing to add
    other = Site(world)
    assert other.up(spec) in enlisted(world)
    assert len(world.alive) == 3
    site.fleets.settle(JOB)
    assert world.alive == []


def test_machines_that_somebody_is_about_to_create_are_not_got_twice(world: World, site: Site) -> None:
    spec = submitted(world, vms=2)
    # Given another client that has written down what it will create, and not created it yet
    intended = [world.vm(JOB, ready=False) for _ in range(2)]
    assert enlisted(world) == []
    assert site.up(spec) in intended
    assert world.alive == []
    # If nothing comes of it within the boot grace, that client is gone
    world.clock.sleep(901)
    assert site.up(spec) not in intended
    assert len(world.alive) == 2


def test_a_partial_fleet_runs_and_is_told(world: World, site: Site) -> None:
    spec = submitted(world, vms=3)
    WayIn.acts.append(lambda _: world.one.fail("create", Fault.quota, times=100))
    first = site.up(spec)
    assert enlisted(world) == [first]
    (news,) = site.fleets.news(JOB)
    assert news.startswith("only 1 of 3 machines were to be had: no machine was to be had on one: quota")
    assert site.fleets.news(JOB) == []
    assert site.tend()


def test_no_machine_at_all_is_an_error_and_leaves_nothing(world: World, site: Site) -> None:
    spec = submitted(world, vms=3)
    world.one.fail("create", Fault.quota, times=100)
    with pytest.raises(CapacityError, match="quota"):
        site.up(spec)
    assert world.alive == []
    assert enlisted(world) == []
    assert not site.fleets.has(JOB)


def test_warm_machines_come_first_and_each_is_taken_once(world: World, site: Site) -> None:
    warm = {world.vm("", keep_warm=1000.0) for _ in range(2)}
    spec = submitted(world, vms=3)
    order = dataclasses.replace(site.order(spec), on="fake")
    world.clouds["fake"] = world.cloud
    assert site.fleets.bring_up(order, spec, world.said.append) in warm
    site.join()
    assert warm < set(enlisted(world))
    assert len(enlisted(world)) == 3
    assert sorted(site.fleets.stop(JOB)) == sorted(enlisted(world))


def test_the_money_is_divided(world: World, site: Site) -> None:
    spec = submitted(world, vms=4, max_cost=10.0)
    site.up(spec)
    folds = [world.ledger(vm).fold for vm in enlisted(world)]
    assert [fold.max_cost for fold in folds] == [2.5] * 4
    assert sum(reserved(fold, JOB, world.clock.now()) for fold in folds) == pytest.approx(10.0)


def test_a_machine_in_the_place_of_a_lost_one_has_what_that_one_left(world: World, site: Site) -> None:
    spec = submitted(world, vms=2, max_cost=10.0, replace_lost=5)
    site.up(spec)
    victim, other = enlisted(world)
    world.clock.sleep(1800)
    lose(world, victim)
    assert site.tend()
    spent = reserved(world.ledger(victim).fold, JOB, world.clock.now())
    (third,) = set(enlisted(world)) - {victim, other}
    reserved_now = world.ledger(third).fold.max_cost + world.ledger(other).fold.max_cost
    assert spent > 0
    assert spent + reserved_now <= 10.0 + 1e-6
    assert world.ledger(third).fold.max_cost == pytest.approx(5.0 - spent)


def test_where_no_money_is_left_nothing_is_replaced(world: World, site: Site) -> None:
    spec = submitted(world, vms=2, max_cost=0.5, replace_lost=5)
    site.up(spec)
    victim = enlisted(world)[0]
    lose(world, victim)
    site.tend()
    assert len(enlisted(world)) == 2
    with pytest.raises(BudgetError):
        share(
            site.order(dataclasses.replace(spec, max_cost=0.01)), 1, site.fleets._folds(JOB).values(), world.clock.now()
        )


def test_a_loss_is_made_good_once_by_whoever_is_first(world: World, site: Site) -> None:
    spec = submitted(world, vms=2, replace_lost=1)
    site.up(spec)
    victim, other = enlisted(world)
    lose(world, victim)
    second = Site(world)
    assert site.tend()
    assert second.tend()
    assert len(enlisted(world)) == 3
    assert site.fleets.news(JOB)[0].startswith(f"lost {victim}")
    assert second.fleets.news(JOB) == []
    # So many as were asked for, and no more
    lose(world, other)
    assert site.tend()
    assert second.tend()
    assert len(enlisted(world)) == 3
    lose(world, enlisted(world)[2])
    assert not site.tend()


def test_a_replacement_that_found_no_capacity_is_searched_for_again_under_the_same_entry(
    world: World, site: Site
) -> None:
    spec = submitted(world, vms=2, replace_lost=1)
    site.up(spec)
    victim, _ = enlisted(world)
    lose(world, victim)
    # Given a cloud that has no room in any zone
    world.one.fail("create", Fault.stockout, scope=Scope.cloud)
    assert site.tend()
    assert JobLedger(world.desk(), JOB).refresh().replaced == [victim]
    assert "only 0 of 1 machines were to be had" in site.fleets.news(JOB)[1]
    # When it has room again, then it is not asked before the pause is over
    creates = len(world.tokens(world.one))
    assert site.tend()
    assert len(world.tokens(world.one)) == creates
    world.clock.sleep(AGAIN_FIRST)
    assert site.tend()
    assert len(enlisted(world)) == 3
    assert JobLedger(world.desk(), JOB).refresh().replaced == [victim]
    assert site.fleets.news(JOB) == [f"lost {victim}; searching again for 1 in its place"]
    # And what was replaced once is not replaced again
    world.clock.sleep(AGAIN_LONGEST)
    assert site.tend()
    assert len(enlisted(world)) == 3


def test_a_replacement_is_still_owed_after_the_store_was_away(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = submitted(world, vms=2, replace_lost=1)
    site.up(spec)
    lose(world, enlisted(world)[0])
    world.one.fail("create", Fault.stockout, scope=Scope.cloud)
    assert site.tend()
    assert site.tend()
    world.clock.sleep(AGAIN_FIRST)

    def away(job: str) -> Any:
        raise StoreUnavailable(f"no answer for {job}")

    with monkeypatch.context() as patch:
        patch.setattr(site.fleets, "_folds", away)
        with pytest.raises(StoreUnavailable):
            site.tend()
    assert len(enlisted(world)) == 2
    assert site.tend()
    assert len(enlisted(world)) == 3


def test_searches_for_a_replacement_come_to_an_end(world: World, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "AGAIN_FOR", 900.0)
    site.up(submitted(world, vms=2, replace_lost=1))
    lose(world, enlisted(world)[0])
    world.one.fail("create", Fault.stockout, scope=Scope.cloud, times=1000)
    began, searches = world.clock.monotonic(), []
    while world.clock.monotonic() < began + 3 * lookout.AGAIN_FOR:
        before = len(world.tokens(world.one))
        assert site.tend()
        if len(world.tokens(world.one)) > before:
            searches.append(world.clock.monotonic() - began)
        world.clock.sleep(5.0)
    # Soon at first, then more and more rarely, and not for ever
    gaps = [later - earlier for earlier, later in itertools.pairwise(searches)]
    assert gaps[0] == pytest.approx(AGAIN_FIRST, abs=6.0)
    assert gaps == sorted(gaps)
    assert max(gaps) <= AGAIN_LONGEST + 6.0
    assert lookout.AGAIN_FOR / 2 <= searches[-1] <= lookout.AGAIN_FOR + 60


def test_without_being_asked_nothing_is_replaced(world: World, site: Site) -> None:
    site.up(submitted(world, vms=2))
    lose(world, enlisted(world)[0])
    assert site.tend()
    assert len(enlisted(world)) == 2


def test_a_job_that_ends_while_its_machines_are_asked_after_has_lost_none(world: World, site: Site) -> None:
    spec = submitted(world, vms=2, replace_lost=1)

    def order(spec: JobSpec) -> Order:
        return dataclasses.replace(site.order(spec), need=Need(market=Market.spot))

    site.fleets.bring_up(order(spec), spec, world.said.append)
    site.join()
    job, now = JobLedger(world.desk(), JOB), world.clock.now()

    def lost(vm: str) -> bool:
        # It ended, and its machines left it, after its journal was read
        job.finish(Final("done", 40, 0))
        return VmLedger(world.desk(), vm).drain("no work", jobs=1)

    site.fleets.tend(JOB, lost, order)
    assert job.refresh().replaced == []
    assert Memory(world.deck.cache_dir).recall(now) == []
    assert site.fleets.news(JOB) == []


def test_what_was_meant_to_end_is_no_loss(world: World, site: Site) -> None:
    site.up(submitted(world, vms=2, replace_lost=9))
    asked, spent = (world.ledger(vm) for vm in enlisted(world))
    assert asked.delete("all: asked for", "reaper")
    assert not is_loss(asked.refresh(), JOB)
    assert spent.drain("maximum cost: it has cost $1", jobs=1)
    assert not is_loss(spent.refresh(), JOB)
    late = world.ledger(world.vm(JOB))
    assert late.delete("dead: no sign of life for 3m", "reaper")
    assert is_loss(late.refresh(), JOB)
    never = world.ledger(world.vm(JOB, ready=False))
    assert never.delete("could not be made ready", "client")
    assert not is_loss(never.refresh(), JOB)


def test_a_program_that_ends_early_leaves_its_jobs_to_another_process(world: World, site: Site) -> None:
    site.up(submitted(world, vms=2, replace_lost=1))
    site.fleets._leave()
    assert site.left_to == [JOB]
    assert len(world.alive) == 2
    JobLedger(world.desk(), JOB).finish(Final("done", 40, 0))
    assert not site.fleets.wants_attendance(JOB)


# --- a client that took on a replacement, and died ---


@pytest.fixture
def others(world: World) -> Any:
    """Two clients that come to the job later."""
    made = [Site(world), Site(world)]
    yield made
    for each in made:
        each.fleets.stop(JOB)


def taken_on(world: World, site: Site, **changes: Any) -> str:
    """A loss that a client has just taken on to replace."""
    site.up(submitted(world, vms=2, replace_lost=1, **changes))
    victim = enlisted(world)[0]
    lose(world, victim)
    assert JobLedger(world.desk(), JOB).replace(victim)
    return victim


def test_what_a_client_took_on_that_died_another_one_does_once(world: World, site: Site, others: list[Site]) -> None:
    victim = taken_on(world, site)
    for each in others:
        assert each.tend()
    # Whoever has just said so may be about to do it
    world.clock.sleep(STALE / 2)
    for each in others:
        assert each.tend()
    assert len(enlisted(world)) == 2
    world.clock.sleep(STALE / 2)
    for each in others:
        assert each.tend()
    assert len(enlisted(world)) == len(world.made) == 3
    assert others[0].fleets.news(JOB) == [f"lost {victim}; getting, as nobody else did, 1 in its place"]
    assert others[1].fleets.news(JOB) == []
    # Nor does any of them do it again
    for _ in range(20):
        world.clock.sleep(STALE)
        for each in others:
            assert each.tend()
    assert len(enlisted(world)) == len(world.made) == 3
    assert JobLedger(world.desk(), JOB).refresh().replaced == [victim]


def test_of_two_that_take_it_over_at_the_same_time_one_does(world: World, site: Site, others: list[Site]) -> None:
    taken_on(world, site)
    world.clock.sleep(STALE)
    one, other = others
    ledger = one.fleets._refresh(JOB)
    take_over = ledger.take_over

    def late(*what: Any) -> bool:
        # The other one sees the same, and is faster
        assert other.tend()
        return take_over(*what)

    ledger.take_over = late  # type: ignore[method-assign]
    assert one.tend()
    assert len(enlisted(world)) == len(world.made) == 3
    assert one.fleets.news(JOB) == []


def test_a_replacement_whose_client_died_before_it_was_ready_is_got_again(
    world: World, site: Site, others: list[Site]
) -> None:
    taken_on(world, site)
    world.clouds["fake"] = world.cloud
    half = world.vm(JOB, ready=False)
    assert JobLedger(world.desk(), JOB).enlist(half)
    # As long as it may still come nobody gets another one
    world.clock.sleep(STALE)
    for each in others:
        assert each.tend()
    assert len(world.alive) == 2
    world.clock.sleep(900)
    for _ in range(3):
        for each in others:
            assert each.tend()
        world.clock.sleep(STALE)
    assert len([machine for machine in world.alive if machine.tags["vmrun-vm"] != half]) == 2
    assert len(enlisted(world)) == 4


def test_a_client_that_searches_again_leaves_it_to_who_has_taken_over(
    world: World, site: Site, others: list[Site]
) -> None:
    site.up(submitted(world, vms=2, replace_lost=1))
    lose(world, enlisted(world)[0])
    world.one.fail("create", Fault.stockout, scope=Scope.cloud)
    assert site.tend()
    assert site.tend()
    # Given that it slept, and another one has begun meanwhile
    world.clock.sleep(STALE)
    assert JobLedger(world.desk(), JOB).take_over(enlisted(world)[0], "", STALE, world.clock.now())
    assert site.tend()
    assert len(world.made) == 2
    # If that one dies, too, it is the first one's turn again
    world.clock.sleep(STALE)
    assert site.tend()
    assert len(enlisted(world)) == 3
    assert others[0].tend()
    assert len(world.made) == 3


def test_a_machine_that_was_never_to_be_had_is_not_searched_for_by_the_same_client_for_ever(
    world: World, site: Site, others: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "AGAIN_FOR", 200.0)
    taken_on(world, site)
    world.one.fail("create", Fault.stockout, scope=Scope.cloud, times=1000)
    for _ in range(40):
        world.clock.sleep(STALE)
        assert others[0].tend()
    searches = len(world.tokens(world.one))
    assert 2 <= searches - 2 <= 8
    for _ in range(20):
        world.clock.sleep(STALE)
        assert others[0].tend()
    assert len(world.tokens(world.one)) == searches


# --- several clients, and ends that come in between ---


def test_a_machine_that_has_the_job_and_whose_client_died_is_listed(world: World, site: Site) -> None:
    spec = submitted(world, vms=2)
    orphan = world.vm(JOB)
    site.up(spec)
    assert orphan in enlisted(world)
    assert len(enlisted(world)) == 2


def test_two_clients_that_fill_up_together_do_not_get_more_than_was_asked_for(world: World, site: Site) -> None:
    spec = submitted(world, vms=3)
    other = Site(world)
    # When another client fills up while the first one makes its first machine ready
    WayIn.acts.append(lambda _: other.up(spec))
    assert site.up(spec) in enlisted(world)
    assert sorted(enlisted(world)) == sorted(machine.tags["vmrun-vm"] for machine in world.alive)
    assert len(world.alive) == 3
    assert site.fleets.news(JOB) == []
    other.fleets.stop(JOB)


@pytest.mark.parametrize("end", ["final", "cancel"])
def test_once_the_job_has_ended_no_further_machine_is_got(world: World, site: Site, end: str) -> None:
    spec = submitted(world, vms=5)
    ledger = JobLedger(world.desk(), JOB)
    acts = {"final": lambda _: ledger.finish(Final("done", 40, 0)), "cancel": lambda _: ledger.cancel("user")}
    WayIn.acts.append(acts[end])
    first = site.up(spec)
    assert enlisted(world) == [first]
    assert [machine.tags["vmrun-vm"] for machine in world.alive] == [first]
    assert len(world.made) == 1


def test_a_machine_that_comes_after_the_end_of_its_job_is_given_back(world: World, site: Site) -> None:
    spec = submitted(world, vms=2)
    create = world.one.create

    def late(instance: Any) -> Any:
        JobLedger(world.desk(), JOB).finish(Final("cancelled", 0, 0))
        return create(instance)

    world.one.create = late  # type: ignore[method-assign]
    assert site.up(spec) == ""
    assert world.alive == []
    assert len(world.made) == 1


def test_nobody_stays_for_machines_of_a_job_that_has_ended(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up(submitted(world, vms=2, replace_lost=1))
    monkeypatch.setattr(site.fleets, "on_the_way", lambda job: True)
    assert site.fleets.wants_attendance(JOB)
    JobLedger(world.desk(), JOB).finish(Final("done", 40, 0))
    assert not site.fleets.wants_attendance(JOB)


def test_a_program_with_warm_machines_only_leaves_its_job_to_another_process_too(world: World, site: Site) -> None:
    for _ in range(2):
        world.vm("", keep_warm=1000.0)
    spec = submitted(world, vms=2, replace_lost=1)
    world.clouds["fake"] = world.cloud
    site.fleets.bring_up(dataclasses.replace(site.order(spec), on="fake"), spec, world.said.append)
    site.fleets._leave()
    assert site.left_to == [JOB]


def test_two_replacements_do_not_both_have_what_is_left_of_the_money(world: World, site: Site) -> None:
    spec = submitted(world, vms=2, max_cost=10.0, replace_lost=5)
    site.up(spec)
    one, two = enlisted(world)
    # Given a loss that somebody else makes good, whose new machine is not there yet
    lose(world, one)
    lose(world, two)
    assert JobLedger(world.desk(), JOB).replace(one)
    site.tend()
    (third,) = set(enlisted(world)) - {one, two}
    spent = reserved(world.ledger(two).fold, JOB, world.clock.now())
    assert world.ledger(third).fold.max_cost <= 5.0 - spent + 1e-6


@pytest.mark.parametrize("market", [Market.spot, Market.spot_with_fallback])
def test_spot_machines_that_are_taken_back_are_replaced_elsewhere_and_then_on_demand_if_that_may_be(
    world: World, site: Site, market: Market
) -> None:
    spec = submitted(world, vms=2, replace_lost=5)

    def order(spec: JobSpec) -> Order:
        return dataclasses.replace(site.order(spec), need=Need(market=market))

    site.fleets.bring_up(order(spec), spec, world.said.append)
    site.join()
    kinds: list[tuple[bool, str]] = []
    for _ in range(2):
        known = set(enlisted(world))
        victim = enlisted(world)[len(kinds)]
        world.ledger(victim).drain("its cloud takes it back (spot interruption)", jobs=1)
        lost = world.ledger(victim).fold.intent
        assert site.fleets.tend(JOB, lambda vm: world.ledger(vm).fold.drain is not None, order)
        site.join()
        (new,) = set(enlisted(world)) - known
        intent = world.ledger(new).fold.intent
        assert intent is not None
        assert lost is not None
        kinds.append((intent.spot, intent.zone))
        if intent.spot:
            assert intent.zone != lost.zone
    assert [spot for spot, _ in kinds] == [True, market is Market.spot]


def test_a_machine_that_is_held_for_debugging_is_none_of_the_jobs_any_more(world: World, site: Site) -> None:
    spec = submitted(world, vms=1, replace_lost=1)
    held = world.vm(JOB, ready=False)
    assert JobLedger(world.desk(), JOB).enlist(held)
    hold = Hold("", world.clock.now() + 3600, "it could not be made ready", "hold on failure")
    assert world.ledger(held).hold(hold, jobs=1)
    assert site.up(spec) != held
    assert len(world.alive) == 1
    assert world.running == {held}


# --- a person who leaves ---


class Stuck:
    """Machines that never get an address, on a real clock that only their threads wait on."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parting, "LEAVE_PATIENCE", 0.2)
        monkeypatch.setattr(module_fleets, "LEAVE_PATIENCE", 0.2)
        self.go, self.inside = threading.Event(), threading.Event()
        self.world = world

        def hang(_: str) -> None:
            # As within a command over SSH, which no clock ends
            self.inside.set()
            assert self.go.wait(PATIENCE)

        WayIn.acts.append(hang)


def test_a_person_who_leaves_waits_for_nothing_and_what_is_half_made_is_condemned(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, stuck = submitted(world, vms=2), Stuck(world, monkeypatch)
    began = SystemClock().monotonic()
    seen: list[float] = []

    def interrupted(made: Muster) -> str:
        assert stuck.inside.wait(PATIENCE)
        seen.append(SystemClock().monotonic() - began)
        raise KeyboardInterrupt

    monkeypatch.setattr(Muster, "first", interrupted)
    # The manual clock stands still while its thread hangs; leaving is timed by a real one
    site.fleets._wiring.clock = SystemClock()
    with pytest.raises(KeyboardInterrupt):
        site.fleets.bring_up(site.order(spec), spec, world.said.append)
    site.fleets.hand_over(JOB)
    site.fleets.hand_over(JOB)
    assert SystemClock().monotonic() - began - seen[0] < PATIENCE / 2
    assert site.left_to == [JOB]
    (vm,) = enlisted(world)
    fold = world.ledger(vm).fold
    assert fold.delete is not None
    assert fold.delete.why == "its client left"
    # Its machine is there as long as its thread hangs; whoever goes on with the job deletes it
    assert len(world.alive) == 1
    parting.clear_up(world.deck, JOB, 0.0)
    assert world.alive == []
    assert world.ledger(vm).fold.gone is not None
    # and what comes of the thread later is no machine
    muster_threads = [thread for thread in threading.enumerate() if thread.name.startswith("vmrun-muster")]
    stuck.go.set()
    for thread in muster_threads:
        thread.join(PATIENCE)
    assert world.ledger(vm).fold.ready is None
    assert world.alive == []
    # The job is got its machines anew
    world.clock.sleep(1)
    site.fleets._wiring.clock = world.clock
    monkeypatch.undo()
    monkeypatch.setattr(module, "_way_in", lambda transport: WayIn)
    monkeypatch.setattr(muster, "AT_ONCE", 1)
    other = Site(world)
    other.up(spec)
    assert len(world.alive) == 2
    other.fleets.stop(JOB)


def test_who_loses_patience_with_leaving_has_left(world: World, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, stuck = submitted(world, vms=2), Stuck(world, monkeypatch)

    def interrupt(*_: object) -> None:
        assert stuck.inside.wait(PATIENCE)
        raise KeyboardInterrupt

    monkeypatch.setattr(Muster, "first", interrupt)
    monkeypatch.setattr(Muster, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        site.fleets.bring_up(site.order(spec), spec, world.said.append)
    site.fleets.hand_over(JOB)
    assert site.left_to == [JOB]
    (vm,) = enlisted(world)
    assert world.ledger(vm).fold.delete is not None
    stuck.go.set()


def test_whoever_leaves_at_the_end_does_not_wait_until_all_machines_are_gone(
    world: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up(submitted(world, vms=2))
    JobLedger(world.desk(), JOB).finish(Final("done", 40, 0))
    slow, ended, first = threading.Event(), list[str](), enlisted(world)[0]

    def giving_back(deck: Any, vm: str, job: str, watch: float) -> None:
        if vm == first:
            assert slow.wait(PATIENCE)
            raise KeyboardInterrupt  # as in the thread that waits for these
        slow.set()
        try:
            for _ in range(int(PATIENCE * 10)):
                deck.desk.clock.sleep(0.1)
                SystemClock().sleep(0.1)
        except Stopped:
            ended.append(vm)
            raise

    monkeypatch.setattr(module_fleets, "give_back", giving_back)
    with pytest.raises(KeyboardInterrupt):
        site.fleets.settle(JOB)
    assert len(ended) == 1


def test_what_is_condemned_before_its_intent_is_never_created(world: World) -> None:
    half, vm = parting.HalfMade(), new_id(world.clock, world.rng)
    with half.making(JOB) as begun:
        begun(vm)
        half.condemn(world.desk(), JOB)
        assert not VmLedger(world.desk(), vm).intend(intent(vm, JOB))
    assert world.indexed == set()
    # Those that are ready, or at their end, are none of it
    with half.making(JOB) as begun:
        there = world.vm(JOB)
        begun(there)
        half.condemn(world.desk(), JOB)
        half.condemn(world.desk(), OTHER_JOB)
    assert world.ledger(there).fold.delete is None
    parting.clear_up(world.deck, JOB, 0.0)
    assert world.running == {there}
