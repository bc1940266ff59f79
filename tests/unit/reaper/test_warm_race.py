"""Reapers that end a warm VM, a client that takes it and its own agent that takes its leave, all at the same time.

Once with threads over a directory, and once with every request of everybody put in an order that a seed draws, some
of them killed at one.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet

from tests.unit.core.world import JOB, OTHER_JOB, an_id
from tests.unit.fleet.world import Fleet
from vmrun.core.clouds import Need
from vmrun.core.heartbeats import write_heartbeat
from vmrun.core.ids import new_id
from vmrun.core.records import Entry, Heartbeat
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet.deck import Deck
from vmrun.fleet.order import Order
from vmrun.fleet.warm import take_warm
from vmrun.reaper.policies import IDLE_MARGIN
from vmrun.reaper.sweep import Reaper
from vmrun.store.directory import DirectoryStore

WINDOW = 60.0
ORDER = Order(job=OTHER_JOB, on="fake", need=Need(), python="3.11")
#: Seconds after which a party of a race is taken to hang.
PATIENCE = 120.0


class Watched:
    """Calls of one party go through `before` first."""

    def __init__(self, inner: Any, before: Callable[[], None]) -> None:
        self._inner = inner
        self._before = before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._before()
            # A listing is taken as a whole: between two of its pages others may move all the same.
            return self._whole(found(*args, **options))

        return call

    def _whole(self, answer: Any) -> Any:
        return iter(list(answer)) if isinstance(answer, Iterator) else answer


def deck_of(fleet: Fleet, before: Callable[[], None]) -> Deck:
    """The tools of one party, whose every call to the store and to the cloud is seen."""
    store, cloud = Watched(fleet.memory, before), Watched(fleet.cloud, before)
    return replace(fleet.deck, desk=replace(fleet.desk(), store=store), provisioner=lambda _: cloud)


def beat(fleet: Fleet, vm: str, counter: int, *, busy: str = "", idle: float = 0.0) -> None:
    seen = fleet.ledger(vm).seen
    body = Heartbeat(counter, "boot", seen, busy=busy, idle=idle)
    entry = Entry(counter, "", new_id(fleet.clock, fleet.rng), fleet.clock.now(), body)
    write_heartbeat(fleet.memory, vm, entry, fleet.desk(f"vm:{vm}").signer)  # type: ignore[arg-type]


def a_warm_vm(fleet: Fleet) -> str:
    """A VM whose window has just ended by what its agent says: whoever looks at it now may take it, or end it."""
    vm = fleet.vm(JOB, keep_warm=WINDOW)
    beat(fleet, vm, 2, idle=WINDOW + IDLE_MARGIN + 1)
    return vm


def drain(deck: Deck, vm: str) -> bool:
    """What the agent does when its window has ended."""
    writer = VmLedger(deck.desk, vm)
    writer.refresh()
    return writer.drain("no work", jobs=1)


@dataclass
class Outcome:
    """What a race came to."""

    taken: str | None
    drained: bool
    winner: str


def judge(fleet: Fleet, vm: str, taken: str | None, *, drained: bool, client_died: bool = False) -> Outcome:
    """Exactly one may have won, and what is there must be what the winner wants."""
    fold = fleet.ledger(vm).fold
    given = OTHER_JOB in fold.jobs
    assert client_died or given is (taken == vm), "a client was told what the journal does not say"
    assert taken in (None, vm)
    assert given is not (fold.drain is not None or fold.delete is not None), "not exactly one of them has won"
    if given:
        assert vm in fleet.running, "it was killed under its job"
    elif fold.delete is not None and fold.gone is not None:
        assert vm not in fleet.running
    assert not drained or fold.drain is not None
    return Outcome(taken, drained, "client" if given else "agent" if fold.drain is not None else "reaper")


def clear_away(fleet: Fleet, vm: str, outcome: Outcome, reapers: list[Reaper]) -> None:
    """The job goes on under the eyes of both reapers, ends, and the VM is gone with it."""
    if outcome.winner == "client":
        beat(fleet, vm, 3, busy="its job")
        sweep_all(reapers)
        assert vm in fleet.running, "it was killed under its job"
        beat(fleet, vm, 4, idle=IDLE_MARGIN + 1)
    sweep_all(reapers)
    sweep_all(reapers)
    assert fleet.running == fleet.indexed == set()


def sweep_all(reapers: list[Reaper]) -> None:
    for reaper in reapers:
        reaper.sweep(["fake"], dry_run=False, everything=False, on_stage=lambda _: None)


# --- threads over a directory ---


class Start:
    """Lets a party begin when another one has made a number of calls, so that they meet at every place in turn.

    The other one stands still until it has begun: on a busy computer it would be done before that.
    """

    def __init__(self, calls: int) -> None:
        self._left = calls
        self._open, self._begun = threading.Event(), threading.Event()

    def count(self) -> None:
        """For the one party that makes the calls."""
        self._left -= 1
        if self._left <= 0:
            self._open.set()
            assert self._begun.wait(PATIENCE)

    def wait(self) -> None:
        assert self._open.wait(PATIENCE)
        self._begun.set()

    def let_go(self) -> None:
        self._open.set()


class OneAtATime:
    """The cloud in memory is made for one thread at a time."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            with self._lock:
                answer = found(*args, **options)
                return iter(list(answer)) if isinstance(answer, Iterator) else answer

        return call


