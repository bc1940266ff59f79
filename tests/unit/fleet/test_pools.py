"""Pools: what is to be done about one, and doing it over a cloud and a store in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.sim.keys import FakeSigner, fake_key
from tests.unit.core.world import JOB, OTHER_JOB, an_id, intent
from tests.unit.core.world import ready as ready_of
from tests.unit.fleet.test_fleet import ReadyAtOnce
from tests.unit.fleet.world import Fleet
from tests.unit.reaper.test_warm_race import Party, deck_of, pause
from vmrun.client import Client
from vmrun.core.clock import CorrectedClock
from vmrun.core.clouds import Fault, Need
from vmrun.core.errors import CapacityError, Corrupt, StoreDenied, UsageError
from vmrun.core.folds import VmFold
from vmrun.core.heartbeats import write_heartbeat
from vmrun.core.ids import first_id, new_id
from vmrun.core.pool_records import PoolSpec, PoolState
from vmrun.core.pools import PoolLedger, check_pool, pool_names
from vmrun.core.records import Drain, Entry, Heartbeat
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet import attempt as module
from vmrun.fleet.order import Order, Timings
from vmrun.fleet.pooling import (
    JOIN_GRACE,
    RENEW_BEFORE,
    Changes,
    Member,
    Steps,
    changed,
    counts,
    steps,
    up_for,
    up_from,
    up_until,
)
from vmrun.fleet.pools import keep_up, take_down
from vmrun.fleet.warm import take_warm
from vmrun.reaper.sweep import Reaper
from vmrun.settings import load_settings

NOW = 1_700_000_000.0
UNTIL = NOW + 8 * 3600
WANTED = PoolSpec("fake", Need(), size=2, until=UNTIL)
POOL = "default"


def member(letter: str, *, busy: bool = False, ready: bool = True, **changes: Any) -> Member:
    known = {key: changes.pop(key) for key in tuple(changes) if key in ("hard_deadline", "on", "vcpus")}
    vm = an_id(letter)
    wanted = replace(intent(vm), **{"on": "fake", "hard_deadline": NOW + 86400, **known})
    let_in = ready_of(vm) if ready else None
    return Member(vm, replace(VmFold(intent=wanted, ready=let_in, stay_until=UNTIL), **changes), busy)


A, B, C = (an_id(letter) for letter in "abc")
#: One whose client has just said that it is to be intended.
JOINING = Member(first_id(NOW - 1), None)


@pytest.mark.parametrize(
    ("wanted", "members", "expected"),
    [
        pytest.param(WANTED, [], Steps(UNTIL, missing=2), id="none is there"),
        pytest.param(WANTED, [member("a"), member("b")], Steps(UNTIL), id="all are there"),
        pytest.param(WANTED, [member("a"), JOINING], Steps(UNTIL), id="one is about to be intended"),
        pytest.param(WANTED, [member("a"), member("b", ready=False)], Steps(UNTIL), id="one is on its way"),
        pytest.param(WANTED, [member("a", drain=Drain("x"))], Steps(UNTIL, missing=2), id="one has taken its leave"),
        pytest.param(
            WANTED,
            [member("a"), member("b", hard_deadline=NOW + RENEW_BEFORE)],
            Steps(UNTIL, missing=1, release=(B,)),
            id="one is near its end",
        ),
        pytest.param(
            WANTED,
            [member("a", stay_until=UNTIL - 60), member("b")],
            Steps(UNTIL, prolong=(A,)),
            id="one does not know the new end",
        ),
        pytest.param(
            replace(WANTED, size=1),
            [member("a"), member("b", busy=True)],
            Steps(UNTIL, release=(A,)),
            id="the one that works is kept",
        ),
        pytest.param(
            replace(WANTED, size=1),
            [member("a", ready=False), member("b")],
            Steps(UNTIL),
            id="one that is on its way is let go when it is ready",
        ),
        pytest.param(
            replace(WANTED, need=Need(cpus=64)),
            [member("a", vcpus=2), member("b", vcpus=64)],
            Steps(UNTIL, missing=1, release=(A,)),
            id="one is too small by now",
        ),
        pytest.param(
            replace(WANTED, on="ec2"),
            [member("a")],
            Steps(UNTIL, missing=2, release=(A,)),
            id="one is elsewhere",
        ),
        pytest.param(None, [member("a"), member("b", busy=True)], Steps(release=(A, B)), id="down"),
        pytest.param(None, [member("a", stay_until=0.0)], Steps(), id="down, and it knows"),
        pytest.param(replace(WANTED, until=NOW), [member("a")], Steps(release=(A,)), id="its time is over"),
        pytest.param(
            replace(WANTED, schedule="sat 08:00-18:00"), [member("a")], Steps(release=(A,)), id="not its time"
        ),
    ],
)
def test_what_is_to_be_done(wanted: PoolSpec | None, members: list[Member], expected: Steps) -> None:
    assert steps(wanted, members, NOW) == expected


def test_one_that_joined_and_was_never_intended_counts_for_a_while() -> None:
    assert counts(Member(first_id(NOW - JOIN_GRACE + 1), VmFold()), NOW)
    assert not counts(Member(first_id(NOW - JOIN_GRACE - 1), VmFold()), NOW)


def test_when_it_is_up() -> None:
    # A Tuesday, 22:13 UTC.
    nights = replace(WANTED, schedule="tue 22:00-23:00")
    assert up_until(nights, NOW) == 1_700_002_800.0
    assert up_from(nights, NOW) == 0.0
    assert up_until(replace(nights, until=NOW + 60), NOW) == NOW + 60
    days = replace(WANTED, schedule="wed 08:00-18:00", until=0.0)
    assert up_until(days, NOW) == 0.0
    assert up_from(days, NOW) == 1_700_035_200.0
    assert up_from(replace(days, until=NOW + 60), NOW) == 0.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (8 * 3600.0, "until the pool ends")),
        ({"until": NOW + 30 * 86400}, (30 * 86400.0, "until the pool ends")),
        # It is up now, and again in a week less a quarter of an hour
        ({"until": 0.0, "schedule": "tue 22:00-23:00"}, (3600.0, "a week")),
        ({"until": 0.0, "schedule": "daily 08:00-18:00"}, (7 * 36000.0, "a week")),
        ({"until": 0.0, "schedule": "daily 00:00-24:00"}, (7 * 86400.0, "a week")),
        ({"until": NOW + 2 * 86400, "schedule": "daily 08:00-18:00"}, (2 * 36000.0, "until the pool ends")),
        ({"until": NOW + 60, "schedule": "daily 08:00-18:00"}, (0.0, "until the pool ends")),
        ({"until": NOW + 30 * 86400, "schedule": "mon-fri 08:00-18:00"}, (5 * 36000.0, "a week")),
    ],
)
def test_for_how_long_it_is_up(changes: dict[str, Any], expected: tuple[float, str]) -> None:
    assert up_for(replace(WANTED, **changes), NOW) == expected


def test_what_is_not_said_stays_as_it_was() -> None:
    first = changed(PoolSpec("local", Need(), 1), Changes(on="fake", need={"cpus": 4}, size=2, lasting=60.0), NOW)
    assert first == PoolSpec("fake", Need(cpus=4), 2, until=NOW + 60)
    assert changed(first, Changes(need={"memory": 5}), NOW + 9) == replace(first, need=Need(cpus=4, memory=5))
    assert changed(first, Changes(lasting=60.0), NOW + 30).until == NOW + 90
    with pytest.raises(UsageError, match="is over"):
        changed(first, Changes(size=3), NOW + 61)
    with pytest.raises(UsageError, match="until somebody takes it down"):
        changed(PoolSpec("local", Need(), 1), Changes(), NOW)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "../x", "a b", "a" * 41, "ä", "a\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no name for a pool"):
        check_pool(name)


# --- the journal ---


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_the_last_entry_says_all_and_the_same_is_not_written_twice(fleet: Fleet) -> None:
    ledger = PoolLedger(fleet.desk(), POOL)
    assert ledger.refresh() == PoolState(POOL, "")
    ledger.want(WANTED)
    assert ledger.want(WANTED).wanted == WANTED
    assert ledger.join(A, lambda state: list(state.members))
    assert len(list(fleet.memory.list(f"pools/{POOL}/"))) == 2
    again = PoolLedger(fleet.desk(), POOL)
    assert again.refresh() == PoolState(POOL, "", WANTED, (A,))
    again.want(None)
    assert ledger.refresh().wanted is None
    assert not ledger.join(B, lambda state: list(state.members))
    assert pool_names(fleet.desk()) == [POOL]


class Anybody:
    """Trusts whoever writes."""

    def verify(self, *_: object) -> bool:
        return True


def test_no_vm_says_what_is_wanted(fleet: Fleet) -> None:
    with pytest.raises(StoreDenied):
        PoolLedger(fleet.desk(f"vm:{A}"), POOL).want(WANTED)
    forged = replace(fleet.desk(), signer=FakeSigner(f"vm:{A}"))
    forged.journal(f"pools/{POOL}/", Anybody()).append(PoolState(POOL, "", WANTED))
    with pytest.raises(Corrupt):
        PoolLedger(fleet.desk(), POOL).refresh()


def test_of_many_that_join_at_once_no_more_do_than_are_missing(fleet: Fleet) -> None:
    PoolLedger(fleet.desk(), POOL).want(replace(WANTED, size=3))

    def join(vm: str) -> bool:
        return PoolLedger(fleet.desk(), POOL).join(vm, lambda state: list(state.members))

    with ThreadPoolExecutor(8) as threads:
        joined = list(threads.map(join, [an_id(letter) for letter in "abcdefgh"]))
    assert sum(joined) == 3
    assert len(PoolLedger(fleet.desk(), POOL).refresh().members) == 3


# --- passes ---


class LetIn(ReadyAtOnce):
    """A way in by which the agent is let in at once."""

    def make_ready(self, *known: Any) -> None:
        ledger: VmLedger = known[0]
        key = fake_key(f"vm:{ledger.vm}").hex()
        assert ledger.ready(replace(ready_of(ledger.vm), agent_key=key, host="10.0.0.1"))


@pytest.fixture
def way_in(monkeypatch: pytest.MonkeyPatch) -> type[ReadyAtOnce]:
    monkeypatch.setattr(module, "_way_in", lambda transport: LetIn)
    return LetIn


class Passes:
    """One pool, brought to what is wanted as often as is asked."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.said: list[str] = []
        self.until = fleet.clock.now() + 8 * 3600
        self.want(PoolSpec("fake", Need(), size=2, until=self.until))

    def want(self, wanted: PoolSpec | None) -> None:
        PoolLedger(self.fleet.desk(), POOL).want(wanted)

    def __call__(self) -> Steps:
        return keep_up(self.fleet.deck, POOL, self.order, self.said.append)

    def order(self, wanted: PoolSpec) -> Order:
        return Order(job="", on=wanted.on, need=wanted.need, python="", max_lifetime=wanted.max_lifetime)


