"""A machine got by way of faults: what is called, what is left, and what a person is told."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.sim.keys import fake_key
from tests.unit.core.world import OTHER_JOB
from tests.unit.fleet.world import Fleet
from vmrun.core.clouds import Capabilities, Fault, Instance, InstanceSpec, InstanceState, Market, Need, Offer, Scope
from vmrun.core.errors import CapacityError, Denied, Unreachable, UsageError, VmrunError
from vmrun.core.records import Ready
from vmrun.fleet import attempt as module
from vmrun.fleet.address import wait_for_address
from vmrun.fleet.bring_up import bring_up
from vmrun.fleet.order import Order, Timings
from vmrun.fleet.parting import clear_up
from vmrun.fleet.retire import WATCH
from vmrun.fleet.search import AGAIN_MAX
from vmrun.provisioners.fake import FakeCloud, Machine

SETTLE = 60.0
SENDS = AGAIN_MAX + 1


def offers(on: str, price: float = 1.0) -> list[Offer]:
    """Two types in three zones of two regions, each type in a bucket of its own, spot at a third of the price."""
    return [
        Offer(on, name, region, zone, "x86_64", 64, 32, 1 << 38, price * cost / (3 if spot else 1), spot, "", bucket)
        for name, bucket, cost in (("std", "standard", 1.0), ("mem", "memory", 2.0))
        for region, zone in (("east", "east-1"), ("east", "east-2"), ("west", "west-1"))
        for spot in (False, True)
    ]


class WayIn:
    """As over SSH, without the SSH."""

    host_key = ""
    #: Raised for each machine that has an address, in turn.
    troubles: list[BaseException]
    #: Done to each machine before that.
    acts: list[Any]
    orders: list[Order]

    def __init__(self, deck: Any, order: Order, vm: str, on_stage: Any) -> None:
        self.deck, self.order, self.vm = deck, order, vm
        self.orders.append(order)

    def user_data(self, hard_deadline: float, capabilities: Capabilities) -> str:
        return f"until {hard_deadline}"

    def make_ready(self, ledger: Any, provisioner: Any, instance: Any, hard_deadline: float) -> None:
        wait_for_address(provisioner, instance, self.deck.desk.clock, self.order.timings.ssh_timeout)
        if self.acts:
            self.acts.pop(0)(instance.id)
        if self.troubles:
            raise self.troubles.pop(0)
        assert ledger.ready(Ready(fake_key(f"vm:{self.vm}").hex(), "boot", host="10.0.0.1", python="3.11"))


class World(Fleet):
    """Two clouds, the second dearer than the first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        capabilities = Capabilities(settle=SETTLE, spot=True)
        self.clouds = {
            on: FakeCloud(self.clock, self.rng, name=on, capabilities=capabilities, offers=offers(on, price))
            for on, price in (("one", 1.0), ("two", 10.0))
        }
        self.one, self.two = self.clouds.values()
        self.deck = dataclasses.replace(
            self.deck,
            provisioner=lambda name: self.clouds[name],
            clouds=lambda on: ("one", "two") if on == "auto" else (on,),
            timings=lambda on: Timings(ssh_timeout=100.0 if on == "one" else 200.0),
        )
        self.said: list[str] = []

    def go(self, on: str = "one", market: Market = Market.on_demand, **need: Any) -> Machine:
        """The machine that an order gets; it is the only one there is."""
        order = Order(job=OTHER_JOB, on=on, need=Need(market=market, **need), python="3.11")
        vm = bring_up(self.deck, order, self.said.append)
        (machine,) = self.alive
        assert machine.tags["vmrun-vm"] == vm
        assert self.ledger(vm).fold.ready is not None
        return machine

    def fails(self, kind: type[VmrunError], on: str = "one", market: Market = Market.on_demand) -> VmrunError:
        """The error of an order that gets nothing, and leaves nothing."""
        with pytest.raises(kind) as caught:
            self.go(on, market)
        assert self.alive == []
        return caught.value

    @property
    def alive(self) -> list[Machine]:
        return [machine for cloud in self.clouds.values() for machine in cloud.alive()]

    @property
    def made(self) -> list[Machine]:
        return sorted((one for cloud in self.clouds.values() for one in cloud.machines), key=lambda one: one.began)

    def verbs(self, cloud: FakeCloud, *skip: str) -> list[str]:
        """Calls in order, repeated ones once with their number."""
        grouped = itertools.groupby(call.verb for call in cloud.calls if call.verb not in ("leftovers", *skip))
        return [f"{verb}*{count}" if (count := len(list(group))) > 1 else verb for verb, group in grouped]

    def tokens(self, cloud: FakeCloud) -> list[str]:
        return [call.subject for call in cloud.calls if call.verb == "create"]

    def one_at_a_time(self) -> bool:
        """Whether each machine was gone before the next one was asked for."""
        return all(before.ends() <= after.began for before, after in itertools.pairwise(self.made))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    WayIn.troubles, WayIn.acts, WayIn.orders = [], [], []
    monkeypatch.setattr(module, "_way_in", lambda transport: WayIn)
    return World(tmp_path)


