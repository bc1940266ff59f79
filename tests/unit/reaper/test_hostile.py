"""Whole passes over a cloud that shows foreign machines among ours, lists half of what there is, or nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.core.world import DEPLOYMENT, JOB
from tests.unit.fleet.world import Fleet
from vmrun.core import keys
from vmrun.core.clouds import TAG_DEADLINE, TAG_OWNER, TAG_VM, CloudError, Fault, Instance, instance_name
from vmrun.core.errors import ConfigError
from vmrun.core.ids import new_id
from vmrun.provisioners.fake import Machine
from vmrun.reaper.policies import ORPHAN_GRACE
from vmrun.reaper.sweep import Reaper

FLEETS = 300


class Evil:
    """A cloud whose listing is never only ours, and sometimes not whole."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.fleet = Fleet(folder)
        self.fleet.cloud.knobs.ignores_owner = True
        self.rng = rng
        self.foreign: set[str] = set()
        self.said: list[str] = []
        self.reaper = Reaper(self.fleet.deck, 120.0)

    def populate(self) -> None:
        fleet, rng = self.fleet, self.rng
        for _ in range(rng.randrange(5)):
            vm = fleet.vm(JOB, lifetime=rng.choice((100.0, 86400.0 * 30)), ready=rng.random() < 0.7)
            if rng.random() < 0.3:
                fleet.ledger(vm).delete("over", "client")
            if rng.random() < 0.2:
                for listed in list(fleet.memory.list(keys.vm_journal(vm))):
                    fleet.memory.delete(listed.key)
        fleet.clock.sleep(rng.choice((ORPHAN_GRACE + 1, 3 * 3600.0, 10 * 86400.0)))
        mine = list(fleet.cloud.machines)
        for _ in range(rng.randrange(1, 8)):
            self.foreign.add(self._add(rng.choice(mine) if mine else None))

    def _add(self, victim: Machine | None) -> str:
        cloud, rng = self.fleet.cloud, self.rng
        kind = rng.randrange(5) if victim is not None else 4
        if kind == 0:
            return cloud.add_foreign(victim.name, owner=DEPLOYMENT, tags=victim.tags)
        if kind == 1:
            return cloud.add_foreign(f"{victim.name}-2", owner=DEPLOYMENT, tags=victim.tags)
        if kind == 2:
            return cloud.add_foreign(victim.name, tags=victim.tags | {TAG_OWNER: "0" * 26})
        if kind == 3:
            return cloud.add_foreign(victim.name)
        vm = new_id(self.fleet.clock, rng)
        tags = {TAG_OWNER: DEPLOYMENT, TAG_VM: vm, TAG_DEADLINE: "1700000001"}
        return cloud.add_foreign(instance_name(DEPLOYMENT, vm), owner=DEPLOYMENT, tags=tags)

    def sweep(self, *, everything: bool | None = None) -> None:
        everything = self.rng.random() < 0.3 if everything is None else everything
        self.reaper.sweep(["fake"], dry_run=False, everything=everything, on_stage=self.said.append)

    @property
    def deleted(self) -> set[str]:
        return {call.subject for call in self.fleet.cloud.calls if call.verb == "delete"}


def test_passes_over_hostile_fleets_touch_nothing_foreign(tmp_path: Path, rng: random.Random) -> None:
    deleted = foreign = 0
    for number in range(FLEETS):
        evil = Evil(tmp_path / str(number), rng)
        evil.populate()
        for _ in range(3):
            evil.sweep()
            evil.fleet.clock.sleep(rng.choice((10.0, 400.0)))
        assert not evil.deleted & evil.foreign, number
        deleted += len(evil.deleted)
        foreign += len(evil.foreign)
    assert deleted > FLEETS / 2
    assert foreign > FLEETS


@pytest.fixture
def evil(tmp_path: Path, rng: random.Random) -> Evil:
    return Evil(tmp_path, rng)


def test_a_copy_of_a_vm_that_is_over_is_shown_and_not_touched(evil: Evil) -> None:
    vm = evil.fleet.vm(JOB, lifetime=100.0)
    original = evil.fleet.cloud.machines[0]
    copy = evil.fleet.cloud.add_foreign(original.name, owner=DEPLOYMENT, tags=original.tags)
    evil.fleet.clock.sleep(200)
    found = evil.reaper.sweep(["fake"], dry_run=False, everything=True, on_stage=evil.said.append)
    assert [(each.vm, each.policy, each.delete) for each in found] == [(vm, "all", True), (vm, "guarded", False)]
    assert "it is a copy" in found[1].reason
    assert [machine.id for machine in evil.fleet.cloud.alive()] == [copy]