@pytest.fixture
def passes(fleet: Fleet, way_in: type[ReadyAtOnce]) -> Passes:
    return Passes(fleet)


def work(fleet: Fleet, vm: str, job: str) -> None:
    """The agent begins the job that it was given."""
    fleet.beat(vm, 9, busy=job)


def leave(fleet: Fleet, vm: str) -> None:
    """What an agent does that has no work and is not to wait."""
    ledger = fleet.ledger(vm)
    assert not ledger.fold.stays(fleet.clock.now())
    assert VmLedger(fleet.desk(), vm).drain("no work", jobs=len(ledger.fold.jobs))
    body = Heartbeat(99, "boot", ledger.seen + 1)
    entry = Entry(99, "", "0" * 24, fleet.clock.now(), body)
    write_heartbeat(fleet.memory, vm, entry, FakeSigner(f"vm:{vm}"))


def test_what_is_missing_is_made_and_a_second_pass_makes_nothing(fleet: Fleet, passes: Passes) -> None:
    assert passes().missing == 2
    assert len(fleet.running) == 2
    for vm in fleet.running:
        fold = fleet.ledger(vm).fold
        assert fold.intent is not None
        assert (fold.intent.pool, fold.intent.job, fold.stay_until) == (POOL, "", passes.until)
        assert fold.intent.hard_deadline <= fleet.clock.now() + 86400, "the bound of every leak"
    assert passes() == Steps(passes.until)
    assert len(fleet.running) == 2


