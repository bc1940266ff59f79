"""Machines taken, made and given back, over a cloud and a store in memory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.core.world import DEPLOYMENT, JOB, OTHER_JOB, VM, an_id, intent, ready
from tests.unit.fleet.world import Fleet
from vmrun.core.clouds import Capabilities, CloudError, Fault, Need
from vmrun.core.errors import CapacityError, Denied, Unreachable, UsageError
from vmrun.core.folds import VmFold
from vmrun.core.hosts import Completed
from vmrun.core.money import spent_on
from vmrun.core.records import Delete, Drain
from vmrun.fleet import attempt as module
from vmrun.fleet.bring_up import bring_up
from vmrun.fleet.matching import MARGIN, Waiting, best_first, fits
from vmrun.fleet.order import Order, Timings
from vmrun.fleet.release import release
from vmrun.fleet.retire import close_if_gone, retire
from vmrun.fleet.ssh import POWER_OFF, SshBringUp, ending
from vmrun.fleet.warm import take_warm
from vmrun.machine import layout

THIRD = an_id("t")
NOW = 1_700_000_000.0
ORDER = Order(job=OTHER_JOB, on="fake", need=Need(), python="3.11")


def fold(*, python: str = "3.11", uv: bool = False, host: str = "10.0.0.1", **changes: Any) -> VmFold:
    known = {key: changes.pop(key) for key in tuple(changes) if key in ("hard_deadline", "on", "disk")}
    wanted = dataclasses.replace(intent(VM), **{"on": "fake", "hard_deadline": NOW + 3600, **known})
    let_in = dataclasses.replace(ready(VM), python=python, uv=uv, host=host)
    return dataclasses.replace(VmFold(intent=wanted, ready=let_in, jobs=[JOB], keep_warm=60.0), **changes)


CASES: list[tuple[str, VmFold, dict[str, Any], bool]] = [
    ("warm", fold(), {}, True),
    ("not asked to stay", fold(keep_warm=0.0), {}, False),
    ("not let in", fold(ready=None), {}, False),
    ("draining", fold(drain=Drain("no work")), {}, False),
    ("condemned", fold(delete=Delete("why", "client")), {}, False),
    ("suspected", fold(suspected=True), {}, False),
    ("another cloud", fold(on="ec2"), {}, False),
    ("at its end", fold(hard_deadline=NOW + MARGIN), {}, False),
    ("too small", fold(), {"need": Need(cpus=129)}, False),
    ("too little memory", fold(), {"need": Need(memory=10**13)}, False),
    ("too little disk", fold(), {"need": Need(disk=10**9)}, False),
    ("enough disk", fold(disk=10**9), {"need": Need(disk=10**9)}, True),
    ("another arch", fold(), {"need": Need(arch="arm64")}, False),
    ("another type", fold(), {"need": Need(instance_type="small")}, False),
    ("another region", fold(), {"need": Need(region="there")}, False),
    ("the same zone", fold(), {"need": Need(region="here", zone="here-1")}, True),
    ("packages, without uv", fold(), {"needs_packages": True}, False),
    ("packages, with uv", fold(uv=True), {"needs_packages": True}, True),
    ("another Python, without uv", fold(), {"python": "3.13"}, False),
    ("another Python, with uv", fold(uv=True), {"python": "3.13"}, True),
    ("another Python, here", fold(uv=True, host=""), {"python": "3.13"}, False),
    ("no Python", fold(), {"python": ""}, True),
]


@pytest.mark.parametrize(("vm", "changes", "taken"), [pytest.param(*case, id=name) for name, *case in CASES])
def test_a_warm_vm_fits_or_does_not(vm: VmFold, changes: dict[str, Any], taken: bool) -> None:
    assert fits(vm, dataclasses.replace(ORDER, **changes), NOW) is taken


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_of_two_orders_one_takes_the_warm_vm_and_a_busy_one_is_left_alone(fleet: Fleet) -> None:
    busy, warm = fleet.vm(JOB, keep_warm=60.0), fleet.vm(JOB, keep_warm=60.0)
    fleet.beat(busy, 2, busy="job")
    assert take_warm(fleet.deck, ORDER) == warm
    fleet.beat(warm, 3, busy="job")
    assert take_warm(fleet.deck, dataclasses.replace(ORDER, job=JOB)) is None
    assert fleet.ledger(warm).fold.jobs == [JOB, OTHER_JOB]


def test_a_vm_that_was_given_another_job_is_not_retired_with_the_first(fleet: Fleet) -> None:
    vm = fleet.vm(JOB, keep_warm=60.0)
    assert fleet.ledger(vm).assign(OTHER_JOB, 0.0)
    assert not retire(fleet.deck, vm, "job ended", lambda _: None, jobs=1)
    assert fleet.running == {vm}
    assert fleet.ledger(vm).fold.delete is None
    assert retire(fleet.deck, vm, "job ended", lambda _: None, jobs=2)
    assert fleet.running == fleet.indexed == set()


def test_a_vm_that_somebody_just_took_is_not_released(fleet: Fleet) -> None:
    vm = fleet.vm(JOB, keep_warm=60.0)
    fleet.beat(vm, 2)
    # Given a job that its agent has not read of yet
    assert take_warm(fleet.deck, ORDER) == vm
    with pytest.raises(UsageError, match=f"works on job {OTHER_JOB}"):
        release(fleet.deck, vm, lambda _: None)
    fleet.beat(vm, 3, busy="its job")
    with pytest.raises(UsageError, match="works on job"):
        release(fleet.deck, vm, lambda _: None)
    assert fleet.running == {vm}
    assert not fleet.ledger(vm).fold.ended
    # At rest again, it may go
    fleet.beat(vm, 4)
    assert release(fleet.deck, vm, lambda _: None).gone
    assert fleet.running == set()


def test_its_own_leave_does_not_keep_a_vm_from_being_retired(fleet: Fleet) -> None:
    vm = fleet.vm(JOB)
    assert fleet.ledger(vm).drain("no work", jobs=1)
    assert retire(fleet.deck, vm, "job ended", lambda _: None, jobs=1)
    assert fleet.indexed == set()


def test_retiring_survives_a_cloud_that_fails(fleet: Fleet) -> None:
    vm = fleet.vm(JOB)
    said: list[str] = []
    fleet.cloud.fail("delete", Fault.permission)
    assert not retire(fleet.deck, vm, "job ended", said.append)
    assert "vmrun reap" in said[-1]
    assert retire(fleet.deck, vm, "job ended", said.append)
    assert retire(fleet.deck, vm, "job ended", said.append)
    assert fleet.ledger(vm).fold.gone is not None


@pytest.mark.parametrize("fault", [Fault.unavailable, Fault.throttle])
def test_a_deletion_that_a_busy_cloud_does_not_take_is_sent_again(fleet: Fleet, fault: Fault) -> None:
    vm = fleet.vm(JOB)
    fleet.cloud.fail("delete", fault, times=3)
    assert retire(fleet.deck, vm, "job ended", lambda _: None)
    assert fleet.running == set()


def test_a_vm_is_closed_only_when_its_cloud_does_not_have_it(fleet: Fleet) -> None:
    vm = fleet.vm(JOB)
    assert not close_if_gone(fleet.deck, vm)
    (machine,) = fleet.cloud.alive()
    fleet.cloud.take_away(machine.id)
    fleet.clock.sleep(3600)
    assert close_if_gone(fleet.deck, vm)
    assert fleet.ledger(vm).fold.gone is not None
    assert fleet.indexed == set()


def test_a_vm_that_its_cloud_does_not_show_yet_is_not_called_gone(fleet: Fleet) -> None:
    fleet.cloud.capabilities = dataclasses.replace(fleet.cloud.capabilities, settle=60.0)
    fleet.cloud.knobs = dataclasses.replace(fleet.cloud.knobs, appear=(30.0, 30.0))
    # Given a machine that was accepted a moment ago, and that its client makes ready
    vm = fleet.vm(JOB, ready=False)
    (machine,) = fleet.cloud.alive()
    # When somebody else asks after it
    assert not close_if_gone(fleet.deck, vm, leaving=True)
    assert not fleet.ledger(vm).fold.ended
    assert fleet.indexed == {vm}
    fleet.clock.sleep(40)
    assert not close_if_gone(fleet.deck, vm, leaving=True)
    # What is not shown when its cloud has had the time is gone
    fleet.cloud.take_away(machine.id)
    fleet.clock.sleep(30)
    assert close_if_gone(fleet.deck, vm, leaving=True)
    assert fleet.ledger(vm).fold.gone is not None


def test_a_vm_that_was_missed_late_is_paid_for_no_longer_than_it_can_have_lived(fleet: Fleet) -> None:
    vm, began = fleet.vm(JOB), fleet.clock.now()
    fleet.clock.sleep(600)
    fleet.beat(vm, 2, busy="a job")
    (machine,) = fleet.cloud.alive()
    fleet.cloud.take_away(machine.id)
    fleet.clock.sleep(10 * 3600)
    assert close_if_gone(fleet.deck, vm)
    # Its timer would have ended it with its lease, had its cloud not done so
    timings, fold = Timings(), fleet.ledger(vm).fold
    at_most = 600 + timings.lease + timings.deadman_poll + timings.flush_grace
    assert fold.gone_at - began == pytest.approx(at_most, abs=2.0)
    assert spent_on(fold, JOB, fleet.clock.now()) == pytest.approx(at_most / 3600, rel=0.01)
    # One that is missed at once has not lived longer than until then
    other = fleet.vm(JOB)
    (machine,) = fleet.cloud.alive()
    fleet.cloud.take_away(machine.id)
    fleet.clock.sleep(30)
    assert close_if_gone(fleet.deck, other)
    assert fleet.ledger(other).fold.gone_at == fleet.clock.now()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_vm_that_its_cloud_is_ending_is_lost_before_it_is_gone(fleet: Fleet, stopped: bool) -> None:
    vm = fleet.vm(JOB)
    (machine,) = fleet.cloud.alive()
    if stopped:
        fleet.cloud.power_off(machine.id)
    # Given a cloud that takes its time to delete
    fleet.cloud.knobs = dataclasses.replace(fleet.cloud.knobs, vanish=(500.0, 500.0))
    if not stopped:
        fleet.cloud.delete(machine.id)
        assert not close_if_gone(fleet.deck, vm)
    before = fleet.clock.now()
    assert close_if_gone(fleet.deck, vm, leaving=True)
    # Nobody waits for the end of it
    assert fleet.clock.now() - before < 5.0
    assert fleet.ledger(vm).fold.delete is not None
    assert fleet.ledger(vm).fold.gone is None


def test_a_vm_that_is_only_stopped_is_deleted_before_its_job_gets_another(fleet: Fleet) -> None:
    vm = fleet.vm(JOB)
    fleet.cloud.power_off(fleet.cloud.alive()[0].id)
    assert close_if_gone(fleet.deck, vm)
    assert fleet.running == fleet.indexed == set()
    assert fleet.ledger(vm).fold.gone is not None


class TimerHost:
    """A machine that says of its armed timer what time it is there."""

    def __init__(self, now: float, deadline: float) -> None:
        self._said = {"active": "active", "enabled": "enabled", "next_in": 12.5, "now": int(now)}
        self._said |= {"lease": int(now) + 900, "hard_deadline": int(deadline)}

    def run(self, argv: object, **_: object) -> Completed:
        return Completed(0, json.dumps(self._said).encode(), b"")


@pytest.mark.parametrize(("off", "says"), [(0.0, ""), (-3 * 3600.0, "3h 00m behind"), (1200.0, "20m 00s ahead of")])
def test_a_machine_whose_clock_is_wrong_is_not_let_in(fleet: Fleet, off: float, says: str) -> None:
    way, now = SshBringUp(fleet.deck, ORDER, VM, lambda _: None), fleet.clock.now()
    deadline = float(int(now) + 4 * 3600)
    host: Any = TimerHost(now + off, deadline)
    if not says:
        way._check_timer(host, deadline)
        return
    # Its timer, its agent and its leases all go by that clock
    with pytest.raises(Unreachable, match=says) as caught:
        way._check_timer(host, deadline)
    assert "vmrun doctor" in caught.value.hint


def test_a_machine_that_can_delete_itself_does_so_at_its_ordinary_end_too() -> None:
    assert ending(Capabilities()) == ending(Capabilities(poweroff_deletes=True)) == POWER_OFF
    for capabilities in (Capabilities(self_delete="#!/bin/sh\n"), Capabilities(borrowed=True)):
        shell = ending(capabilities)[-1]
        # The judge of the timer runs the program that deletes; a lease that is over is what it judges by
        assert f"> {layout.LEASE}" in shell
        assert layout.DEADMAN_SERVICE in shell


class ReadyAtOnce:
    """A way in that needs no machine."""

    host_key = ""
    error: Exception | None = None

    def __init__(self, *_: object) -> None:
        pass

    def user_data(self, hard_deadline: float, capabilities: object) -> str:
        return f"until {hard_deadline}"

    def make_ready(self, *_: object) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def way_in(monkeypatch: pytest.MonkeyPatch) -> type[ReadyAtOnce]:
    class Own(ReadyAtOnce):
        pass

    monkeypatch.setattr(module, "_way_in", lambda transport: Own)
    return Own


def test_the_next_offer_is_tried_when_one_is_not_to_be_had(fleet: Fleet, way_in: type[ReadyAtOnce]) -> None:
    fleet.cloud.fail("create", Fault.stockout, times=2)
    vm = bring_up(fleet.deck, ORDER, lambda _: None)
    assert fleet.running == {vm}
    # Each attempt was a VM of its own, intended before it was tried, and none but the last one is left
    assert vm in fleet.indexed
    fates = [fleet.ledger(each).fold for each in sorted(fleet.indexed)]
    assert [fold.failed is not None for fold in fates] == [True, True, False]
    assert all(fold.intent is not None for fold in fates)


def test_when_nothing_is_to_be_had_the_error_says_what_was_tried(fleet: Fleet, way_in: type[ReadyAtOnce]) -> None:
    fleet.cloud.fail("create", Fault.quota, times=100)
    with pytest.raises(CapacityError) as caught:
        bring_up(fleet.deck, ORDER, lambda _: None)
    assert "quota in east, west" in caught.value.message
    assert fleet.running == set()
    fleet.cloud.fail("create", Fault.permission)


def test_what_no_other_offer_would_help_is_tried_once(fleet: Fleet, way_in: type[ReadyAtOnce]) -> None:
    fleet.cloud.fail("create", Fault.permission, times=100)
    with pytest.raises(Denied):
        bring_up(fleet.deck, ORDER, lambda _: None)
    assert len(fleet.indexed) == 1


def test_an_instance_that_came_of_a_lost_answer_is_given_back(fleet: Fleet, way_in: type[ReadyAtOnce]) -> None:
    fleet.cloud.fail("create", Fault.unavailable, after=True)
    vm = bring_up(fleet.deck, ORDER, lambda _: None)
    assert fleet.running == {vm}


@pytest.mark.parametrize("error", [CloudError("no"), KeyboardInterrupt(), RuntimeError("a defect")])
def test_a_machine_that_cannot_be_made_ready_is_given_back(
    fleet: Fleet, way_in: type[ReadyAtOnce], error: Exception
) -> None:
    way_in.error = error
    with pytest.raises((CapacityError, KeyboardInterrupt, RuntimeError)):
        bring_up(fleet.deck, ORDER, lambda _: None)
    assert fleet.running == fleet.indexed == set()


def test_an_order_belongs_to_its_deployment(fleet: Fleet, way_in: type[ReadyAtOnce]) -> None:
    vm = bring_up(fleet.deck, ORDER, lambda _: None)
    (machine,) = fleet.cloud.alive()
    assert machine.name == f"vmrun-{DEPLOYMENT}-{vm}"
    fold = fleet.ledger(vm).fold
    assert fold.intent is not None
    assert fold.jobs == [OTHER_JOB]
    assert fold.cloud_id == machine.id


def waiting(vm: str, *, vcpus: int = 2, life: float = 3600.0, environments: set[str] | None = None) -> Waiting:
    found = fold(hard_deadline=NOW + life, environments=environments or set())
    assert found.intent is not None
    found.intent = dataclasses.replace(found.intent, vcpus=vcpus)
    return Waiting(vm, found)


LOCK, OTHER_LOCK = "3.11:aa", "3.11:bb"


@pytest.mark.parametrize(
    ("candidates", "best"),
    [
        pytest.param([waiting("a"), waiting("b", environments={OTHER_LOCK, LOCK})], "b", id="the same environment"),
        pytest.param(
            [waiting("a"), waiting("b", vcpus=128, environments={LOCK})], "b", id="it counts more than the size"
        ),
        pytest.param([waiting("a", vcpus=128), waiting("b", vcpus=4), waiting("c", vcpus=8)], "b", id="the smallest"),
        pytest.param([waiting("a", life=60.0), waiting("b")], "b", id="the longest life"),
        pytest.param([waiting("b"), waiting("a")], "a", id="the oldest"),
    ],
)
def test_of_several_warm_vms_the_best_is_taken(candidates: list[Waiting], best: str) -> None:
    order = dataclasses.replace(ORDER, environment=LOCK, needs_packages=True)
    assert best_first(candidates, order)[0].vm == best
    assert {each.vm for each in best_first(candidates, order)} == {each.vm for each in candidates}


def test_without_packages_no_environment_is_better_than_another() -> None:
    assert best_first([waiting("b", environments={LOCK}), waiting("a")], ORDER)[0].vm == "a"


def test_a_job_takes_the_vm_that_has_its_environment(fleet: Fleet) -> None:
    first, second = fleet.vm(JOB, keep_warm=60.0), fleet.vm(JOB, keep_warm=60.0)
    assert fleet.ledger(second).assign(THIRD, 60.0, 0.0, LOCK)
    fleet.beat(second, 2)
    assert take_warm(fleet.deck, dataclasses.replace(ORDER, environment=LOCK)) == second
    fleet.beat(second, 3)
    assert take_warm(fleet.deck, dataclasses.replace(ORDER, job=an_id("m"), environment=OTHER_LOCK)) == first
    assert fleet.ledger(first).fold.environments == {OTHER_LOCK}
    assert fleet.ledger(second).fold.environments == {LOCK}


def test_a_vm_that_is_to_stay_waits_whatever_its_jobs_say(fleet: Fleet) -> None:
    vm = fleet.vm(JOB)
    assert take_warm(fleet.deck, ORDER) is None
    assert fleet.ledger(vm).stay(fleet.clock.now() + 3600)
    assert take_warm(fleet.deck, ORDER) == vm
    assert fleet.ledger(vm).stay(0.0)
    assert take_warm(fleet.deck, dataclasses.replace(ORDER, job=an_id("m"))) is None
