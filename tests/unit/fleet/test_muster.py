"""Several machines got at the same time: what is had, what is learnt, what is told, and what is given back."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.shell import until
from tests.unit.core.world import OTHER_JOB
from tests.unit.fleet.test_failover import WayIn, World
from vmrun.core.clock import Clock, SystemClock
from vmrun.core.clouds import Fault, Need
from vmrun.core.errors import BudgetError, CapacityError, Unreachable
from vmrun.fleet import attempt as module
from vmrun.fleet.bring_up import rent
from vmrun.fleet.muster import AT_ONCE, Muster, StoppableClock, Stopped
from vmrun.fleet.order import Order

CLOCK = SystemClock()
#: Seconds that anything here may take on a busy computer.
PATIENCE = 60.0
ORDER = Order(job=OTHER_JOB, on="one", need=Need(), python="3.11")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    WayIn.troubles, WayIn.acts, WayIn.orders = [], [], []
    monkeypatch.setattr(module, "_way_in", lambda transport: WayIn)
    return World(tmp_path)


class Recruits:
    """Gets machines that are only numbers; the n-th one ends as it is told."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.ends = list(ends)
        self.begun = 0
        self.now = self.most = 0
        self.lock = threading.Lock()
        #: None is done before it is set.
        self.go = threading.Event()
        self.go.set()

    def __call__(self, on_stage: Callable[[str], None], clock: Clock) -> str:
        with self.lock:
            self.begun += 1
            number, self.now = self.begun, self.now + 1
            self.most = max(self.most, self.now)
        on_stage(f"begins {number}")
        assert self.go.wait(PATIENCE)
        with self.lock:
            self.now -= 1
            end = self.ends[number - 1] if number <= len(self.ends) else None
        if end is not None:
            raise end
        return f"vm-{number}"


def muster(recruit: Any, count: int, **options: Any) -> Muster:
    return Muster(recruit, count, CLOCK, lambda _: None, **options)


def test_no_more_than_a_few_are_got_at_once_and_all_come() -> None:
    recruits = Recruits()
    recruits.go.clear()
    made = muster(recruits, 3 * AT_ONCE)
    assert not made.join(0.1)
    recruits.go.set()
    assert made.first() in {f"vm-{number}" for number in range(1, AT_ONCE + 1)}
    assert made.join(PATIENCE)
    assert len(set(made.ready)) == 3 * AT_ONCE
    assert recruits.most <= AT_ONCE
    assert made.news() == []


def test_a_part_of_them_is_enough_and_said() -> None:
    made = muster(Recruits(None, CapacityError("all sold"), None, CapacityError("all sold")), 4)
    made.first()
    assert made.join(PATIENCE)
    assert made.ready
    (news,) = made.news()
    assert news == f"only {len(made.ready)} of 4 machines were to be had: all sold"
    assert made.news() == []


def test_none_at_all_is_the_error_that_says_why() -> None:
    made = muster(Recruits(*[BudgetError("too dear")] * 3), 3)
    with pytest.raises(BudgetError, match="too dear"):
        made.first()
    assert made.join(PATIENCE)
    assert made.news() == []


def test_nobody_goes_on_looking_where_nothing_is_left() -> None:
    recruits = Recruits(*[CapacityError("all sold")] * 100)
    made = muster(recruits, 100)
    with pytest.raises(CapacityError):
        made.first()
    assert made.join(PATIENCE)
    assert recruits.begun <= AT_ONCE


def test_one_that_cannot_be_reached_does_not_keep_others_from_being_got() -> None:
    recruits = Recruits(*[Unreachable("no answer")] * AT_ONCE)
    made = muster(recruits, AT_ONCE + 2)
    made.first()
    assert made.join(PATIENCE)
    assert len(made.ready) == 2


def test_a_program_error_reaches_whoever_waits() -> None:
    made = muster(Recruits(ValueError("a mistake")), 1)
    with pytest.raises(ValueError, match="a mistake"):
        made.first()


def test_a_program_error_after_the_first_machine_is_told() -> None:
    made = muster(Recruits(None, ValueError("a mistake")), 2, quiet=True)
    assert made.join(PATIENCE)
    (news,) = made.news()
    assert news.startswith("only 1 of 2 machines were to be had: ")
    assert "a mistake" in news


def test_where_nobody_wants_them_any_more_there_is_neither_a_machine_nor_an_error() -> None:
    made = muster(Recruits(*[Stopped()] * 3), 3)
    with pytest.raises(Stopped):
        made.first()
    assert made.join(PATIENCE)
    assert made.news() == []


def test_where_nobody_waits_for_the_first_that_there_is_none_is_news() -> None:
    made = muster(Recruits(CapacityError("all sold")), 1, quiet=True)
    assert made.join(PATIENCE)
    assert made.news() == ["only 0 of 1 machines were to be had: all sold"]


def test_stages_are_told_with_their_number_until_the_first_is_there() -> None:
    said: list[str] = []
    recruits = Recruits()
    recruits.go.clear()
    made = Muster(recruits, 2, CLOCK, said.append)
    # Either may be the first to begin
    until(lambda: len(said) == 2, PATIENCE, "both have begun")
    recruits.go.set()
    made.first()
    assert made.join(PATIENCE)
    machines, stages = zip(*(text.split(": ") for text in said), strict=True)
    assert sorted(machines) == ["machine 1 of 2", "machine 2 of 2"]
    assert sorted(stages) == ["begins 1", "begins 2"]


def test_waits_end_when_it_is_told_to_stop() -> None:
    stop = threading.Event()
    clock = StoppableClock(CLOCK, stop)
    clock.sleep(0.01)
    stop.set()
    with pytest.raises(Stopped):
        clock.sleep(PATIENCE)


def test_what_is_half_made_is_given_back_when_it_is_told_to_stop(world: World) -> None:
    # Given machines of which none gets an address
    for cloud in world.clouds.values():
        cloud.knobs = dataclasses.replace(cloud.knobs, boot=(1e9, 1e9))
    joined: list[str] = []
    real = SystemClock()

    def recruit(on_stage: Callable[[str], None], clock: Clock) -> str:
        desk = dataclasses.replace(world.deck.desk, clock=clock)
        deck = dataclasses.replace(world.deck, desk=desk, steady=world.clock, joined=joined.append)
        return rent(deck, ORDER, on_stage)

    made = muster(recruit, 1)
    for _ in range(600):
        if joined:
            break
        real.sleep(0.1)
    assert len(world.alive) == 1
    made.stop(PATIENCE)
    assert not made.running
    assert world.alive == []
    assert made.ready == []
    # In its journal, too
    assert world.ledger(joined[0]).fold.gone is not None


def test_searches_of_one_fleet_learn_from_each_other(world: World) -> None:
    out: list[Any] = []
    world.one.fail("create", Fault.stockout, zone="east-1", times=4)
    first = rent(world.deck, ORDER, world.said.append, out)
    assert world.one.calls[-1].verb != "delete"
    tried = len(world.tokens(world.one))
    # The second one goes where there is something, at once
    second = rent(dataclasses.replace(world.deck, cache_dir=world.deck.cache_dir / "other"), ORDER, print, out)
    assert first != second
    assert len(world.tokens(world.one)) == tried + 1


def test_a_search_to_which_the_others_left_nothing_says_so(world: World) -> None:
    out: list[Any] = []
    world.one.fail("create", Fault.permission, times=1)
    with pytest.raises(Exception, match="not allowed"):
        rent(world.deck, ORDER, world.said.append, out)
    with pytest.raises(CapacityError, match="no further machine was to be had on one"):
        rent(world.deck, ORDER, world.said.append, out)