def places(rows: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(row["on"], row["instance_type"], row["zone"], row["fault"]) for row in rows]


# --- one fault, and where the search goes from there: the calls, and the machine in the end ---

CASES = [
    (Fault.stockout, Scope.offer, "std in east-2", ["create*2"]),
    (Fault.stockout, Scope.zone, "std in east-2", ["create*2"]),
    (Fault.stockout, Scope.region, "std in west-1", ["create*2"]),
    (Fault.not_offered, Scope.offer, "std in east-2", ["create*2"]),
    (Fault.preempted, Scope.offer, "std in east-2", ["create*2"]),
    (Fault.quota, Scope.bucket, "std in west-1", ["create*2"]),
    (Fault.quota, Scope.region, "std in west-1", ["create*2"]),
    (Fault.throttle, Scope.region, "std in east-1", ["create*2"]),
    (Fault.unavailable, Scope.offer, "std in east-1", ["create*2"]),
    (Fault.unknown, Scope.offer, "std in east-1", ["create*2"]),
]


@pytest.mark.parametrize(("fault", "scope", "where", "calls"), CASES)
def test_one_fault_and_the_machine_that_is_got_after_it(
    world: World, fault: Fault, scope: Scope, where: str, calls: list[str]
) -> None:
    world.one.fail("create", fault, scope=scope)
    machine = world.go()
    assert f"{machine.instance_type} in {machine.zone}" == where
    assert world.verbs(world.one) == ["offers", *calls]
    tokens = world.tokens(world.one)
    # The same request is the same VM, another attempt another one
    assert (tokens[0] == tokens[1]) is (where == "std in east-1")


@pytest.mark.parametrize(
    ("fault", "kind", "sends"),
    [
        (Fault.config, UsageError, 1),
        (Fault.permission, Denied, 1),
        (Fault.billing, Denied, 1),
        (Fault.unknown, CapacityError, 2),
        (Fault.throttle, CapacityError, SENDS),
        (Fault.unavailable, CapacityError, SENDS),
    ],
)
def test_what_ends_the_search_in_a_cloud(world: World, fault: Fault, kind: type[VmrunError], sends: int) -> None:
    world.one.fail("create", fault, times=100, code="CloudSays")
    error = world.fails(kind)
    assert (error.exit_code, len(world.tokens(world.one))) == (
        {UsageError: 2, Denied: 9, CapacityError: 4}[kind],
        sends,
    )
    assert len(set(world.tokens(world.one))) == 1
    assert places(error.data["tried"]) == [("one", "std", "east-1", fault.value)]
    assert error.data["tried"][0]["code"] == "CloudSays"


def test_a_request_that_came_too_often_is_sent_again_after_a_growing_jittered_pause(world: World) -> None:
    began = world.clock.monotonic()
    world.one.fail("create", Fault.throttle, times=SENDS)
    world.fails(CapacityError)
    # A refusal is no doubt: nothing has to settle
    assert 0 < world.clock.monotonic() - began < 1 + 2 + 4 + 8 + 16 + 20
    assert world.verbs(world.one) == ["offers", f"create*{SENDS}"]


