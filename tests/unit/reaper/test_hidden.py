"""VMs that no listing shows, because their region is not configured any more: their clouds are asked for each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.unit.core.world import DEPLOYMENT, JOB
from tests.unit.fleet.world import Fleet
from vmrun.core.clouds import TAG_OWNER, Fault, Instance, InstanceNotFound, Leftover
from vmrun.core.views import Verdict
from vmrun.reaper import hidden
from vmrun.reaper.policies import LEFTOVER_AGE
from vmrun.reaper.sweep import CONTEST, Reaper

DEAD_AFTER = 120.0


class Blind:
    """A reaper whose cloud lists nothing, and answers for each VM that it is asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fleet = Fleet(folder)
        self.said: list[str] = []
        self._reaper = Reaper(self.fleet.deck, DEAD_AFTER)
        monkeypatch.setattr(self.fleet.cloud, "instances", lambda owner: iter(()))

    def __call__(self, *, everything: bool = False, dry_run: bool = False) -> dict[str, Verdict]:
        found = self._reaper.sweep(["fake"], dry_run=dry_run, everything=everything, on_stage=self.said.append)
        return {verdict.vm: verdict for verdict in found}

    def asked(self) -> int:
        """How often the cloud was asked for one VM, since the last time."""
        calls = sum(call.verb == "get" for call in self.fleet.cloud.calls)
        self.fleet.cloud.calls.clear()
        return calls


@pytest.fixture
def blind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blind:
    return Blind(tmp_path, monkeypatch)


def test_it_is_judged_like_any_other(blind: Blind) -> None:
    fleet = blind.fleet
    works, over, late = fleet.vm(JOB), fleet.vm(JOB, lifetime=100.0), fleet.vm(JOB, ready=False)
    drained, condemned = fleet.vm(JOB), fleet.vm(JOB)
    fleet.ledger(condemned).delete("over", "client")
    fleet.clock.sleep(901 + 5)
    assert fleet.ledger(drained).drain("no work", jobs=1)
    verdicts = blind()
    for _ in range(3):
        blind()
    assert {vm: each.policy for vm, each in verdicts.items()} == {
        works: "keep",
        over: "expired",
        late: "never_ready",
        drained: "drained",
        condemned: "condemned",
    }
    assert fleet.running == fleet.indexed == {works}


def test_a_dead_one_goes_after_a_contest_of_its_suspicion(blind: Blind) -> None:
    vm = blind.fleet.vm(JOB)
    assert blind()[vm].policy == "keep"
    blind.fleet.clock.sleep(DEAD_AFTER + 1)
    assert "suspected" in blind()[vm].reason
    blind.fleet.clock.sleep(CONTEST - 1)
    assert not blind()[vm].delete
    blind.fleet.clock.sleep(CONTEST + 1)
    assert blind()[vm].policy == "dead"
    assert blind.fleet.running == set()


def test_everything_means_it_too(blind: Blind) -> None:
    vms = {blind.fleet.vm(JOB) for _ in range(5)}
    assert {vm for vm, each in blind(everything=True, dry_run=True).items() if each.delete} == vms
    assert blind.fleet.running == vms
    blind(everything=True)
    assert blind.fleet.running == blind.fleet.indexed == set()


@pytest.mark.parametrize("lie", ["owner", "name", "id"])
def test_what_answers_in_its_place_is_not_touched(blind: Blind, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    vm = blind.fleet.vm(JOB, lifetime=10.0)
    blind.fleet.clock.sleep(1000)
    get = blind.fleet.cloud.get

    def another(name: str) -> Instance:
        seen = get(name)
        if lie == "owner":
            return dataclasses.replace(seen, tags=seen.tags | {TAG_OWNER: "0e0e0e0e"})
        return dataclasses.replace(seen, **{lie: f"{getattr(seen, lie)}-2"})

    monkeypatch.setattr(blind.fleet.cloud, "get", another)
    verdicts = blind(everything=True)
    assert not verdicts[vm].delete
    assert blind.fleet.running == {vm}
    assert not blind.fleet.ledger(vm).fold.ended


def test_one_whose_cloud_does_not_answer_is_neither_deleted_nor_forgotten(blind: Blind) -> None:
    vm = blind.fleet.vm(JOB, lifetime=10.0)
    blind.fleet.clock.sleep(5000)
    blind.fleet.cloud.fail("get", Fault.permission)
    assert blind() == {}
    assert blind.fleet.running == blind.fleet.indexed == {vm}
    assert blind()[vm].policy == "expired"
    assert blind.fleet.running == set()


def test_what_belongs_to_it_is_not_left_over(blind: Blind) -> None:
    fleet, vm = blind.fleet, blind.fleet.vm(JOB)
    name = fleet.ledger(vm).fold.intent
    assert name is not None
    fleet.clock.sleep(LEFTOVER_AGE + 1)
    disk = Leftover("fake", "disk", "disk-1", name.name, created_at=fleet.clock.now() - LEFTOVER_AGE - 1)
    fleet.cloud.left[DEPLOYMENT] = [disk]
    assert set(blind()) == {vm}
    assert fleet.cloud.left[DEPLOYMENT] == [disk]


def test_what_belongs_to_one_that_could_not_be_asked_for_is_not_left_over(blind: Blind) -> None:
    fleet, vm = blind.fleet, blind.fleet.vm(JOB)
    intent = fleet.ledger(vm).fold.intent
    assert intent is not None
    fleet.clock.sleep(LEFTOVER_AGE + 1)
    disk = Leftover("fake", "disk", "disk-1", intent.name, created_at=fleet.clock.now() - LEFTOVER_AGE - 1)
    fleet.cloud.left[DEPLOYMENT] = [disk]
    fleet.cloud.fail("get", Fault.unavailable)
    assert blind() == {}
    assert fleet.cloud.left[DEPLOYMENT] == [disk]


def test_many_are_asked_for_in_turn(blind: Blind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "LOOKUPS", 3)
    vms = {blind.fleet.vm(JOB) for _ in range(8)}
    seen: list[set[str]] = []
    for _ in range(3):
        blind.asked()
        seen.append(set(blind()))
        assert blind.asked() == 3
        blind.fleet.clock.sleep(1)
    assert set().union(*seen) == vms
    assert blind.fleet.running == blind.fleet.indexed == vms


def test_with_the_credentials_of_another_account_no_vm_that_lives_is_called_gone(
    blind: Blind, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, vm = blind.fleet, blind.fleet.vm(JOB)

    def unknown(id: str) -> Instance:
        raise InstanceNotFound(f"no instance {id}")

    monkeypatch.setattr(fleet.cloud, "get", unknown)
    fleet.clock.sleep(5000)
    fleet.beat(vm, 2)
    fleet.clock.sleep(DEAD_AFTER - 1)
    (verdict,) = blind().values()
    assert (verdict.policy, verdict.delete) == ("keep", False)
    assert "its agent lives" in verdict.reason
    assert fleet.indexed == {vm}
    assert not fleet.ledger(vm).fold.ended
    # Only one that is silent, too, is no more.
    fleet.clock.sleep(2)
    assert blind()[vm].policy == "vanished"
    assert fleet.indexed == set()
