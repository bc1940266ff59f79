"""Machines of paper at each cloud's double, under a clock in hand: what the reaper, a person, and the cloud do alone.

Nothing inside a machine matters to these nets, so nothing is inside: neither agent nor timer, ever.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clouds.double import Inventory
from tests.clouds.mortal import LIFETIME, Nursery, read_once
from tests.clouds.paper import PAPERS
from tests.clouds.test_kills import Cloud, Survivor
from tests.nets import holdings
from tests.nets.matrix import PAPER, PHASES, POWERED_OFF, SERVED, cell, shown
from tests.nets.paper_agent import PaperAgent
from tests.support.shell import until
from vmrun.core.folds import VmFold
from vmrun.core.vm_ledger import VmLedger
from vmrun.provisioners.gce.request import TTL_MARGIN
from vmrun.reaper.observing import CONTEST
from vmrun.reaper.policies import BOOT_MARGIN
from vmrun.watch.observe import vm_ids

#: Seconds between passes of the reaper, and for which it hears nothing of an agent before it suspects it.
PASS, DEAD_AFTER = 60.0, 120.0
WINDOW = 600.0


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="module", params=shown("reaper", PAPER))
def cloud(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery
) -> Iterator[Cloud]:
    """One account for all cells of its cloud: to found one costs more than a cell."""
    made = Cloud(request.param, tmp_path_factory.mktemp("account"), nursery)
    with pytest.MonkeyPatch.context() as patch:
        let_in(made, patch)
        read_once(patch.setattr)
        made.establish()
        yield made
    made.double.close()


def let_in(cloud: Cloud, patch: pytest.MonkeyPatch) -> None:
    """Give this process the account's credentials, which no test has from the first."""
    for key, value in cloud.double.environment().items():
        patch.setenv(key, value)