def test_a_job_takes_one_and_leaves_it_to_the_pool(fleet: Fleet, passes: Passes) -> None:
    passes()
    for vm in fleet.running:
        fleet.beat(vm, 1)
    taken = take_warm(fleet.deck, Order(job=OTHER_JOB, on="fake", need=Need(), python=""))
    assert taken in fleet.running
    assert fleet.ledger(taken).fold.stays(passes.until - 1)
    assert passes().missing == 0, "one that works is still of the pool"


def test_what_is_lost_is_made_anew(fleet: Fleet, passes: Passes) -> None:
    passes()
    lost = min(fleet.running)
    fleet.cloud.take_away(fleet.ledger(lost).fold.cloud_id)
    fleet.clock.sleep(1000)
    reaper = Reaper(fleet.deck, 1e9)
    reaper.sweep(["fake"], dry_run=False, everything=False, on_stage=passes.said.append)
    assert passes().missing == 1
    assert len(fleet.running) == 2
    assert lost not in fleet.running


def test_a_creation_that_fails_leaves_nothing_and_the_next_pass_tries_again(fleet: Fleet, passes: Passes) -> None:

    fleet.cloud.fail("create", Fault.stockout, times=6)
    with pytest.raises(CapacityError):
        passes()
    assert fleet.running == set()
    fleet.clock.sleep(3600)
    passes()
    assert len(fleet.running) == 2


