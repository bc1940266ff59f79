"""Docker machines in which neither agent nor timer acts: what a reaper, and what a person, makes of them.

The client is the command line, killed in its phase. Agent and timer are stopped inside, or kept from a power-off.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.clouds.double import Inventory
from tests.nets.conftest import OpenBooted
from tests.nets.flights import KILL_AGENT, NO_POWER_OFF, STOP_TIMER, Flight
from tests.nets.matrix import BOOTED, PHASES, SERVED, UNSERVED, cell, shown
from tests.nets.moved_clock import MovedClock
from tests.nets.worlds import World
from tests.support.shell import until
from vmrun.client import Client
from vmrun.fleet.deck import Session
from vmrun.reaper.observing import CONTEST
from vmrun.reaper.policies import BOOT_MARGIN, ORPHAN_GRACE
from vmrun.watch.observe import vm_ids

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

#: Clients and machines that start at the same time.
AT_ONCE = 4
#: Seconds between passes of the reaper, on its own clock, and the passes that the page grants it.
PASS, PASSES = 60.0, 3
#: Seconds for which a warm machine would stay: longer than anybody waits.
WINDOW = 3600.0


@pytest.fixture(params=shown("reaper", BOOTED))
def world(request: pytest.FixtureRequest, open_booted: OpenBooted) -> World:
    return open_booted(request.param)


def forsaken(world: World, phase: str) -> Flight:
    """A flight whose machine does nothing about its end, ever."""
    if phase in UNSERVED:
        return Flight(world, phase, late=STOP_TIMER)
    if phase == "downloading":
        return Flight(world, phase, early=STOP_TIMER + NO_POWER_OFF)
    return Flight(world, phase, early=STOP_TIMER, late=KILL_AGENT, window=WINDOW)


def depart(world: World, phases: tuple[str, ...]) -> list[Flight]:
    """The flights of these phases, each with its machine on its own."""
    flights = [forsaken(world, phase) for phase in phases]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(Flight.run, flights))
    world.index.let_go()
    for flight in flights:
        if flight.phase == "downloading":
            # Nothing keeps its agent from saying so, which it does a moment after the end of the job.
            until(partial(has_drained, flight), what="the agent has nothing more to do")
    assert not [flight.phase for flight in flights if flight.is_gone()]
    return flights


def has_drained(flight: Flight) -> bool:
    return flight.latest().drain is not None


def settled(client: Client, flights: list[Flight], before: Inventory) -> None:
    """Nothing is left in the books, nothing is to be watched, and no key lies about."""
    for flight in flights:
        flight.check_nothing_is_left()
        fold = flight.latest()
        assert fold.gone is not None, flight.phase
        assert fold.intent is not None
        assert not Session.of(client._wiring.deck, fold.intent.vm).directory.exists(), flight.phase
    assert vm_ids(client.desk) == []
    assert flights[0].world.place.inventory() == before


def about(flight: Flight, said: list[str]) -> list[str]:
    """What a reaper said of the flight's machine, where it is not what it said the last time."""
    assert flight.fold.intent is not None
    return list(dict.fromkeys(line for line in said if flight.fold.intent.vm in line))


@pytest.mark.parametrize("phases", [UNSERVED, SERVED], ids=["unserved", "served"])
def test_the_reaper_alone(world: World, phases: tuple[str, ...]) -> None:
    before = world.place.inventory()
    flights = depart(world, phases)
    clock = MovedClock()
    client = world.client_by(clock)
    bounds = {
        "boot_grace": flights[0].boot_grace + BOOT_MARGIN + PASSES * PASS,
        "dead_after and its contest": client._wiring.timings(world.on).dead_after + CONTEST + PASSES * PASS,
        "one pass": PASS,
    }
    said: list[str] = []
    began = clock.now()
    flying = flights
    while flying:
        said += [f"{verdict.vm} {verdict.policy}: {verdict.reason}" for verdict in client.reap(on_stage=said.append)]
        flying = [flight for flight in flying if not flight.is_gone()]
        for flight in flying:
            bound = bounds[cell(world.on, "reaper", flight.phase).within]
            assert clock.now() - began < bound, f"{flight.phase}: {about(flight, said)}"
        clock.ahead += PASS
    client.reap()
    settled(client, flights, before)
    by = {str(fold.delete and fold.delete.by) for fold in (flight.latest() for flight in flights)}
    assert by == {"reaper"}


def test_a_person_alone(world: World) -> None:
    """By `vmrun reap --all`, once, whatever phase each client died in."""
    before = world.place.inventory()
    flights = depart(world, PHASES)
    told = world.told().ask("reap", "--all", "--yes")
    said = [str(verdict) for verdict in told["verdicts"]]
    assert {flight.phase: about(flight, said) for flight in flights if not flight.is_gone()} == {}
    assert {verdict["policy"] for verdict in told["verdicts"]} == {"all"}
    settled(world.client, flights, before)


def test_a_person_who_removes_the_containers(world: World) -> None:
    """With `docker rm --force`; what vmrun keeps of them goes with the next passes."""
    before = world.place.inventory()
    flights = depart(world, ("intent", "created", "running"))
    for flight in flights:
        world.place.delete(flight.machine)
    clock = MovedClock()
    client = world.client_by(clock)
    clock.ahead += flights[0].boot_grace + ORPHAN_GRACE + PASS
    client.reap()
    settled(client, flights, before)
