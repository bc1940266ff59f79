"""Waiting for where a new machine answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.unit.core.world import ManualClock
from vmrun.core.clouds import Address, Capabilities, CloudError, Fault, Instance, InstanceState, Provisioner
from vmrun.core.errors import Unreachable
from vmrun.fleet.address import wait_for_address

ADDRESS = Address("192.0.2.1")
PENDING = Instance("region/id", "vmrun-o-v", "cloud", InstanceState.pending, address=ADDRESS)
RUNNING = replace(PENDING, state=InstanceState.running)
NO_ROOM = replace(
    PENDING, state=InstanceState.stopped, fault=Fault.stockout, reason="cannot_start_capacity: there is no room"
)


class Shown:
    """A cloud that shows its one machine as these, one after the other."""

    capabilities = Capabilities(settle=0.0)

    def __init__(self, *views: Instance) -> None:
        self._views: Iterator[Instance] = iter(views)
        self._last = views[0]

    def get(self, id: str) -> Instance:
        self._last = next(self._views, self._last)
        return self._last


def wait(*views: Instance, clock: ManualClock | None = None) -> Any:
    return wait_for_address(cast(Provisioner, Shown(*views)), PENDING, clock or ManualClock(), 300.0)


def test_a_machine_that_has_its_address_before_it_runs_is_waited_for() -> None:
    clock = ManualClock()
    began = clock.monotonic()

    assert wait(PENDING, PENDING, RUNNING, clock=clock) == ADDRESS
    assert clock.monotonic() > began


def test_one_that_fails_with_its_address_fails_at_once_and_says_why() -> None:
    clock = ManualClock()
    began = clock.monotonic()

    with pytest.raises(CloudError, match="there is no room") as caught:
        wait(PENDING, NO_ROOM, clock=clock)

    assert (caught.value.fault, caught.value.cloud_code) == (Fault.stockout, "cannot_start_capacity")
    assert clock.monotonic() - began < 5


@pytest.mark.parametrize("shown", [PENDING, replace(RUNNING, address=None)], ids=["pending", "without an address"])
def test_no_longer_than_that(shown: Instance) -> None:
    clock = ManualClock()
    began = clock.monotonic()

    with pytest.raises(Unreachable, match="within 300 s"):
        wait(shown, clock=clock)

    assert 300 <= clock.monotonic() - began < 310