def a_race(fleet: Fleet, pool: ThreadPoolExecutor, rng: random.Random, *, agent: bool) -> Outcome:
    vm = a_warm_vm(fleet)
    # Where the reaper, whose pass is the longest, is when the others begin.
    client_waits, agent_waits, other_waits = (Start(rng.randint(0, 14)) for _ in range(3))
    starts = (client_waits, other_waits, *([agent_waits] if agent else []))

    def ahead() -> None:
        for start in starts:
            start.count()

    def begun(start: Start, act: Callable[[], Any]) -> Any:
        start.wait()
        return act()

    reapers = [Reaper(deck_of(fleet, ahead), 120.0), Reaper(deck_of(fleet, lambda: None), 120.0)]
    parties = [
        pool.submit(lambda: sweep_all(reapers[:1])),
        pool.submit(begun, other_waits, lambda: sweep_all(reapers[1:])),
        pool.submit(begun, client_waits, lambda: take_warm(deck_of(fleet, lambda: None), ORDER)),
    ]
    if agent:
        leave = replace(fleet.deck, desk=fleet.desk(f"vm:{vm}"))
        parties.append(pool.submit(begun, agent_waits, lambda: drain(leave, vm)))
    parties[0].add_done_callback(lambda _: [start.let_go() for start in starts])
    found = [party.result(PATIENCE) for party in parties]
    outcome = judge(fleet, vm, found[2], drained=bool(found[3]) if agent else False)
    clear_away(fleet, vm, outcome, reapers)
    return outcome


@pytest.mark.timeout(600)
def test_of_two_reapers_and_a_client_at_once_exactly_one_has_the_vm(tmp_path: Path, rng: random.Random) -> None:
    fleet = Fleet(tmp_path)
    fleet.memory = fleet.store = DirectoryStore(tmp_path / "store", fsync=False)  # type: ignore[assignment]
    fleet.cloud = OneAtATime(fleet.cloud)  # type: ignore[assignment]
    fleet.deck = replace(fleet.deck, desk=fleet.desk())
    won: Counter[str] = Counter()
    with ThreadPoolExecutor(4) as pool:
        for number in range(200):
            won[a_race(fleet, pool, rng, agent=number % 2 == 1).winner] += 1
    assert won.total() == 200
    assert min(won["client"], won["reaper"]) >= 10, f"they never really met: {won}"


# --- every request of everybody in an order that a seed draws ---


class Party:
    """One process, which stops at each of its calls until it is its turn."""

    def __init__(self, name: str, act: Callable[[], Any], dies_at: int) -> None:
        self.name = name
        self.result: Any = None
        self.calls = 0
        self.died = False
        self._dies_at = dies_at
        self._act = act
        self._thread = greenlet(self._run)

    def _run(self) -> None:
        self.result = self._act()

    def step(self) -> bool:
        """Go on to the next call; whether there is anything left to do."""
        self.calls += 1
        if self.calls == self._dies_at:
            self._thread.throw(GreenletExit)
            self.died = True
            return False
        self._thread.switch()
        return not self._thread.dead


def pause() -> None:
    """A party hands over before its next call. Outside of a race nobody waits."""
    parent = getcurrent().parent
    if parent is not None:
        parent.switch()


