"""Clouds on which a power-off only stops a machine that may not delete itself: it is stopped, and a reaper's then."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.nets.conftest import OpenBooted
from tests.nets.flights import FLUSH, GRACE, KILL_AGENT, LEASE, POLL, STOP_TIMER, Flight
from tests.nets.matrix import POWERED_OFF
from tests.nets.test_booted import MARGIN
from tests.nets.worlds import World
from tests.support.shell import until
from vmrun.core.clouds import InstanceState

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

#: What a stopped machine keeps: Google's address is a machine's only while it runs.
KEPT = {"gce": ["disk"], "ibm": ["address", "disk"]}


@pytest.fixture(params=[world for world, state in POWERED_OFF.items() if state])
def world(request: pytest.FixtureRequest, open_booted: OpenBooted) -> World:
    return open_booted(request.param, trusted=False)


def test_what_agent_or_timer_stopped_the_next_pass_deletes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world.shell.environment.items():
        monkeypatch.setenv(name, value)
    before = world.place.inventory()
    # Given machines that end under one net each: the timer, the timer, the agent
    flights = [
        Flight(world, "created", boot_grace=GRACE["created"]),
        Flight(world, "running", late=KILL_AGENT),
        Flight(world, "downloading", early=STOP_TIMER),
    ]
    with ThreadPoolExecutor(len(flights)) as pool:
        list(pool.map(Flight.run, flights))
    # Then each is powered off within its bound, and that is all that becomes of it
    for flight in flights:
        until(partial(is_off, flight), bound(flight), f"{flight.phase}: it is off")
        kept = world.place.left(flight.held)
        assert [each.kind for each in kept] == KEPT[world.on], flight.phase
        assert (flight.latest().drain is not None) == (flight.phase == "downloading")
    client = world.client
    listed = list(client._wiring.provisioner(world.on).instances(client.deployment))
    assert [each.state for each in listed] == [InstanceState.stopped] * len(flights)
    # And the next pass of a reaper deletes it, with its disk and its address
    verdicts = world.told().ask("reap")["verdicts"]
    assert [(each["policy"], each["delete"]) for each in verdicts] == [("drained", True)] * len(flights)
    for flight in flights:
        assert flight.is_gone(), flight.phase
        flight.check_nothing_is_left()
        assert flight.latest().gone is not None
    until(lambda: world.place.inventory() == before, 60, "nothing is left")


def is_off(flight: Flight) -> bool:
    return flight.world.place.state(flight.machine) == POWERED_OFF[flight.world.on]


def bound(flight: Flight) -> float:
    """Seconds; the flights before it have been waited for already."""
    return max(flight.boot_grace if flight.phase == "created" else LEASE, LEASE) + POLL + FLUSH + MARGIN