def test_an_error_of_unknown_kind_is_shown_as_the_cloud_gave_it(world: World) -> None:
    world.one.fail("create", Fault.unknown, times=2, code="Odd.Code")
    error = world.fails(CapacityError)
    assert "Odd.Code" in error.message
    assert "could not create" in error.message


def test_the_order_of_the_tries_and_the_table_of_reasons(world: World) -> None:
    world.one.fail("create", Fault.stockout, zone="east-1", scope=Scope.zone)
    world.one.fail("create", Fault.quota, zone="east-2", code="VcpuLimitExceeded", bucket="standard", times=2)
    world.one.fail("create", Fault.permission, zone="west-1")
    error = world.fails(CapacityError)
    assert places(error.data["tried"]) == [
        ("one", "std", "east-1", "stockout"),
        ("one", "std", "east-2", "quota"),
        ("one", "std", "west-1", "permission"),
    ]
    assert error.data["tried"][1] == {
        "on": "one",
        "instance_type": "std",
        "region": "east",
        "zone": "east-2",
        "spot": False,
        "fault": "quota",
        "code": "VcpuLimitExceeded",
        "quota": "standard",
        "message": error.data["tried"][1]["message"],
    }
    assert "stockout in east-1; quota standard in east; permission in west-1" in error.message


def test_a_quota_of_one_kind_of_machine_leaves_the_other_kind(world: World) -> None:
    world.one.fail("create", Fault.quota, zone="east-1")
    world.one.fail("create", Fault.quota, zone="west-1")
    machine = world.go()
    assert (machine.instance_type, machine.zone) == ("mem", "east-1")
    assert len(world.tokens(world.one)) == 3


def test_a_name_that_a_foreign_machine_has_is_given_up_for_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, foreign = world.one.create, []

    def taken(spec: InstanceSpec) -> Instance:
        if not foreign:
            foreign.append(world.one.add_foreign(spec.name, owner=spec.owner))
        return create(spec)

    monkeypatch.setattr(world.one, "create", taken)
    vm = bring_up(world.deck, Order(job=OTHER_JOB, on="one", need=Need(), python="3.11"), world.said.append)
    assert len(set(world.tokens(world.one))) == 2
    assert world.ledger(vm).fold.intent.zone == "east-1"
    # The foreign machine is neither adopted nor touched
    theirs, mine = world.alive
    assert (theirs.id, mine.tags["vmrun-vm"]) == (foreign[0], vm)


# --- doubt: never two machines for one, and none left ---


def test_a_machine_whose_creation_was_not_answered_is_found_by_the_same_request(world: World) -> None:
    world.one.fail("create", Fault.unavailable, after=True)
    machine = world.go()
    assert world.made == [machine]


@pytest.mark.parametrize("appear", [0.0, 30.0, SETTLE - 5])
@pytest.mark.parametrize("fault", [Fault.unavailable, Fault.unknown])
def test_a_doubtful_machine_is_gone_before_another_is_asked_for(world: World, fault: Fault, appear: float) -> None:
    world.one.knobs.appear = (appear, appear)
    world.one.knobs.vanish = (3.0, 3.0)
    world.one.fail("create", fault, times=SENDS, after=True)
    if fault is Fault.unknown:
        world.fails(CapacityError, "auto")
        (doubtful,) = world.made
    else:
        machine = world.go("auto")
        doubtful, other = world.made
        assert other is machine
        assert machine in world.two.machines
    assert doubtful.is_deleted()
    assert world.one_at_a_time()
    fold = world.ledger(doubtful.tags["vmrun-vm"]).fold
    assert fold.delete is not None
    assert fold.gone is not None
    assert doubtful.tags["vmrun-vm"] not in world.indexed


