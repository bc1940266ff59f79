"""Another machine for a job that lost its own: whether, which, and by whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.core.world import JOB, OTHER_JOB
from tests.unit.fleet.world import Fleet
from vmrun.core.clouds import Fault, Market, Need
from vmrun.core.errors import BudgetError, CapacityError
from vmrun.core.folds import VmFold
from vmrun.core.records import Gone
from vmrun.fleet.losses import Losses
from vmrun.fleet.memory import Memory
from vmrun.fleet.order import Order
from vmrun.fleet.replacing import (
    LEAST,
    PATIENCE,
    REPLACEMENTS_MAX,
    SPOT_LOSSES_MAX,
    after_losses,
    losses,
    short_of,
)

ORDER = Order(job=JOB, on="fake", need=Need(market=Market.spot), python="", max_lifetime=3600.0)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def lost_fold(fleet: Fleet, seconds: float = 60.0, *, spot: bool = True) -> VmFold:
    """A machine that was ready for the job and was gone after some seconds."""
    vm = fleet.vm(JOB)
    fleet.clock.sleep(seconds)
    ledger = fleet.ledger(vm)
    assert ledger.gone("taken back")
    fold = ledger.fold
    assert fold.intent is not None
    fold.intent = replace(fold.intent, spot=spot)
    return fold


def lost_folds(fleet: Fleet, count: int, *, spot: bool = True) -> list[VmFold]:
    return [lost_fold(fleet, spot=spot) for _ in range(count)]


def test_only_machines_that_were_ready_for_the_job_and_left_it_are_losses(fleet: Fleet) -> None:
    other, unready, works = fleet.vm(OTHER_JOB), fleet.vm(JOB, ready=False), fleet.vm(JOB)
    for vm in (other, unready):
        assert fleet.ledger(vm).gone("taken back")
    drained = fleet.vm(JOB)
    fleet.clock.sleep(1)
    first = lost_fold(fleet)
    assert fleet.ledger(drained).drain("its cloud takes it back", jobs=1)
    folds = [fleet.ledger(vm).fold for vm in (other, unready, works, drained)]
    found = losses([first, *folds], JOB)
    assert [fold.intent and fold.intent.vm for fold in found] == [drained, first.intent and first.intent.vm]


def test_a_spot_machine_is_replaced_by_a_spot_machine(fleet: Fleet) -> None:
    order = after_losses(ORDER, lost_folds(fleet, SPOT_LOSSES_MAX + 3), fleet.clock.now())
    assert order.need.market is Market.spot


@pytest.mark.parametrize(
    ("lost", "market"),
    [
        (SPOT_LOSSES_MAX - 1, Market.spot_with_fallback),
        (SPOT_LOSSES_MAX, Market.on_demand),
        (SPOT_LOSSES_MAX + 1, Market.on_demand),
    ],
)
def test_who_takes_on_demand_too_gets_it_after_some_losses(fleet: Fleet, lost: int, market: Market) -> None:
    wanted = replace(ORDER, need=Need(market=Market.spot_with_fallback))
    assert after_losses(wanted, lost_folds(fleet, lost), fleet.clock.now()).need.market is market
    # Machines on demand that were lost say nothing about spot ones
    kept = after_losses(wanted, lost_folds(fleet, lost, spot=False), fleet.clock.now())
    assert kept.need.market is Market.spot_with_fallback


def test_replacements_are_bounded_in_number(fleet: Fleet) -> None:
    folds = [lost_fold(fleet, 1.0) for _ in range(REPLACEMENTS_MAX + 1)]
    assert after_losses(ORDER, folds[:-1], fleet.clock.now()).job == JOB
    with pytest.raises(CapacityError, match=f"lost {REPLACEMENTS_MAX + 1} machines"):
        after_losses(ORDER, folds, fleet.clock.now())


def test_all_machines_of_a_job_together_live_no_longer_than_one_may(fleet: Fleet) -> None:
    folds = [lost_fold(fleet, 1000.0), lost_fold(fleet, 600.0)]
    # Time in which the job had no machine does not count
    fleet.clock.sleep(50_000)
    order = after_losses(ORDER, folds, fleet.clock.now())
    assert order.max_lifetime == pytest.approx(2000.0)
    folds.append(lost_fold(fleet, 2000.0 - LEAST + 1))
    with pytest.raises(BudgetError, match="has had machines for the 1h"):
        after_losses(ORDER, folds, fleet.clock.now())


def test_machines_that_lived_beside_each_other_are_counted_once(fleet: Fleet) -> None:
    vms = [fleet.vm(JOB) for _ in range(4)]
    fleet.clock.sleep(1000)
    for vm in vms:
        assert fleet.ledger(vm).gone("taken back")
    order = after_losses(ORDER, [fleet.ledger(vm).fold for vm in vms], fleet.clock.now())
    assert order.max_lifetime == pytest.approx(2600.0, abs=1.0)


def test_an_offer_that_was_taken_back_comes_last_for_a_while(fleet: Fleet) -> None:
    fold, now = lost_fold(fleet), fleet.clock.now()
    (out,) = short_of([fold, lost_fold(fleet, spot=False)], now)
    offer = replace(next(iter(fleet.cloud.offers(Need()))), spot=True, bucket="any")
    assert out.covers(offer)
    assert not out.covers(replace(offer, spot=False))
    assert out.until > now


def test_of_two_clients_that_wait_for_a_job_one_replaces_its_machine(fleet: Fleet) -> None:
    one, other = (Losses(lambda: fleet.deck) for _ in range(2))
    vm = fleet.vm(JOB)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    assert one.take_on(JOB, [vm])
    # It leaves its job and only costs money
    assert fleet.running == set()
    assert not other.take_on(JOB, [vm])
    # Who did not come to an end may try again; when that takes too long, others may
    assert one.take_on(JOB, [vm])
    fleet.clock.sleep(PATIENCE + 1)
    assert other.take_on(JOB, [vm])
    assert not one.take_on(JOB, [vm])


@pytest.mark.parametrize(("ahead", "waits"), [(-30.0, True), (30.0, True), (86400.0, False), (-86400.0, False)])
def test_a_clock_that_is_wrong_keeps_nobody_from_replacing_a_lost_machine(
    fleet: Fleet, ahead: float, waits: bool
) -> None:
    vm = fleet.vm(JOB)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    # Given another client, whose clock is so far ahead, that died before it got anything
    fleet.clock.time += ahead
    assert fleet.ledger(vm).relieve("another", PATIENCE, fleet.clock.now())
    fleet.clock.time -= ahead
    assert Losses(lambda: fleet.deck).take_on(JOB, [vm]) is not waits


def test_what_a_job_lost_bounds_its_next_order(fleet: Fleet) -> None:
    known = Losses(lambda: fleet.deck)
    assert known.order(ORDER) == ORDER
    vm = fleet.vm(JOB)
    fleet.clock.sleep(600)
    assert fleet.ledger(vm).gone("taken back")
    assert known.take_on(JOB, [vm])
    assert known.order(ORDER).max_lifetime == pytest.approx(3000.0)
    assert known.order(replace(ORDER, job=OTHER_JOB)).max_lifetime == 3600.0
    # A machine on demand that is lost is no reason to avoid its offer
    assert Memory(fleet.deck.cache_dir).recall(fleet.clock.now()) == []


def test_lost_machines_are_gone_once_their_job_has_ended(fleet: Fleet) -> None:
    known = Losses(lambda: fleet.deck)
    vm = fleet.vm(JOB)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    fleet.cloud.fail("delete", Fault.permission)
    assert known.take_on(JOB, [vm])
    known.close(JOB)
    assert fleet.running == fleet.indexed == set()
    assert isinstance(fleet.ledger(vm).fold.gone, Gone)
