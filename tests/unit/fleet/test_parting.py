"""A person who leaves a job of one machine while the machine is made, and the process that goes on then."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.unit.core.world import JOB
from tests.unit.fleet.test_failover import WayIn
from tests.unit.fleet.test_growing import World
from vmrun import attending
from vmrun.client import REVIVE_AFTER, Client
from vmrun.core.ledger import JobLedger
from vmrun.core.records import Final, Hold
from vmrun.fleet import attempt, parting
from vmrun.fleet.retire import WATCH
from vmrun.settings import load_settings


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
