"""A person who leaves a job of one machine while the machine is made, and the process that goes on then."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.unit.core.world import JOB
from tests.unit.fleet.test_failover import WayIn
from tests.unit.fleet.test_growing import World, interrupted_by
from vmrun import attending
from vmrun.client import REVIVE_AFTER, Client
from vmrun.core.clouds import Fault
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.records import Final, Hold
from vmrun.fleet import attempt, parting
from vmrun.fleet.retire import WATCH
from vmrun.settings import load_settings
from vmrun.watch.observe import JobObserver


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ("troubles", "acts", "orders"):
        monkeypatch.setattr(WayIn, name, [], raising=False)
    monkeypatch.setattr(attempt, "_way_in", lambda transport: WayIn)
    return World(tmp_path)


def slow_to_end(world: World) -> None:
    """Have a machine that is deleted be shown for a minute longer."""
    world.cloud.knobs = dataclasses.replace(world.cloud.knobs, vanish=(60.0, 60.0))


def handed(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    left: list[str] = []
    monkeypatch.setattr(client.fleets, "_go_on", left.append)
    return left


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def go_on(world: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process in the background does."""
    monkeypatch.setattr(attending, "Client", lambda settings: client)
    monkeypatch.setattr(client, "handle", lambda job: type("Handle", (), {"id": job}))
    attending.bring_up_job(load_settings(environ={"HOME": str(world.folder)}, cwd=world.folder), JOB)


def test_whoever_leaves_does_not_wait_until_the_machine_is_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit(on_oom="fail")
    client = world.client()
    left = handed(client, monkeypatch)
    slow_to_end(world)
    WayIn.acts.append(interrupt)
    began = world.clock.now()
    # As in `vmrun wait`, which finds that the job has no machine
    with pytest.raises(KeyboardInterrupt):
        client.revive(JOB)
    assert world.clock.now() - began < 5
    assert left == [JOB]
    (machine,) = world.cloud.machines
    fold = world.ledger(machine.tags["vmrun-vm"]).fold
    assert fold.delete is not None
    assert fold.gone is None
    # The process that goes on gets another one, and sees the first one go
    go_on(world, world.client(), monkeypatch)
    assert len(world.running) == 1
    assert world.intent().vm != machine.tags["vmrun-vm"]
    assert world.ledger(machine.tags["vmrun-vm"]).fold.gone is not None


def test_a_job_that_was_left_as_soon_as_it_was_written_gets_a_machine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(on_oom="fail")
    world.clock.time -= REVIVE_AFTER
    slow_to_end(world)
    WayIn.acts.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.client().bring_up(JOB)
    go_on(world, world.client(), monkeypatch)
    assert len(world.running) == 1


def test_a_fleet_that_was_left_while_its_machines_were_made_gets_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job whose only machine was half made when the person left, and is not gone yet
    world.submit(on_oom="fail", vms=2)
    half = world.vm(JOB, ready=False)
    slow_to_end(world)
    assert world.ledger(half).delete("its client left", "client")
    assert JobObserver(world.desk(), JOB).look().lost
    client, got = world.client(), list[str]()

    def bring_up(job: str, on_stage: object = None) -> str:
        got.append(world.vm(job))
        return got[-1]

    monkeypatch.setattr(client, "bring_up", bring_up)
    go_on(world, client, monkeypatch)
    assert len(got) == 1
    assert world.ledger(half).fold.gone is not None


def test_a_loss_that_somebody_took_on_and_left_is_made_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = next(world.submit(on_oom="fail").refresh().shards())
    client, lost = world.client(), world.vm(JOB)
    left = handed(client, monkeypatch)
    assert ShardLedger(world.desk(f"vm:{lost}"), JOB, plan).claim(lost)
    assert world.ledger(lost).drain("it is broken", jobs=1)
    # As in `vmrun wait`, which gets the job another machine when the person presses Ctrl-C
    WayIn.acts.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.revive(JOB)
    assert left == [JOB]
    go_on(world, world.client(), monkeypatch)
    assert len(world.running) == 1
    assert lost not in world.running


def test_a_job_that_is_attended_does_not_wait_for_a_machine_that_takes_long_to_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(on_oom="grow")
    client = world.client()
    handed(client, monkeypatch)
    slow_to_end(world)
    WayIn.acts.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.revive(JOB)
    (half,) = [machine.tags["vmrun-vm"] for machine in world.cloud.machines]
    left_at, sleep = world.clock.now(), world.clock.sleep

    def passing(seconds: float) -> None:
        sleep(seconds)
        if world.clock.now() > left_at + 300:
            JobLedger(world.desk(), JOB).finish(Final("done", 4, 0))

    monkeypatch.setattr(world.clock, "sleep", passing)
    go_on(world, world.client(), monkeypatch)
    _, other = world.cloud.machines
    assert other.began - left_at < 3 * attending.LOOK_EVERY
    assert world.ledger(half).fold.gone is not None


