"""Machines that boot, in each world: what the agent alone, and what the dead-man timer alone, makes of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import pytest

from tests.nets.conftest import OpenBooted
from tests.nets.flights import (
    FLUSH,
    GRACE,
    KILL_AGENT,
    LEASE,
    NO_POWER_OFF,
    POLL,
    STOP_TIMER,
    WINDOW,
    Flight,
)
from tests.nets.matrix import BOOTED, SERVED, UNSERVED, shown
from tests.nets.worlds import World
from tests.support.shell import until

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

#: Clients and machines that start at the same time.
AT_ONCE = 3
#: Seconds beyond a bound for what this computer has to do beside: boot, power off, delete, and all of it loaded.
MARGIN = 90.0


@pytest.fixture(params=shown("timer", BOOTED))
def world(request: pytest.FixtureRequest, open_booted: OpenBooted) -> World:
    return open_booted(request.param)


def fly(flight: Flight, bound: float, starting: Semaphore) -> None:
    with starting:
        flight.run()
    if flight.phase == "environment":
        flight.world.index.let_go()
    flight.watch(bound + MARGIN)


def all_of(world: World, flights: list[tuple[Flight, float]]) -> list[Flight]:
    """Fly them all, some at once; and nothing is left of any of them."""
    before = world.place.inventory()
    starting = Semaphore(AT_ONCE)
    with ThreadPoolExecutor(len(flights)) as pool:
        futures = [pool.submit(fly, *each, starting) for each in flights]
    done, failures = [], []
    for (flight, _), future in zip(flights, futures, strict=True):
        error = future.exception()
        print(f"{world.on} {flight.phase}: {f'{flight.took:.1f} s' if error is None else error}")
        done.append(flight)
        failures += [] if error is None else [f"{flight.phase}: {error}"]
    assert not failures, "\n".join(failures)
    until(lambda: world.place.inventory() == before, 60, "addresses, disks and keys are gone too")
    return done


def test_the_timer_alone(world: World) -> None:
    early = [Flight(world, phase, boot_grace=GRACE[phase]) for phase in reversed(UNSERVED)]
    late = [Flight(world, phase, late=KILL_AGENT) for phase in ("environment", "running")]
    late += [Flight(world, phase, early=NO_POWER_OFF) for phase in ("downloading", "warm")]
    bounds = [(each, each.boot_grace) for each in early] + [(each, WINDOW + LEASE) for each in late]
    done = all_of(world, [(each, bound + POLL + FLUSH) for each, bound in bounds])
    for flight in done:
        fold = flight.latest()
        assert fold.drain is None or flight.early, f"{flight.phase}: it was the agent"
        assert fold.delete is None, f"{flight.phase}: somebody else came by"


def test_the_agent_alone(world: World) -> None:
    flights = [Flight(world, phase, early=STOP_TIMER) for phase in SERVED]
    bounds = {"running": 10.0, "warm": WINDOW}
    done = all_of(world, [(each, bounds.get(each.phase, 0.0)) for each in flights])
    for flight in done:
        fold = flight.latest()
        assert fold.drain is not None, flight.phase
        assert fold.delete is None, f"{flight.phase}: somebody else came by"
