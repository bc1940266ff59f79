"""When whoever watches a job looks after its machines: counted in looks, on a clock that stands still in between."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.unit.core.world import DEPLOYMENT, JOB, ManualClock, job_spec
from tests.unit.fleet.test_client import OwnClient
from tests.unit.fleet.world import Fleet
from vmrun.client import REVIVE_AFTER
from vmrun.core.clouds import Market, Need
from vmrun.core.errors import CapacityError
from vmrun.core.ledger import JobLedger
from vmrun.core.model import JobSpec
from vmrun.core.records import Final, Submit
from vmrun.fleet import lookout
from vmrun.fleet.lookout import AGAIN_FIRST, AGAIN_FOR, AGAIN_LONGEST, LEFT, ORDINARY, SPOT, Again, Lookout
from vmrun.handle import LONGEST, JobHandle

MARKETS = [(Market.on_demand, ORDINARY), (Market.spot, SPOT), (Market.spot_with_fallback, SPOT)]
MINUTE = 60.0


class Watched(OwnClient):
    """Gets machines, or cannot; says when it tried."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        self.fleet = fleet
        self.tried: list[float] = []
        self.errors: list[CapacityError] = []

    def polls(self) -> tuple[float, float]:
        return 0.2, 0.5

    def bring_up(self, job: str, on_stage: object = None) -> str:
        self.tried.append(self.fleet.clock.now())
        if self.errors:
            raise self.errors.pop(0)
        return self.fleet.vm(job)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def spec_of(market: Market) -> JobSpec:
    return dataclasses.replace(job_spec(tasks=4), need=Need(market=market))


def submitted(fleet: Fleet, market: Market) -> JobLedger:
    ledger = JobLedger(fleet.desk(), JOB)
    assert ledger.submit(Submit(JOB, spec_of(market), DEPLOYMENT))
    fleet.clock.sleep(REVIVE_AFTER + 1)
    return ledger


def stockout() -> CapacityError:
    error = CapacityError("no machine was to be had")
    error.data["tried"] = [{}]
    return error


@pytest.mark.parametrize(("market", "pause"), MARKETS)
def test_a_loss_without_a_word_is_answered_by_the_first_look_after_it(
    fleet: Fleet, market: Market, pause: float
) -> None:
    submitted(fleet, market)
    client, vm = Watched(fleet), fleet.vm(JOB)
    handle = JobHandle(client, JOB)
    handle.expect(vm)
    snapshots, began = handle.watch(output=False), fleet.clock.now()
    # Given a machine that works, and is asked after so many times a minute and no more
    while fleet.clock.now() < began + MINUTE:
        next(snapshots)
    asked = sum(1 for call in fleet.cloud.calls if call.verb == "get")
    assert MINUTE / (pause + LONGEST) - 1 <= asked <= MINUTE / pause
    assert client.tried == []
    # When it vanishes
    (machine,) = fleet.cloud.alive()
    fleet.cloud.take_away(machine.id)
    lost_at, before = fleet.clock.now(), sum(1 for call in fleet.cloud.calls if call.verb == "get")
    while not client.tried:
        next(snapshots)
    # Then one look later there is another one
    assert client.tried[0] - lost_at <= pause + LONGEST
    assert sum(1 for call in fleet.cloud.calls if call.verb == "get") - before <= 2


def test_a_machine_that_says_that_it_leaves_is_replaced_at_the_next_look_at_the_store(fleet: Fleet) -> None:
    submitted(fleet, Market.spot)
    client, vm = Watched(fleet), fleet.vm(JOB)
    handle = JobHandle(client, JOB)
    handle.expect(vm)
    snapshots = handle.watch(output=False)
    next(snapshots)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    drained_at, asked = fleet.clock.now(), len(fleet.cloud.calls)
    while not client.tried:
        next(snapshots)
    assert client.tried[0] - drained_at <= LONGEST + 0.01
    # No cloud need say so: it is asked to delete what is left, which ran until then
    assert "delete" in [call.verb for call in list(fleet.cloud.calls)[asked:]]