def test_without_an_answer_nothing_is_concluded_before_the_cloud_has_settled(world: World) -> None:
    world.one.fail("create", Fault.unavailable, times=SENDS)
    world.go("auto")
    last_create = max(call.at for call in world.one.calls if call.verb == "create")
    last_look = max(call.at for call in world.one.calls if call.verb == "instances")
    assert last_look - last_create >= SETTLE
    assert world.two.calls[-1].at >= last_look


def test_while_a_doubt_stays_no_other_machine_is_asked_for(world: World) -> None:
    world.one.fail("create", Fault.unavailable, times=SENDS, after=True)
    world.one.fail("instances", Fault.unavailable, times=10_000)
    with pytest.raises(CapacityError) as caught:
        world.go("auto")
    assert "not certain" in caught.value.message
    assert world.tokens(world.two) == []
    # It is condemned in its journal and stays in the index, so that the reaper finds it
    (doubtful,) = world.alive
    fold = world.ledger(doubtful.tags["vmrun-vm"]).fold
    assert (fold.delete is not None, fold.gone) == (True, None)
    assert doubtful.tags["vmrun-vm"] in world.indexed
    assert any("vmrun reap" in said for said in world.said)


def test_a_refusal_after_a_doubt_does_not_end_the_doubt(world: World) -> None:
    world.one.fail("create", Fault.unavailable, after=True)
    world.one.fail("create", Fault.stockout)
    machine = world.go()
    doubtful, other = world.made
    assert other is machine
    assert doubtful.is_deleted()
    assert world.one_at_a_time()