def interleave(fleet: Fleet, vm: str, rng: random.Random) -> tuple[Outcome, list[Reaper], bool]:
    reapers = [Reaper(deck_of(fleet, pause), 120.0) for _ in range(2)]
    leave = replace(fleet.deck, desk=replace(fleet.desk(f"vm:{vm}"), store=Watched(fleet.memory, pause)))
    acts: list[tuple[str, Callable[[], Any]]] = [
        ("reaper", lambda: sweep_all(reapers[:1])),
        ("other", lambda: sweep_all(reapers[1:])),
        ("client", lambda: take_warm(deck_of(fleet, pause), ORDER)),
    ]
    if rng.random() < 0.5:
        acts.append(("agent", lambda: drain(leave, vm)))
    doomed = rng.choice(["", "", "reaper", "other", "client"])
    parties = [Party(name, act, rng.randint(2, 20) if name == doomed else 0) for name, act in acts]
    # Some are slow: what a reaper decided long ago must not count any more.
    weights = {party.name: rng.choice([1, 1, 4, 16]) for party in parties}
    going = list(parties)
    while going:
        party = rng.choices(going, [weights[each.name] for each in going])[0]
        if not party.step():
            going.remove(party)
    by_name = {party.name: party for party in parties}
    agent = by_name.get("agent")
    client = by_name["client"]
    fold = fleet.ledger(vm).fold
    undecided = OTHER_JOB not in fold.jobs and fold.drain is None and fold.delete is None
    if undecided:
        # Whoever would have decided it was killed before; the next pass does.
        assert any(party.died for party in parties)
        sweep_all(reapers)
    outcome = judge(fleet, vm, client.result, drained=bool(agent and agent.result), client_died=client.died)
    return outcome, reapers, any(party.died for party in parties)


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.slow) for first in (250, 500, 750))])
def test_whatever_the_order_of_all_requests_exactly_one_has_the_vm(tmp_path: Path, first: int) -> None:
    won: Counter[str] = Counter()
    for seed in range(first, first + 250):
        rng, fleet = random.Random(seed), Fleet(tmp_path / str(seed))
        vm = a_warm_vm(fleet)
        try:
            outcome, reapers, died = interleave(fleet, vm, rng)
            clear_away(fleet, vm, outcome, reapers)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        won[outcome.winner] += 1
        won["died"] += died
    assert min(won[each] for each in ("client", "reaper", "agent", "died")) >= 10, f"they never really met: {won}"


# --- two clients ---

THIRD_JOB = an_id("m")


def two_take(fleet: Fleet, rng: random.Random) -> list[Party]:
    orders = [replace(ORDER, job=job, keep_warm=rng.choice([0.0, WINDOW])) for job in (OTHER_JOB, THIRD_JOB)]
    parties = [
        Party(order.job, lambda order=order: take_warm(deck_of(fleet, pause), order), 0)  # type: ignore[misc]
        for order in orders
    ]
    going, weights = list(parties), {party.name: rng.choice([1, 1, 4, 16]) for party in parties}
    while going:
        party = rng.choices(going, [weights[each.name] for each in going])[0]
        if not party.step():
            going.remove(party)
    return parties


def test_of_two_clients_that_want_the_one_warm_vm_exactly_one_gets_it(tmp_path: Path) -> None:
    """The other one's job must not stand in line behind a job that may take hours."""
    won: Counter[str] = Counter()
    for seed in range(300):
        rng, fleet = random.Random(seed), Fleet(tmp_path / str(seed))
        vm = fleet.vm(JOB, keep_warm=WINDOW)
        beat(fleet, vm, 2)
        parties = two_take(fleet, rng)
        jobs = fleet.ledger(vm).fold.jobs
        assert len(jobs) == 2, f"seed {seed}: it has to do {jobs}"
        assert [party.result for party in parties if party.name == jobs[1]] == [vm]
        assert [party.result for party in parties if party.name != jobs[1]] == [None]
        won[jobs[1]] += 1
    assert min(won[OTHER_JOB], won[THIRD_JOB]) >= 30, f"they never really met: {won}"


def test_a_vm_that_does_not_know_yet_that_it_has_a_job_does_not_rest(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    vm = fleet.vm(JOB, keep_warm=WINDOW)
    beat(fleet, vm, 2)
    order = replace(ORDER, keep_warm=WINDOW)
    assert take_warm(fleet.deck, order) == vm
    # Its agent beats four times a minute, and looks at the journal now and then.
    assert take_warm(fleet.deck, replace(order, job=THIRD_JOB)) is None
    beat(fleet, vm, 3, busy="its job")
    assert take_warm(fleet.deck, replace(order, job=THIRD_JOB)) is None
    beat(fleet, vm, 4)
    # What is no job does not keep it from resting, whether or not its agent has read it.
    assert VmLedger(fleet.desk(), vm).stay(fleet.clock.now() + 1000)
    assert take_warm(fleet.deck, replace(order, job=THIRD_JOB)) == vm
