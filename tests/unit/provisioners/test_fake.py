"""The fake cloud: the behaviour suite on four kinds of it, then each of its misbehaviours."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.suites.provisioner import BEHAVIOURS, Harness, name
from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clouds import (
    TAG_OWNER,
    TAG_VM,
    Capabilities,
    CloudError,
    Fault,
    Instance,
    InstanceNotFound,
    InstanceSpec,
    InstanceState,
    Leftover,
    Need,
    instance_name,
)
from vmrun.core.ids import new_id
from vmrun.provisioners.fake import FakeCloud, Knobs


class FakeHarness:
    boot_seconds = 900.0
    delete_seconds = 900.0

    def __init__(self, seed: int, knobs: Knobs | None = None, capabilities: Capabilities | None = None) -> None:
        self.clock = ManualClock()
        self.rng = random.Random(seed)
        self.provisioner = FakeCloud(self.clock, self.rng, knobs=knobs, capabilities=capabilities)
        self.owner = new_id(self.clock, self.rng)
        self.other_owner = new_id(self.clock, self.rng)

    @property
    def cloud(self) -> FakeCloud:
        return self.provisioner

    def spec(self, owner: str = "", **changes: Any) -> InstanceSpec:
        vm = new_id(self.clock, self.rng)
        owner = owner or self.owner
        spec = InstanceSpec(
            vm=vm,
            owner=owner,
            name=instance_name(owner, vm),
            offer=next(iter(self.provisioner.offers(Need()))),
            user_data="#cloud-config\n",
            hard_deadline=self.clock.now() + 3600,
            tags={TAG_OWNER: owner, TAG_VM: vm},
        )
        return replace(spec, **changes)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = self.clock.monotonic() + seconds
        while not condition():
            if self.clock.monotonic() >= deadline:
                return False
            self.clock.sleep(1.0)
        return True

    def power_off(self, instance: Instance) -> None:
        self.provisioner.power_off(instance.id)

    def states(self) -> list[InstanceState]:
        return [instance.state for instance in self.provisioner.instances(self.owner)]


SLOW = Knobs(appear=(0, 30), boot=(5, 60), vanish=(5, 60), linger=(0, 300), list_lag=(0, 20), get_lag=(0, 10))
KINDS: dict[str, tuple[Knobs, Capabilities]] = {
    "prompt": (Knobs(), Capabilities()),
    "prompt, power-off deletes": (Knobs(), Capabilities(poweroff_deletes=True)),
    "slow": (Knobs(boot=(5, 60), vanish=(5, 60), linger=(0, 300)), Capabilities()),
    "slow, power-off deletes": (
        Knobs(boot=(5, 60), vanish=(5, 60), linger=(0, 300)),
        Capabilities(poweroff_deletes=True, provider_ttl=True),
    ),
}


@pytest.fixture
def harness(seed: int) -> FakeHarness:
    return FakeHarness(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=name)
def test_fake_cloud(behaviour: Callable[[Harness], None], kind: str, seed: int) -> None:
    knobs, capabilities = KINDS[kind]
    behaviour(FakeHarness(seed, replace(knobs), capabilities))


# --- what it can be told to do ---


def test_a_lost_reply_to_create_leaves_one_instance_which_the_same_call_finds(harness: FakeHarness) -> None:
    spec = harness.spec()
    harness.cloud.fail("create", Fault.unavailable, after=True)

    with pytest.raises(CloudError) as caught:
        harness.cloud.create(spec)

    assert caught.value.fault is Fault.unavailable
    assert harness.cloud.create(spec).id == harness.cloud.machines[0].id
    assert len(harness.cloud.alive()) == 1


def test_a_late_instance_appears_after_a_while_and_cannot_be_deleted_before(harness: FakeHarness) -> None:
    harness.cloud.knobs.appear = (30, 30)
    made = harness.cloud.create(harness.spec())

    assert made.state is InstanceState.pending
    assert harness.states() == []
    with pytest.raises(InstanceNotFound):
        harness.cloud.get(made.id)
    harness.cloud.delete(made.id)
    assert len(harness.cloud.alive()) == 1

    harness.clock.sleep(30)
    assert harness.states() == [InstanceState.running]
    harness.cloud.delete(made.id)
    assert harness.cloud.alive() == []


def test_a_stale_listing_lacks_the_new_and_shows_the_deleted(harness: FakeHarness) -> None:
    harness.cloud.knobs.list_lag = (20, 20)
    made = harness.cloud.create(harness.spec())
    assert harness.states() == []
    assert harness.cloud.get(made.id).state is InstanceState.running

    harness.clock.sleep(20)
    assert harness.states() == [InstanceState.running]
    harness.cloud.delete(made.id)
    assert harness.states() == [InstanceState.running]
    assert harness.cloud.alive() == []

    harness.clock.sleep(20)
    assert harness.states() == []


def test_a_deleted_instance_lingers_as_gone(harness: FakeHarness) -> None:
    harness.cloud.knobs = Knobs(vanish=(10, 10), linger=(100, 100))
    made = harness.cloud.create(harness.spec())
    harness.cloud.delete(made.id)

    seen = []
    for _ in range(4):
        seen.append(harness.states())
        harness.clock.sleep(50)

    assert seen == [[InstanceState.stopping], [InstanceState.gone], [InstanceState.gone], []]


def test_a_lost_delete_is_accepted_and_never_happens(harness: FakeHarness) -> None:
    made = harness.cloud.create(harness.spec())
    harness.cloud.lose_next_delete()

    harness.cloud.delete(made.id)
    harness.clock.sleep(10_000)
    assert harness.states() == [InstanceState.running]

    harness.cloud.delete(made.id)
    assert harness.cloud.alive() == []


def test_a_lost_reply_to_delete_means_that_it_happened(harness: FakeHarness) -> None:
    made = harness.cloud.create(harness.spec())
    harness.cloud.fail("delete", Fault.unavailable, after=True)

    with pytest.raises(CloudError):
        harness.cloud.delete(made.id)

    assert harness.cloud.alive() == []


@pytest.mark.parametrize("fault", Fault)
def test_faults_come_in_order_by_zone_and_change_nothing(harness: FakeHarness, fault: Fault) -> None:
    first, second = harness.cloud.offers(Need(zone="east-1"))
    elsewhere = next(iter(harness.cloud.offers(Need(zone="west-1"))))
    harness.cloud.fail("create", fault, zone="east-1", times=2)

    harness.cloud.create(harness.spec(offer=elsewhere))
    for offer in (first, second):
        with pytest.raises(CloudError) as caught:
            harness.cloud.create(harness.spec(offer=offer))
        assert caught.value.fault is fault
        assert caught.value.hint
    harness.cloud.create(harness.spec(offer=first))

    assert [machine.zone for machine in harness.cloud.alive()] == ["west-1", "east-1"]


def test_a_foreign_instance_is_in_the_inventory_and_holds_its_name(harness: FakeHarness) -> None:
    spec = harness.spec()
    foreign = harness.cloud.add_foreign(spec.name, tags=spec.tags)

    with pytest.raises(CloudError):
        harness.cloud.create(spec)
    assert harness.states() == []

    harness.cloud.knobs.ignores_owner = True
    (shown,) = harness.cloud.instances(harness.owner)
    assert (shown.id, shown.name, shown.tags) == (foreign, spec.name, spec.tags)


def test_the_same_vm_with_other_parameters_is_refused(harness: FakeHarness) -> None:
    spec = harness.spec()
    harness.cloud.create(spec)

    with pytest.raises(CloudError) as caught:
        harness.cloud.create(replace(spec, user_data="other"))

    assert caught.value.fault is Fault.config


@pytest.mark.parametrize("linger", [0.0, 1e6])
def test_a_deleted_instance_is_not_created_again(harness: FakeHarness, linger: float) -> None:
    harness.cloud.knobs.linger = (linger, linger)
    spec = harness.spec()
    made = harness.cloud.create(spec)
    harness.cloud.delete(made.id)

    again = harness.cloud.create(spec)

    assert (again.id, again.state) == (made.id, InstanceState.gone)
    assert harness.cloud.alive() == []


def test_the_cloud_enforces_the_deadline_if_it_can(seed: int) -> None:
    for enforced in (True, False):
        harness = FakeHarness(seed, capabilities=Capabilities(provider_ttl=enforced))
        harness.cloud.create(harness.spec(hard_deadline=harness.clock.now() + 100))
        harness.clock.sleep(99.9)
        assert harness.states() == [InstanceState.running]
        harness.clock.sleep(0.2)
        assert harness.states() == ([] if enforced else [InstanceState.running])
        assert len(harness.cloud.alive()) == (0 if enforced else 1)


def test_an_instance_that_is_stopping_can_be_deleted(harness: FakeHarness) -> None:
    harness.cloud.knobs.vanish = (10, 10)
    made = harness.cloud.create(harness.spec())
    harness.cloud.power_off(made.id)
    harness.cloud.delete(made.id)

    harness.clock.sleep(10)

    assert harness.cloud.alive() == []


def test_taking_away_is_at_once(harness: FakeHarness) -> None:
    harness.cloud.knobs.vanish = (50, 50)
    made = harness.cloud.create(harness.spec())
    harness.cloud.delete(made.id)
    assert len(harness.cloud.alive()) == 1

    harness.cloud.take_away(made.id)

    assert harness.cloud.alive() == []


def test_leftovers_are_the_owners(harness: FakeHarness) -> None:
    disk = Leftover(on="fake", kind="disk", id="d-1", name="disk")
    harness.cloud.left[harness.owner] = [disk]

    assert list(harness.cloud.leftovers(harness.owner)) == [disk]
    assert list(harness.cloud.leftovers(harness.other_owner)) == []


def test_calls_are_recorded_also_the_failed_ones(harness: FakeHarness) -> None:
    spec = harness.spec()
    harness.cloud.calls.clear()
    harness.cloud.fail("create", Fault.stockout)

    with pytest.raises(CloudError):
        harness.cloud.create(spec)
    made = harness.cloud.create(spec)
    harness.cloud.delete(made.id)

    assert [(call.verb, call.subject) for call in harness.cloud.calls] == [
        ("create", spec.name),
        ("create", spec.name),
        ("delete", made.id),
    ]


def story(seed: int) -> list[object]:
    """Everything that is to be seen of a cloud that misbehaves at random."""
    chaos = replace(SLOW, create_reply_lost=0.3, delete_lost=0.3, delete_reply_lost=0.3, throttled=0.1)
    harness = FakeHarness(seed, chaos, Capabilities(provider_ttl=True))
    seen: list[object] = []

    def note(call: Callable[[], object]) -> None:
        try:
            seen.append(call())
        except CloudError as error:
            seen.append((error.fault, error.message))

    for step in range(60):
        if step % 3 == 0:
            offer = harness.cloud._offers[step % 6]
            spec = InstanceSpec(
                vm=f"{step:026d}",
                owner=harness.owner,
                name=f"vm-{step}",
                offer=offer,
                user_data="",
                hard_deadline=harness.clock.now() + 200,
            )
            note(lambda spec=spec: harness.cloud.create(spec))  # type: ignore[misc]
        elif harness.cloud.machines:
            note(lambda: harness.cloud.delete(harness.rng.choice(harness.cloud.machines).id))
        note(lambda: list(harness.cloud.instances(harness.owner)))
        harness.clock.sleep(7)
    return seen


def test_the_same_seed_tells_the_same_story(seed: int) -> None:
    first = story(seed)

    assert first == story(seed)
    assert first != story(seed + 1)
    assert {"throttle", "unavailable"} <= {entry[0].value for entry in first if isinstance(entry, tuple)}


def test_every_instance_ends_whatever_happened_where_the_cloud_enforces_deadlines(seed: int) -> None:
    harness = FakeHarness(seed, replace(SLOW, delete_lost=1.0), Capabilities(provider_ttl=True))
    for _ in range(20):
        harness.cloud.create(harness.spec())
        harness.clock.sleep(10)

    assert len(harness.cloud.alive()) == 20
    harness.clock.sleep(3600)
    assert harness.cloud.alive() == []