@pytest.mark.parametrize("after", [False, True])
def test_whoever_interrupts_leaves_nothing_behind(world: World, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world.one.fail("create", Fault.unavailable, after=after)

    def interrupt(seconds: float) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_way_in", lambda transport: WayIn)
    monkeypatch.setattr(world.clock, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.go()
    assert world.alive == []
    (vm,) = world.indexed or {world.tokens(world.one)[0].rpartition("-")[2]}
    fold = world.ledger(vm).fold
    # What was never seen may still appear: its journal has no end yet, and the reaper goes on
    assert (fold.delete is not None, fold.gone is not None) == (True, after)


def test_a_machine_that_its_cloud_does_not_show_yet_is_given_back_when_it_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.one.knobs.appear = (20.0, 20.0)

    def interrupt(seconds: float) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_way_in", lambda transport: WayIn)
    monkeypatch.setattr(world.clock, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.go()
    (machine,) = world.made
    # Nobody waits for it to appear; it is condemned, and whoever goes on with the job deletes it then
    assert world.ledger(machine.tags["vmrun-vm"]).fold.delete is not None
    clear_up(world.deck, OTHER_JOB, WATCH)
    assert machine.is_deleted()
    assert world.ledger(machine.tags["vmrun-vm"]).fold.gone is not None


def test_a_machine_that_was_condemned_while_it_was_created_is_deleted_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = world.one.create

    def overtaken(spec: InstanceSpec) -> Instance:
        # A reaper finds nothing of it yet, and calls it gone
        ledger = world.ledger(spec.vm)
        ledger.delete("all: asked for", "reaper")
        ledger.gone("not found")
        return create(spec)

    monkeypatch.setattr(world.one, "create", overtaken)
    with pytest.raises(Unreachable) as caught:
        world.go()
    assert "given back" in caught.value.message
    (machine,) = world.made
    assert machine.is_deleted()


# --- after the creation ---


@pytest.mark.parametrize("after", [0.0, 20.0])
def test_a_machine_that_was_accepted_and_then_failed_is_deleted_and_another_zone_tried(
    world: World, after: float
) -> None:
    world.one.knobs.boot = (40.0, 40.0)
    world.one.doom(Fault.stockout, "cannot_start_capacity: no host has room", after=after)
    machine = world.go()
    failed, other = world.made
    assert other is machine
    assert (failed.zone, other.zone) == ("east-1", "east-2")
    assert world.one_at_a_time()
    assert world.ledger(failed.tags["vmrun-vm"]).fold.gone is not None
    assert any("stockout" in said for said in world.said)


def test_a_host_that_breaks_under_a_new_machine_is_left_and_its_cloud_is_not(world: World) -> None:
    world.one.knobs.boot = (40.0, 40.0)
    world.one.doom(Fault.unavailable, "stopped_by_host_failure: the host broke")
    assert world.go("auto").zone == "east-2"
    assert world.two.machines == []


def test_why_every_machine_failed_after_it_was_accepted_is_told(world: World) -> None:
    world.one.knobs.boot = (40.0, 40.0)
    world.one.doom(Fault.quota, "Client.VolumeLimitExceeded: too much disk", times=100)
    error = world.fails(CapacityError)
    # A limit of the region, and not the quota of the type
    assert [machine.zone for machine in world.made] == ["east-1", "west-1"]
    row = error.data["tried"][0]
    assert row["quota"] == "Client.VolumeLimitExceeded"
    assert "VolumeLimitExceeded in east" in error.hint
    assert (row["fault"], row["code"]) == ("quota", "Client.VolumeLimitExceeded")
    assert "too much disk" in row["message"]


def test_a_machine_that_is_taken_back_while_it_is_made_ready_gives_way_to_the_next_offer(world: World) -> None:
    WayIn.acts = [world.one.take_away]
    WayIn.troubles = [Unreachable("no answer")]
    machine = world.go(market=Market.spot)
    assert (machine.zone, len(world.made)) == ("east-2", 2)
    assert any("preempted" in said for said in world.said)


def test_a_machine_that_vanishes_before_it_has_an_address_gives_way_too(world: World) -> None:
    world.one.knobs.boot = (40.0, 40.0)
    taken: list[str] = []

    def take(seconds: float, sleep: Any = world.clock.sleep) -> None:
        sleep(seconds)
        if not taken and world.one.machines:
            taken.append(world.one.machines[0].id)
            world.one.take_away(taken[0])

    world.clock.sleep = take  # type: ignore[method-assign]
    machine = world.go()
    assert (machine.zone, len(world.made)) == ("east-2", 2)


def test_a_new_machine_that_its_own_cloud_does_not_know_yet_is_waited_for(world: World) -> None:
    world.one.knobs.appear = (SETTLE - 10, SETTLE - 10)
    assert [world.go()] == world.made


def test_a_cloud_that_is_busy_while_a_machine_boots_is_asked_again(world: World) -> None:
    world.one.knobs.boot = (30.0, 30.0)
    world.one.fail("get", Fault.throttle, times=3)
    world.one.fail("get", Fault.unavailable, times=3)
    assert [world.go()] == world.made


def test_a_machine_that_runs_and_does_not_answer_is_given_back_and_shows_its_console(world: World) -> None:
    WayIn.troubles = [Unreachable("no SSH after 300 s")]
    WayIn.acts = [lambda machine: world.one.consoles.update({machine: "\n".join(f"line {n}" for n in range(100))})]
    error = world.fails(Unreachable)
    assert error.exit_code == 5
    assert error.data["console"][-1] == "line 99"
    assert len(error.data["console"]) == 12
    # Another one would not do better, and cost as much
    assert len(world.made) == 1


def test_a_console_that_cannot_be_read_hides_nothing(world: World) -> None:
    WayIn.troubles = [Unreachable("no SSH after 300 s")]
    world.one.fail("boot_log", Fault.permission)
    error = world.fails(Unreachable)
    assert (error.message, error.data["console"]) == ("no SSH after 300 s", [])


# --- markets ---


def test_spot_comes_first_and_on_demand_where_there_is_none(world: World) -> None:
    assert world.go(market=Market.spot_with_fallback).spec.offer.spot  # type: ignore[union-attr]


def test_on_demand_is_fallen_back_to(world: World) -> None:
    world.one.fail("create", Fault.stockout, times=6, scope=Scope.offer)
    machine = world.go(market=Market.spot_with_fallback)
    assert machine.spec is not None
    assert (machine.spec.offer.spot, machine.zone, len(world.tokens(world.one))) == (False, "east-1", 7)


@pytest.mark.parametrize("market", [Market.spot, Market.on_demand])
def test_only_the_market_that_was_asked_for_is_tried(world: World, market: Market) -> None:
    world.one.fail("create", Fault.stockout, times=100, scope=Scope.offer)
    error = world.fails(CapacityError, market=market)
    assert [row["spot"] for row in error.data["tried"]] == [market is Market.spot] * 6


# --- across clouds ---


def test_the_cheapest_of_all_clouds_is_tried_first_and_the_next_cloud_follows(world: World) -> None:
    world.one.fail("create", Fault.stockout, times=6, scope=Scope.offer)
    machine = world.go("auto")
    assert machine in world.two.machines
    fold = world.ledger(machine.tags["vmrun-vm"]).fold
    assert fold.intent is not None
    assert fold.intent.on == "two"
    # Each cloud's machine lives by that cloud's bounds
    assert [(order.on, order.timings.ssh_timeout) for order in WayIn.orders][-1] == ("two", 200.0)


@pytest.mark.parametrize("fault", [Fault.permission, Fault.billing])
@pytest.mark.parametrize("verb", ["offers", "create"])
def test_a_cloud_that_does_not_let_us_is_left_out_with_a_warning(world: World, fault: Fault, verb: str) -> None:
    world.one.fail(verb, fault, times=100)
    assert world.go("auto") in world.two.machines
    assert any(said.startswith("one is left out: ") for said in world.said)
    assert len(world.tokens(world.one)) <= 1


def test_nothing_anywhere_is_told_cloud_by_cloud(world: World) -> None:
    world.one.fail("offers", Fault.permission)
    world.two.fail("create", Fault.stockout, times=100, scope=Scope.offer)
    error = world.fails(CapacityError, "auto")
    rows = places(error.data["tried"])
    assert rows[0] == ("one", "", "", "permission")
    assert len(rows) == 7
    assert "this cloud was told to fail" in error.hint


def test_a_cloud_that_does_not_answer_is_asked_again_for_its_offers(world: World) -> None:
    world.one.fail("offers", Fault.unavailable, times=2)
    assert world.go() in world.one.machines
    assert world.verbs(world.one)[0] == "offers*3"


# --- what is remembered ---


def test_what_was_out_of_stock_minutes_ago_is_skipped_by_the_next_search_and_that_is_said(world: World) -> None:
    world.one.fail("create", Fault.stockout, zone="east-1", scope=Scope.zone)
    first = world.go()
    world.one.take_away(first.id)
    world.clock.sleep(100)
    world.said.clear()
    before = len(world.tokens(world.one))
    assert world.go().zone == "east-2"
    assert len(world.tokens(world.one)) == before + 1
    assert "std in east-1: skipped, stockout 1m 40s ago" in world.said
    # Minutes later it is worth a try again
    world.one.take_away(world.alive[0].id)
    world.clock.sleep(180)
    assert world.go().zone == "east-1"


def test_what_is_skipped_is_tried_when_nothing_else_is_left(world: World) -> None:
    world.one.fail("create", Fault.quota, times=4)
    world.fails(CapacityError)
    assert world.go().zone == "east-1"


def test_a_spot_stockout_says_nothing_of_on_demand(world: World) -> None:
    world.one.fail("create", Fault.stockout, zone="east-1")
    machine = world.go(market=Market.spot)
    world.one.take_away(machine.id)
    machine = world.go()
    assert (machine.zone, machine.state(world.clock.now())) == ("east-1", InstanceState.running)


def test_the_hint_names_the_quota_and_where_to_raise_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmrun.provisioners.fake import cloud

    monkeypatch.setattr(cloud, "_HINT", "")
    world.one.fail("create", Fault.quota, times=100, bucket="L-1216C47A", scope=Scope.region)
    error = world.fails(CapacityError)
    assert "ask one for more of the quota L-1216C47A in east" in error.hint