@pytest.mark.parametrize("held", [False, True])
def test_a_job_that_ends_while_its_machine_is_asked_after_gets_no_other_one(
    world: World, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    world.submit(on_oom="fail", keep_on_failure=600.0)
    client, vm = world.client(), world.vm(JOB)
    is_lost = client._losses.is_lost

    def late(vm: str) -> bool:
        """The agent is done right after the job's journal was read, and right before its own is."""
        JobLedger(world.desk(), JOB).finish(Final("failed", 3, 1) if held else Final("done", 4, 0))
        ledger = world.ledger(vm)
        until = world.clock.now() + 600
        assert ledger.hold(Hold(JOB, until, "task 3 failed", ""), jobs=1) if held else ledger.drain("no work", jobs=1)
        return is_lost(vm)

    monkeypatch.setattr(client._losses, "is_lost", late)
    client.revive(JOB)
    assert [machine.tags["vmrun-vm"] for machine in world.cloud.machines] == [vm]


def test_a_machine_that_is_not_ready_in_vain_is_watched_until_it_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(on_oom="fail")
    slow_to_end(world)

    def broken(_: object) -> None:
        raise RuntimeError("a defect")

    WayIn.acts.append(broken)
    began = world.clock.now()
    with pytest.raises(RuntimeError):
        world.client().bring_up(JOB)
    assert 60 <= world.clock.now() - began < WATCH
    assert world.running == world.indexed == set()


def test_what_others_condemned_is_not_cleared_up(world: World) -> None:
    world.submit(on_oom="fail")
    condemned, ready, other = world.vm(JOB, ready=False), world.vm(JOB), world.vm("", ready=False)
    for vm in (condemned, ready, other):
        assert world.ledger(vm).delete("its client left", "client")
    parting.clear_up(world.deck, JOB, 0.0)
    assert world.running == {ready, other}


def test_a_condemned_machine_counts_as_lost_although_its_cloud_still_has_it(world: World) -> None:
    world.submit(on_oom="fail", vms=2)
    client, vm = world.client(), world.vm(JOB)
    assert JobLedger(world.desk(), JOB).enlist(vm)
    assert client._tend(JOB)
    assert world.ledger(vm).delete("dead: no sign of life for 3m", "reaper")
    assert not client._tend(JOB)


def test_a_fleet_of_which_all_are_held_for_debugging_gets_others(world: World) -> None:
    world.submit(on_oom="fail", vms=2)
    client, vm = world.client(), world.vm(JOB, ready=False)
    assert JobLedger(world.desk(), JOB).enlist(vm)
    assert client._tend(JOB)
    hold = Hold("", world.clock.now() + 3600, "it could not be made ready", "hold on failure")
    assert world.ledger(vm).hold(hold, jobs=1)
    assert not client._tend(JOB)


def test_a_client_that_goes_on_and_leaves_again_hands_over_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit(on_oom="fail")
    client: Any = world.client()
    left = handed(client, monkeypatch)
    for _ in range(2):
        WayIn.acts.append(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.revive(JOB)
        client.fleets.hand_over(JOB)
    assert left == [JOB, JOB]
    JobLedger(world.desk(), JOB).finish(Final("done", 4, 0))
    client.revive(JOB)
    assert left == [JOB, JOB]


def test_a_job_that_was_left_while_it_moved_is_got_a_larger_machine_although_there_is_none_at_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a person who left while a job that outgrew its machine was got the next one
    client, small = world.started()
    handed(client, monkeypatch)
    interrupted_by(world, lambda: interrupt(world), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        client.move(JOB, JobLedger(world.desk(), JOB).refresh())
    began, sleep = world.clock.now(), world.clock.sleep

    def passing(seconds: float) -> None:
        sleep(seconds)
        if world.clock.now() > began + 1000:
            JobLedger(world.desk(), JOB).finish(Final("done", 4, 0))

    monkeypatch.setattr(world.clock, "sleep", passing)
    world.cloud.fail("create", Fault.stockout, times=2)
    # When the process that goes on finds none at first
    go_on(world, world.client(), monkeypatch)
    made = [machine.tags["vmrun-vm"] for machine in world.cloud.machines]
    assert len(made) == 2
    assert made[0] == small
    assert world.ledger(made[1]).fold.ready is not None
    assert world.running == set()