@pytest.fixture(params=PHASES)
def phase(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def survivor(cloud: Cloud, phase: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Survivor]:
    """Who comes after a client that was killed in the phase; its VM runs and is on its own."""
    let_in(cloud, monkeypatch)
    assert cloud.double.inventory() == cloud.empty
    died = "ready" if phase in SERVED else phase
    deployment = replace(cloud.deployment(), dies=died, keep_warm=WINDOW if phase == "warm" else 0.0)
    code = cloud.nursery.submit(deployment, lambda _: None)
    assert code == -signal.SIGKILL, Path(deployment.folder, "error.txt").read_text()
    found = Survivor(cloud, deployment, f"killed in {phase}")
    if phase in SERVED:
        PaperAgent(found.client, found.vm, cloud.clock).live_until(phase)
    (fold,) = found.folds()
    assert (bool(fold.cloud_id), fold.ready is not None) == (phase != "intent", phase in (*SERVED, "ready"))
    assert len(cloud.double.inventory().instances) == 1
    # What is to be gone in the end is there, and in no other cell's machine.
    assert holdings.kinds(held(cloud, fold)) == holdings.KINDS
    yield found
    # Whatever the cell came to, the next one begins with an empty account.
    found.reap(everything=True)


def test_the_reaper_alone(cloud: Cloud, phase: str, survivor: Survivor) -> None:
    fold = VmLedger(survivor.client.desk, survivor.vm).refresh()
    assert fold.intent is not None
    bound = {
        "boot_grace": fold.intent.boot_grace + BOOT_MARGIN + PASS,
        "dead_after and its contest": DEAD_AFTER + CONTEST + 3 * PASS,
        "one pass": PASS,
    }[cell(cloud.paper.name, "reaper", phase).within]
    began = cloud.clock.now()
    reaper = survivor.reaper(DEAD_AFTER)
    while not survivor.is_empty():
        assert cloud.clock.now() - began <= bound, f"{survivor.where}: {survivor.said}"
        survivor.sweep(reaper)
        cloud.clock.sleep(PASS)
    survivor.sweep(reaper)
    settled(survivor)


def test_a_person_alone(phase: str, survivor: Survivor) -> None:
    """By `vmrun reap --all`, once."""
    survivor.reap(everything=True)
    assert survivor.is_empty(), f"{survivor.where}: {survivor.said}"
    settled(survivor)


def test_the_console_alone(cloud: Cloud, phase: str, survivor: Survivor) -> None:
    """A person deletes the machine there, and what it leaves goes with the next pass."""
    (machine,) = cloud.double.inventory().instances
    cloud.double.delete_by_hand(machine)
    until(lambda: passed(cloud).instances == {}, 30, "the cloud has deleted it")
    survivor.wait_out_the_boot_grace()
    survivor.reap()
    survivor.reap()
    assert survivor.is_empty(), f"{survivor.where}: {survivor.said}"
    settled(survivor)


def test_the_cloud_alone(cloud: Cloud, phase: str, survivor: Survivor) -> None:
    """Nobody comes by, and nothing inside ever acts."""
    begun = set(cloud.double.inventory().instances)
    cloud.clock.sleep(LIFETIME - PASS)
    assert set(cloud.double.inventory().instances) == begun, "not before it is time"
    cloud.clock.sleep(PASS + TTL_MARGIN + PASS)
    if cell(cloud.paper.name, "cloud", phase).acts:
        until(lambda: passed(cloud) == cloud.empty, 30, "the cloud has deleted it")
        assert holdings.things(cloud.double) == []
    else:
        assert set(passed(cloud).instances) == begun


@pytest.mark.parametrize("cloud", [world for world in PAPERS if POWERED_OFF[world]], indirect=True)
def test_a_power_off_that_only_stops_it(cloud: Cloud, phase: str, survivor: Survivor) -> None:
    """As agent and timer do where it may not delete itself: disk and address stay until a reaper comes by."""
    (fold,) = survivor.folds()
    assert fold.intent is not None
    before = cloud.double.inventory()
    cloud.double.power_off(fold.intent.name)
    until(lambda: set(passed(cloud).instances.values()) == {POWERED_OFF[cloud.paper.name]}, 30, "it is off")
    assert replace(passed(cloud), instances={}) == replace(before, instances={})
    cloud.clock.sleep(LIFETIME / 2)
    assert set(passed(cloud).instances.values()) == {POWERED_OFF[cloud.paper.name]}, "and so it stays"
    (verdict,) = survivor.reap()
    assert (verdict.policy, verdict.delete) == ("drained", True)
    assert survivor.is_empty(), f"{survivor.where}: {survivor.said}"
    settled(survivor)


@pytest.mark.parametrize("cloud", [world for world in PAPERS if not POWERED_OFF[world]], indirect=True)
def test_a_power_off_that_ends_it(cloud: Cloud, phase: str, survivor: Survivor) -> None:
    """As agent and timer do; nobody else comes by."""
    (fold,) = survivor.folds()
    assert fold.intent is not None
    cloud.double.power_off(fold.intent.name)
    until(lambda: passed(cloud) == cloud.empty, 30, "it is gone, with all that it had")
    assert holdings.things(cloud.double) == []


def held(cloud: Cloud, fold: VmFold) -> list[holdings.Thing]:
    """What the VM's machine has."""
    assert fold.intent is not None
    machine = holdings.named(cloud.double, fold.intent.name)
    return holdings.held_by(machine, holdings.things(cloud.double))


def passed(cloud: Cloud) -> Inventory:
    """What there is after another second."""
    cloud.clock.sleep(1.0)
    return cloud.double.inventory()


def settled(survivor: Survivor) -> None:
    """The store knows of the end, nobody need watch for the VM any more, and of all that it had nothing is left."""
    assert holdings.things(survivor.cloud.double) == [], survivor.where
    assert all(fold.ended for fold in survivor.folds()), survivor.where
    assert vm_ids(survivor.client.desk) == [], survivor.where