@pytest.mark.parametrize("recorded", ["", "0" * 26])
def test_nothing_is_judged_where_the_store_is_anothers(evil: Evil, recorded: str) -> None:
    evil.fleet.vm(JOB, lifetime=1.0)
    evil.fleet.clock.sleep(100)
    evil.fleet.recorded = recorded
    with pytest.raises(ConfigError, match="not this deployment's own"):
        evil.sweep()
    assert [call.verb for call in evil.fleet.cloud.calls if call.verb in ("instances", "delete")] == []


def test_an_empty_listing_ends_no_vm(evil: Evil, monkeypatch: pytest.MonkeyPatch) -> None:
    vms = {evil.fleet.vm(JOB) for _ in range(20)}
    evil.fleet.clock.sleep(2000)
    monkeypatch.setattr(evil.fleet.cloud, "instances", lambda owner: iter(()))
    for _ in range(5):
        evil.sweep(everything=False)
    assert evil.fleet.running == evil.fleet.indexed == vms
    assert not any(evil.fleet.ledger(vm).fold.ended for vm in vms)


@pytest.mark.parametrize("breaks", [True, False])
def test_half_a_page_ends_no_vm(evil: Evil, monkeypatch: pytest.MonkeyPatch, breaks: bool) -> None:
    for _ in range(20):
        evil.fleet.vm(JOB)
    evil.fleet.clock.sleep(2000)
    whole = evil.fleet.cloud.instances

    def half(owner: str) -> Iterator[Instance]:
        found = list(whole(owner))
        yield from found[:10]
        if breaks:
            raise CloudError("the second page did not come", fault=Fault.unavailable)

    monkeypatch.setattr(evil.fleet.cloud, "instances", half)
    for _ in range(5):
        evil.reaper.sweep(["fake"], dry_run=False, everything=False, on_stage=evil.said.append)
    assert len(evil.fleet.running) == 20
    assert not any(evil.fleet.ledger(vm).fold.ended for vm in evil.fleet.running)


def test_a_copy_elsewhere_does_not_end_the_vm_of_a_cloud_that_was_not_listed(evil: Evil) -> None:
    vm = evil.fleet.vm(JOB)
    evil.fleet.clock.sleep(2000)
    evil.fleet.cloud.fail("instances", Fault.unavailable)
    evil.sweep()
    assert not evil.fleet.ledger(vm).fold.ended


def test_a_machine_that_comes_after_its_end_is_deleted(evil: Evil) -> None:
    vm = evil.fleet.vm(JOB)
    evil.fleet.ledger(vm).delete("over", "client")
    evil.fleet.ledger(vm).gone("not found")
    (verdict,) = evil.reaper.sweep(["fake"], dry_run=False, everything=False, on_stage=evil.said.append)
    assert (verdict.policy, verdict.delete) == ("condemned", True)
    assert evil.fleet.running == set()


def test_an_orphan_with_a_proof_goes_and_its_client_creates_nothing_any_more(evil: Evil) -> None:
    vm = evil.fleet.vm(JOB)
    for listed in list(evil.fleet.memory.list(keys.vm_journal(vm))):
        evil.fleet.memory.delete(listed.key)
    evil.fleet.memory.delete(keys.vm_index(vm))
    evil.fleet.clock.sleep(ORPHAN_GRACE + 20)
    (verdict,) = evil.reaper.sweep(["fake"], dry_run=False, everything=False, on_stage=evil.said.append)
    assert (verdict.policy, verdict.delete) == ("orphan", True)
    assert evil.fleet.running == set()
    assert evil.fleet.ledger(vm).fold.delete is not None


def test_ten_thousand_strangers_hide_nothing_of_ours(evil: Evil) -> None:
    over, works = evil.fleet.vm(JOB, lifetime=100.0), evil.fleet.vm(JOB)
    for number in range(10_000):
        vm = new_id(evil.fleet.clock, evil.rng)
        evil.fleet.cloud.add_foreign(f"vmrun-other-{vm}-{number}", tags={TAG_OWNER: "other", TAG_VM: vm})
    evil.fleet.clock.sleep(200)
    found = evil.reaper.sweep(["fake"], dry_run=False, everything=False, on_stage=evil.said.append)
    assert {each.vm: each.policy for each in found} == {over: "expired", works: "keep"}
    assert evil.fleet.running == {works} | {m.tags[TAG_VM] for m in evil.fleet.cloud.machines if m.foreign}
