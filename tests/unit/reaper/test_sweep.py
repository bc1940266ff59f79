"""One pass after the other over a cloud and a store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.agent.bench import Switch
from tests.unit.core.world import DEPLOYMENT, JOB, VM, ManualClock
from tests.unit.fleet.world import Fleet
from vmrun.core import codec, keys
from vmrun.core.clouds import CloudError, Fault, Instance, InstanceNotFound, Leftover
from vmrun.core.errors import StoreUnavailable
from vmrun.core.ids import new_id
from vmrun.core.views import Verdict
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet.deck import Session
from vmrun.fleet.order import Timings
from vmrun.fleet.retire import retire
from vmrun.reaper.leftovers import CAP as LEFTOVER_CAP
from vmrun.reaper.policies import LEFTOVER_AGE, LEFTOVER_SEEN, ORPHAN_GRACE
from vmrun.reaper.sweep import CONTEST, Reaper
from vmrun.store.faulty import FaultyStore

DEAD_AFTER = 120.0
#: Another deployment.
OTHER = "0123456789"


class Passes:
    """A reaper that stays, and what it said."""

    def __init__(self, fleet: Fleet) -> None:
        self.reaper = Reaper(fleet.deck, DEAD_AFTER)
        self.said: list[str] = []

    def __call__(self, *, dry_run: bool = False, everything: bool = False) -> dict[str, Verdict]:
        found = self.reaper.sweep(["fake"], dry_run=dry_run, everything=everything, on_stage=self.said.append)
        return {verdict.vm: verdict for verdict in found}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture
def sweep(fleet: Fleet) -> Passes:
    return Passes(fleet)


def test_a_vm_that_is_given_back_between_the_listing_and_its_journal_did_not_come_back(
    fleet: Fleet, sweep: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, listing = fleet.vm(JOB), fleet.cloud.instances

    def then_it_goes(owner: str) -> Iterator[Instance]:
        found = list(listing(owner))
        assert retire(fleet.deck, vm, "its job ended", lambda _: None)
        return iter(found)

    monkeypatch.setattr(fleet.cloud, "instances", then_it_goes)
    assert sweep() == {}
    assert [call.verb for call in fleet.cloud.calls].count("delete") == 1
    assert fleet.indexed == set()


def test_a_pass_keeps_what_works_and_deletes_what_is_over(fleet: Fleet, sweep: Passes) -> None:
    works, over, booting = fleet.vm(JOB), fleet.vm(JOB, lifetime=100.0), fleet.vm(JOB, ready=False)
    fleet.clock.sleep(200)
    verdicts = sweep()
    assert {vm: verdict.policy for vm, verdict in verdicts.items()} == {works: "keep", over: "expired", booting: "keep"}
    assert fleet.running == fleet.indexed == {works, booting}
    assert fleet.ledger(over).fold.gone is not None


def test_a_dry_run_changes_nothing(fleet: Fleet, sweep: Passes) -> None:
    fleet.vm(JOB, lifetime=100.0)
    fleet.clock.sleep(86400 * 2)
    before = {listed.key for listed in fleet.memory.list("")}
    (verdict,) = sweep(dry_run=True).values()
    assert verdict.delete
    assert {listed.key for listed in fleet.memory.list("")} == before
    assert len(fleet.running) == 1


@pytest.mark.parametrize("entry", [b"rubbish", b"newer"])
def test_a_vm_whose_journal_cannot_be_trusted_lives_until_its_deadline(
    fleet: Fleet, sweep: Passes, entry: bytes
) -> None:
    damaged, over = fleet.vm(JOB), fleet.vm(JOB, lifetime=100.0)
    if entry == b"newer":
        entry = codec.canonical({"schema": 1_000_000}) + b"\n00\n"
    fleet.memory.create(keys.entry(keys.vm_journal(damaged), 3), entry)
    fleet.clock.sleep(ORPHAN_GRACE * 10)
    verdicts = sweep()
    # It is no orphan, and it keeps nobody else from being judged
    assert not verdicts[damaged].delete
    assert "cannot be read" in verdicts[damaged].reason
    assert fleet.running == {damaged}
    assert verdicts[over].policy == "expired"
    fleet.clock.sleep(86400)
    assert sweep()[damaged].policy == "expired"
    assert fleet.running == set()


def test_without_the_store_what_is_past_its_deadline_goes_and_nothing_else(tmp_path: Path) -> None:
    switch = Switch()
    fleet = Fleet(tmp_path)
    fleet.store = FaultyStore(fleet.memory, switch, fleet.rng)
    over, works = fleet.vm(JOB, lifetime=100.0), fleet.vm(JOB)
    object.__setattr__(fleet.deck, "desk", fleet.desk())
    fleet.clock.sleep(ORPHAN_GRACE * 10)
    switch.down = True
    verdicts = Passes(fleet)()
    assert verdicts[over].policy == "expired"
    assert fleet.running == {works}


def test_a_cloud_that_cannot_be_listed_is_not_judged(fleet: Fleet, sweep: Passes) -> None:
    vm = fleet.vm(JOB, lifetime=10.0)
    fleet.clock.sleep(86400)
    fleet.cloud.fail("instances", Fault.unavailable)
    assert sweep() == {}
    assert "could not be listed" in sweep.said[0]
    assert fleet.running == {vm}


def test_a_silent_vm_is_suspected_and_only_then_dead(fleet: Fleet, sweep: Passes) -> None:
    vm = fleet.vm(JOB)
    assert sweep()[vm].policy == "keep"
    fleet.clock.sleep(DEAD_AFTER + 1)
    assert "suspected" in sweep()[vm].reason
    assert fleet.ledger(vm).fold.suspected
    fleet.clock.sleep(CONTEST - 1)
    assert not sweep()[vm].delete
    fleet.clock.sleep(CONTEST + 1)
    assert sweep()[vm].policy == "dead"
    assert fleet.running == set()


def test_one_that_answers_lives(fleet: Fleet, sweep: Passes) -> None:
    vm = fleet.vm(JOB)
    sweep()
    fleet.clock.sleep(DEAD_AFTER + 1)
    sweep()
    VmLedger(fleet.desk(f"vm:{vm}"), vm).alive()
    fleet.beat(vm, 2, busy="job")
    for _ in range(5):
        fleet.clock.sleep(CONTEST)
        fleet.beat(vm, fleet.rng.getrandbits(30))
        assert not sweep()[vm].delete
    assert fleet.running == {vm}


def test_when_all_look_dead_at_once_none_is(fleet: Fleet, sweep: Passes) -> None:
    vms = {fleet.vm(JOB) for _ in range(5)}
    for _ in range(6):
        assert not any(verdict.delete for verdict in sweep().values())
        fleet.clock.sleep(DEAD_AFTER)
    assert fleet.running == vms
    assert any("most VMs look dead" in said for said in sweep.said)


def test_one_pass_deletes_no_more_than_its_share(fleet: Fleet, sweep: Passes) -> None:
    for _ in range(10):
        fleet.vm(JOB, lifetime=10.0)
    fleet.clock.sleep(1000)
    sweep()
    assert len(fleet.running) == 7
    assert sum(verdict.delete for verdict in sweep(everything=True).values()) == 7
    assert fleet.running == set()


def test_what_a_cloud_does_not_list_but_still_has_is_not_called_gone(
    fleet: Fleet, sweep: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = fleet.vm(JOB)
    fleet.clock.sleep(1000)
    monkeypatch.setattr(fleet.cloud, "instances", lambda owner: iter(()))
    assert sweep()[vm].policy == "keep"
    assert fleet.ledger(vm).fold.gone is None
    assert fleet.indexed == {vm}

    def get(name: str) -> None:
        raise InstanceNotFound(name)

    monkeypatch.setattr(fleet.cloud, "get", get)
    sweep()
    assert fleet.ledger(vm).fold.gone is not None
    assert fleet.indexed == set()


def test_a_vm_whose_end_nobody_saw_counts_for_as_long_as_it_can_have_lived(fleet: Fleet, sweep: Passes) -> None:
    vm, began, timings = fleet.vm(JOB), fleet.clock.now(), Timings()
    (machine,) = fleet.cloud.alive()
    fleet.cloud.take_away(machine.id)
    fleet.clock.sleep(10 * 3600)
    assert sweep()[vm].policy == "vanished"
    fold = fleet.ledger(vm).fold
    assert fold.gone is not None
    assert began < fold.gone_at <= began + timings.lease + timings.deadman_poll + timings.flush_grace + 1


def test_what_a_dead_client_left_is_tidied(fleet: Fleet, sweep: Passes) -> None:
    # Given an entry in the index whose client died before the intent, and one that is just about to write it
    left = new_id(fleet.clock, fleet.rng)
    fleet.memory.create(keys.vm_index(left), b"")
    Session.of(fleet.deck, left).save("key", "host", 22, "pin")
    fleet.clock.sleep(ORPHAN_GRACE + 1)
    young = new_id(fleet.clock, fleet.rng)
    fleet.memory.create(keys.vm_index(young), b"")
    sweep()
    assert fleet.indexed == {young}
    assert not Session.of(fleet.deck, left).exists()
    # Should the first client still come, it creates nothing
    (vm,) = [fleet.ledger(left)]
    assert vm.fold.ended


def test_nothing_is_remembered_of_vms_that_are_gone(fleet: Fleet, sweep: Passes) -> None:
    fleet.vm(JOB, lifetime=100.0)
    sweep()
    assert len(sweep.reaper._observer.sightings) == 1
    fleet.clock.sleep(200)
    sweep()
    sweep()
    assert not sweep.reaper._observer.sightings


# --- stopped machines, and what machines leave behind ---


def leave(fleet: Fleet, vm: str, kind: str = "disk", *, created_at: float = 0.0, name: str | None = None) -> Leftover:
    found = fleet.cloud.left.setdefault(DEPLOYMENT, [])
    identifier = f"{kind}-{len(found)}"
    made = Leftover("fake", kind, identifier, name or f"vmrun-{DEPLOYMENT}-{vm}", created_at=created_at)
    found.append(made)
    return made


def left(fleet: Fleet) -> list[Leftover]:
    return fleet.cloud.left.get(DEPLOYMENT, [])


def test_a_machine_that_powered_itself_off_is_deleted_where_its_cloud_only_stops_it(
    fleet: Fleet, sweep: Passes
) -> None:
    vm = fleet.vm(JOB)
    fleet.cloud.power_off(fleet.cloud.alive()[0].id)
    assert sweep()[vm].policy == "drained"
    assert fleet.running == set()
    assert fleet.ledger(vm).fold.gone is not None


def test_what_a_deleted_machine_left_behind_goes_with_it(fleet: Fleet, sweep: Passes) -> None:
    over, works = fleet.vm(JOB, lifetime=100.0), fleet.vm(JOB)
    leave(fleet, over)
    address = leave(fleet, over, "address", name=f"vmrun-{DEPLOYMENT}-{over}-ip")
    kept = leave(fleet, works, "address")
    fleet.clock.sleep(200)
    assert address in left(fleet)
    sweep()
    # What a machine that lives is about to use, or has just let go, is not touched
    assert left(fleet) == [kept]


def test_a_leftover_goes_at_once_when_its_vm_has_ended(fleet: Fleet, sweep: Passes) -> None:
    vm = fleet.vm(JOB)
    fleet.ledger(vm).delete("over", "client")
    fleet.cloud.take_away(fleet.cloud.alive()[0].id)
    fleet.ledger(vm).gone("seen")
    leave(fleet, vm, created_at=fleet.clock.now())
    (verdict,) = sweep(dry_run=True).values()
    assert (verdict.policy, verdict.delete) == ("leftover", True)
    assert "disk disk-0: its VM has ended" in verdict.reason
    assert len(left(fleet)) == 1
    sweep()
    assert left(fleet) == []


def test_a_leftover_of_an_unknown_vm_goes_when_it_is_old(fleet: Fleet, sweep: Passes) -> None:
    vm = new_id(fleet.clock, fleet.rng)
    leave(fleet, vm, created_at=fleet.clock.now())
    fleet.clock.sleep(LEFTOVER_AGE - 1)
    assert not sweep()[vm].delete
    fleet.clock.sleep(2)
    # Its age is the cloud's word: a reaper that has just started may act on it
    assert Passes(fleet)()[vm].delete
    assert left(fleet) == []


def test_a_leftover_of_unknown_age_must_have_been_seen_for_a_while(fleet: Fleet, sweep: Passes) -> None:
    vm = new_id(fleet.clock, fleet.rng)
    leave(fleet, vm)
    assert not sweep()[vm].delete
    fleet.clock.sleep(LEFTOVER_SEEN)
    assert not Passes(fleet)()[vm].delete
    assert sweep()[vm].delete
    assert left(fleet) == []


@pytest.mark.parametrize("name", ["", "vmrun", "my-disk", f"vmrun-{OTHER}-{VM}", f"vmrun-{DEPLOYMENT}", "vmrun--x"])
def test_what_does_not_bear_our_name_is_not_touched(fleet: Fleet, sweep: Passes, name: str) -> None:
    found = Leftover("fake", "disk", "disk-0", name, created_at=1.0)
    fleet.cloud.left[DEPLOYMENT] = [found]
    assert sweep() == {}
    assert left(fleet) == [found]


def test_one_pass_discards_a_bounded_number(fleet: Fleet, sweep: Passes) -> None:
    for _ in range(LEFTOVER_CAP + 5):
        leave(fleet, new_id(fleet.clock, fleet.rng), created_at=1.0)
    assert sum(verdict.delete for verdict in sweep().values()) == LEFTOVER_CAP
    assert len(left(fleet)) == 5
    sweep()
    assert left(fleet) == []


@pytest.mark.parametrize("verb", ["leftovers", "discard"])
def test_a_cloud_that_cannot_see_to_leftovers_is_said_and_seen_to_later(fleet: Fleet, sweep: Passes, verb: str) -> None:
    leave(fleet, new_id(fleet.clock, fleet.rng), created_at=1.0)
    fleet.cloud.fail(verb, Fault.unavailable)
    sweep()
    assert any("could not" in said for said in sweep.said)
    assert len(left(fleet)) == 1
    sweep()
    assert left(fleet) == []


def test_a_damaged_journal_does_not_end_its_vm(fleet: Fleet, sweep: Passes) -> None:
    vm = fleet.vm(JOB)
    fleet.memory.create(keys.entry(keys.vm_journal(vm), 3), b"rubbish")
    fleet.cloud.take_away(fleet.cloud.alive()[0].id)
    leave(fleet, vm, created_at=fleet.clock.now())
    assert not sweep()[vm].delete
    assert len(left(fleet)) == 1


def protected(fleet: Fleet, vms: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the cloud refuse to delete these, whenever it is asked."""
    delete, ids = fleet.cloud.delete, {fleet.ledger(vm).fold.cloud_id for vm in vms}

    def refusing(id: str) -> None:
        if id in ids:
            raise CloudError("it is protected", fault=Fault.permission)
        delete(id)

    monkeypatch.setattr(fleet.cloud, "delete", refusing)