def test_a_pool_that_shrinks_lets_one_go_that_has_no_work(fleet: Fleet, passes: Passes) -> None:
    passes()
    busy, idle = sorted(fleet.running)
    assert fleet.ledger(busy).assign(JOB, 0.0)
    work(fleet, busy, JOB)
    passes.want(PoolSpec("fake", Need(), size=1, until=passes.until))
    assert passes().release == (idle,)
    leave(fleet, idle)
    assert fleet.ledger(busy).fold.stays(fleet.clock.now())
    assert passes() == Steps(passes.until)


def test_its_time_is_told_anew(fleet: Fleet, passes: Passes) -> None:
    passes()
    longer = passes.until + 3600
    passes.want(PoolSpec("fake", Need(), size=2, until=longer))
    assert len(passes().prolong) == 2
    assert {fleet.ledger(vm).fold.stay_until for vm in fleet.running} == {longer}


def test_a_schedule_is_kept_over_a_week(fleet: Fleet, passes: Passes) -> None:
    """Half-hourly passes; the agents end their VMs with the window, and nobody ends them under a job."""
    passes.want(PoolSpec("fake", Need(), size=1, schedule="mon-fri 08:00-18:00"))
    hours: dict[int, int] = {}
    for _ in range(7 * 48):
        passes()
        for vm in list(fleet.running):
            if not fleet.ledger(vm).fold.stays(fleet.clock.now()):
                leave(fleet, vm)
                fleet.cloud.take_away(fleet.ledger(vm).fold.cloud_id)
        day = int(fleet.clock.now() // 86400 + 3) % 7
        hours[day] = hours.get(day, 0) + len(fleet.running)
        assert len(fleet.running) <= 1
        fleet.clock.sleep(1800)
    assert sorted(hours.items()) == [*((day, 20) for day in range(5)), (5, 0), (6, 0)]


# --- down ---


def test_down_lets_idle_vms_go_and_those_that_work_end_their_job(fleet: Fleet, passes: Passes) -> None:
    passes()
    busy, idle = sorted(fleet.running)
    assert fleet.ledger(busy).assign(JOB, 0.0)
    work(fleet, busy, JOB)
    slept = fleet.clock.sleep

    def sleep(seconds: float) -> None:
        slept(seconds)
        if fleet.ledger(idle).fold.drain is None:
            leave(fleet, idle)

    fleet.clock.sleep = sleep  # type: ignore[method-assign]
    left = take_down(fleet.deck, POOL, passes.said.append, 60.0)
    assert [each.vm for each in left] == [busy]
    assert fleet.running == {busy}
    assert pool_names(fleet.desk()) == [POOL], "it is still to be seen to"
    leave(fleet, busy)
    assert take_down(fleet.deck, POOL, passes.said.append, 60.0) == []
    assert fleet.running == set()
    assert pool_names(fleet.desk()) == []
    assert passes() == Steps()


def test_an_up_while_a_down_watches_is_not_forgotten(fleet: Fleet, passes: Passes) -> None:
    """Nobody would look at the pool any more, nor could take it down: its VMs would cost money until its end."""
    passes()
    wanted, slept = PoolSpec("fake", Need(), size=1, until=passes.until), fleet.clock.sleep

    def sleep(seconds: float) -> None:
        slept(seconds)
        for vm in fleet.running:
            leave(fleet, vm)
        passes.want(wanted)

    fleet.clock.sleep = sleep  # type: ignore[method-assign]
    take_down(fleet.deck, POOL, passes.said.append, 60.0)
    assert pool_names(fleet.desk()) == [POOL]
    assert passes().missing == 1


def test_one_that_had_joined_and_is_made_while_a_down_watches_is_let_go(fleet: Fleet, passes: Passes) -> None:
    vm, slept = new_id(fleet.clock, fleet.rng), fleet.clock.sleep
    assert PoolLedger(fleet.desk(), POOL).join(vm, lambda state: list(state.members))
    turns: list[Callable[[], object]] = [
        lambda: fleet.vm(vm=vm, stay_until=passes.until),
        lambda: None,
        lambda: leave(fleet, vm),
    ]

    def sleep(seconds: float) -> None:
        slept(seconds)
        if turns:
            turns.pop(0)()

    fleet.clock.sleep = sleep  # type: ignore[method-assign]
    assert take_down(fleet.deck, POOL, passes.said.append, 60.0) == []
    assert fleet.running == set()


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_whenever_a_pool_is_wanted_again_it_is_seen_to(tmp_path: Path, first: int) -> None:
    """A pass that finds nothing left of a pool and an `up` of it, their requests in an order that a seed draws."""
    met = 0
    for seed in range(first, first + 100):
        rng, fleet = random.Random(seed), Fleet(tmp_path / str(seed))
        wanted = PoolSpec("fake", Need(), size=1, until=fleet.clock.now() + 60)
        PoolLedger(fleet.desk(), POOL).want(wanted)
        PoolLedger(fleet.desk(), POOL).want(None)

        def sweep(fleet: Fleet = fleet) -> None:
            keep_up(deck_of(fleet, pause), POOL, lambda _: Order("", "fake", Need(), ""), lambda _: None, make=False)

        def up(fleet: Fleet = fleet, wanted: PoolSpec = wanted) -> None:
            PoolLedger(deck_of(fleet, pause).desk, POOL).want(wanted)

        going = [Party("pass", sweep, 0), Party("up", up, 0)]
        weights = {party.name: rng.choice([1, 1, 4]) for party in going}
        while going:
            party = rng.choices(going, [weights[each.name] for each in going])[0]
            if not party.step():
                going.remove(party)
        assert PoolLedger(fleet.desk(), POOL).refresh().wanted == wanted
        assert pool_names(fleet.desk()) == [POOL], f"seed {seed}"
        met += len(list(fleet.memory.list(f"pools/{POOL}/"))) == 3
    assert met


def test_what_was_taken_down_meanwhile_is_not_changed(fleet: Fleet) -> None:
    PoolLedger(fleet.desk(), POOL).want(WANTED)
    one, other = PoolLedger(fleet.desk(), POOL), PoolLedger(fleet.desk(), POOL)
    one.refresh()
    other.want(replace(WANTED, size=5))

    looked = one.refresh()
    other.want(None)
    assert not one.change(replace(WANTED, size=7), looked.wanted)
    assert one.refresh().wanted is None, "what was taken down meanwhile stays so"
    assert one.change(WANTED, None)
    assert one.refresh().wanted == WANTED


def test_down_does_not_wait_for_ever_for_an_agent_that_says_nothing(fleet: Fleet, passes: Passes) -> None:
    passes()
    began = fleet.clock.monotonic()
    assert len(take_down(fleet.deck, POOL, passes.said.append, 60.0)) == 2
    assert fleet.clock.monotonic() - began == pytest.approx(60.0, abs=1.0)


def test_one_that_is_being_made_is_given_back_at_once(fleet: Fleet, passes: Passes) -> None:
    vm = fleet.vm(ready=False)
    assert PoolLedger(fleet.desk(), POOL).join(vm, lambda state: list(state.members))
    assert take_down(fleet.deck, POOL, passes.said.append, 60.0) == []
    assert fleet.running == set()


def test_a_down_that_comes_while_vms_are_made_wins(fleet: Fleet, passes: Passes) -> None:
    def order(wanted: PoolSpec) -> Order:
        passes.want(None)
        return passes.order(wanted)

    assert keep_up(fleet.deck, POOL, order, passes.said.append).missing == 2
    assert fleet.running == set()


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_in_whatever_order_the_pool_comes_to_what_is_wanted(tmp_path: Path, seed: int) -> None:
    rng, fleet = random.Random(seed), Fleet(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_way_in", lambda transport: LetIn)
        passes = Passes(fleet)
        reaper = Reaper(fleet.deck, 1e9)
        size = 2

        def resize() -> None:
            nonlocal size
            size = rng.randint(1, 4)
            passes.want(PoolSpec("fake", Need(), size=size, until=passes.until))

        def lose() -> None:
            if fleet.running:
                fleet.cloud.take_away(fleet.ledger(rng.choice(sorted(fleet.running))).fold.cloud_id)

        def agents() -> None:
            for vm in list(fleet.running):
                fold = fleet.ledger(vm).fold
                if fold.assignable and not fold.stays(fleet.clock.now()):
                    leave(fleet, vm)

        def reap() -> None:
            reaper.sweep(["fake"], dry_run=False, everything=False, on_stage=passes.said.append)

        acts: list[Callable[[], object]] = [resize, lose, agents, reap, passes, lambda: fleet.clock.sleep(300)]
        for _ in range(40):
            rng.choice(acts)()
        fleet.clock.sleep(1000)
        for act in (reap, passes, agents, reap, passes):
            act()
        assert len(fleet.running) == size
        passes.want(None)
        for act in (passes, agents, reap, reap, reap, passes):
            act()
        assert fleet.running == set()
        assert pool_names(fleet.desk()) == []


def test_a_reaper_whose_clock_is_wrong_lets_no_vm_of_a_pool_go(
    fleet: Fleet, passes: Passes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes()
    there = fleet.running
    assert len(there) == 2
    # Given a computer whose clock is ahead by more than the pool is to last, and a store that tells the time
    clock = CorrectedClock(fleet.clock)
    clock.ahead = -12 * 3600.0
    deck = replace(fleet.deck, desk=replace(fleet.deck.desk, clock=clock), store_time=fleet.clock.now)
    wiring: Any = SimpleNamespace(
        desk=deck.desk, deck=deck, clock=clock, timings=lambda on: Timings(), on_stage=lambda text: None
    )
    client = Client(load_settings(environ={"HOME": str(tmp_path)}, cwd=tmp_path))
    client._wiring = wiring
    monkeypatch.setattr(client._reaping, "_clouds", lambda reaper, stage: ["fake"])
    assert not any(verdict.delete for verdict in client.reap())
    assert {vm: fleet.ledger(vm).fold.stay_until for vm in fleet.running} == dict.fromkeys(there, passes.until)