def test_a_watcher_searches_again_for_a_machine_that_was_not_to_be_had(fleet: Fleet) -> None:
    ledger = submitted(fleet, Market.spot)
    client, vm = Watched(fleet), fleet.vm(JOB)
    client.errors = [stockout() for _ in range(3)]
    handle = JobHandle(client, JOB)
    handle.expect(vm)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    said = []
    for snapshot in handle.watch(output=False):
        said += snapshot.news
        if len(client.tried) == 4:
            ledger.finish(Final("done", 4, 0))
    gaps = [later - earlier for earlier, later in zip(client.tried, client.tried[1:], strict=False)]
    assert gaps == [pytest.approx(AGAIN_FIRST * 2**at, abs=LONGEST + 0.1) for at in range(3)]
    assert said == [f"no machine was to be had; searching again in {text}" for text in ("15s", "30s", "1m 00s")]


def test_whoever_waits_for_a_job_that_lost_its_machine_searches_again_too(fleet: Fleet) -> None:
    ledger = submitted(fleet, Market.spot)
    client, vm = Watched(fleet), fleet.vm(JOB)
    client.errors = [stockout()]
    handle = JobHandle(client, JOB)
    handle.expect(vm)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    with pytest.raises(TimeoutError):
        handle.wait(AGAIN_FIRST / 2)
    assert len(client.tried) == 1
    with pytest.raises(TimeoutError):
        handle.wait(AGAIN_FIRST * 2)
    assert len(client.tried) == 2
    ledger.finish(Final("done", 4, 0))
    assert handle.wait().tasks.total == 4


def test_a_watcher_does_not_search_for_ever_nor_where_nothing_can_change(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "AGAIN_FOR", 120.0)
    submitted(fleet, Market.spot)
    client, vm = Watched(fleet), fleet.vm(JOB)
    assert fleet.ledger(vm).drain("its cloud takes it back", jobs=1)
    client.errors = [CapacityError("nothing on fake fits")]
    handle = JobHandle(client, JOB)
    handle.expect(vm)
    with pytest.raises(CapacityError, match="nothing on fake fits"):
        list(handle.watch(output=False))
    client.errors, client.tried, began = [stockout() for _ in range(1000)], [], fleet.clock.now()
    handle = JobHandle(client, JOB)
    handle.expect(vm)
    with pytest.raises(CapacityError, match="no machine was to be had"):
        list(handle.watch(output=False))
    # After 15, 30 and 60 seconds; another 120 would be too long
    assert fleet.clock.now() - began == pytest.approx(105.0, abs=2.0)
    assert len(client.tried) == 4


def test_a_new_loss_begins_with_a_short_pause_again() -> None:
    clock, spec = ManualClock(), spec_of(Market.spot)
    watch = Lookout(clock)
    assert not watch.due(spec, lost=False)
    assert watch.due(spec, lost=True)
    for _ in range(4):
        assert watch.again.missed()
    clock.sleep(AGAIN_FIRST)
    assert not watch.due(spec, lost=True)
    # When it has a machine in between
    watch.looked()
    assert not watch.due(spec, lost=False)
    assert watch.due(spec, lost=True)
    assert watch.again.missed()
    assert watch.again.seconds == AGAIN_FIRST


def test_while_another_client_sees_to_it_a_watcher_looks_every_second() -> None:
    clock, spec = ManualClock(), spec_of(Market.on_demand)
    watch = Lookout(clock)
    assert watch.due(spec, lost=True)
    watch.looked()
    assert not watch.due(spec, lost=True)
    clock.sleep(LEFT)
    assert watch.due(spec, lost=True)


def test_searches_are_bounded_in_time() -> None:
    clock = ManualClock()
    again, searches, began = Again(clock), 0, clock.monotonic()
    assert again.due
    while again.missed():
        clock.sleep(again.seconds)
        assert again.due
        searches += 1
    assert began + AGAIN_FOR - AGAIN_LONGEST <= clock.monotonic() <= began + AGAIN_FOR
    assert searches <= 5 + AGAIN_FOR / AGAIN_LONGEST