def test_machines_that_cannot_be_deleted_keep_no_others_from_their_end(
    fleet: Fleet, sweep: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = sorted(fleet.vm(JOB, lifetime=10.0) for _ in range(8))
    protected(fleet, set(vms[:3]), monkeypatch)
    fleet.clock.sleep(1000)
    for _ in range(4):
        # A cron job: each pass is one of its own, and remembers nothing.
        Passes(fleet)()
    assert fleet.running == set(vms[:3])


def test_leftovers_that_cannot_be_discarded_keep_no_others_from_their_end(
    fleet: Fleet, sweep: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(LEFTOVER_CAP + 5):
        leave(fleet, new_id(fleet.clock, fleet.rng), created_at=1.0)
    discard, kept = fleet.cloud.discard, left(fleet)[:LEFTOVER_CAP]

    def refusing(leftover: Leftover) -> None:
        if leftover in kept:
            raise CloudError("something uses it", fault=Fault.unknown)
        discard(leftover)

    monkeypatch.setattr(fleet.cloud, "discard", refusing)
    sweep()
    assert left(fleet) == kept


@pytest.mark.parametrize("ahead", [12 * 3600.0, -12 * 3600.0])
def test_a_wrong_clock_ends_nothing_early_and_nothing_late(tmp_path: Path, ahead: float) -> None:
    fleet = Fleet(tmp_path)
    works, boots, over = fleet.vm(JOB), fleet.vm(JOB, ready=False), fleet.vm(JOB, lifetime=10.0)
    fleet.clock.sleep(100)
    right = fleet.clock
    fleet.deck = replace(fleet.deck, desk=replace(fleet.deck.desk, clock=Ahead(right, ahead)), store_time=right.now)
    passes = Passes(fleet)
    verdicts = passes()
    assert {vm for vm, verdict in verdicts.items() if verdict.delete} == {over}
    assert fleet.running == {works, boots}
    side = "ahead of" if ahead > 0 else "behind"
    assert any(f"this computer's clock is 12h 00m {side} the store's" in said for said in passes.said)


def test_a_store_that_does_not_tell_the_time_changes_nothing(fleet: Fleet) -> None:
    def silent() -> float:
        raise StoreUnavailable("no answer")

    works = fleet.vm(JOB)
    fleet.vm(JOB, lifetime=10.0)
    fleet.clock.sleep(100)
    fleet.deck = replace(fleet.deck, store_time=silent)
    Passes(fleet)()
    assert fleet.running == {works}


def test_of_all_only_those_that_were_shown_are_meant(fleet: Fleet, sweep: Passes) -> None:
    shown, later, over = fleet.vm(JOB), fleet.vm(JOB), fleet.vm(JOB, lifetime=10.0)
    fleet.clock.sleep(100)
    sweep.reaper.sweep(["fake"], dry_run=False, everything=True, on_stage=sweep.said.append, among={shown})
    assert over not in fleet.running
    assert fleet.running == {later}


class Ahead:
    """A clock that is wrong by so many seconds."""

    def __init__(self, clock: ManualClock, ahead: float) -> None:
        self._clock, self._ahead = clock, ahead
        self.monotonic, self.sleep = clock.monotonic, clock.sleep

    def now(self) -> float:
        return self._clock.now() + self._ahead
