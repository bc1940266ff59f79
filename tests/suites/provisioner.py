"""What every provisioner does: the behaviour suite of the seam, run on each driver and on the fake.

A driver's test gives a harness and runs all of `BEHAVIOURS`:

    @pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=name)
    def test_driver(behaviour, harness):
        behaviour(harness)

The harness deletes, in its fixture's end, whatever its two owners still have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Protocol

import pytest

from tests.support.shell import PATIENCE
from vmrun import catalog
from vmrun.core.clouds import (
    TAG_OWNER,
    TAG_VM,
    CloudError,
    Instance,
    InstanceNotFound,
    InstanceSpec,
    InstanceState,
    Need,
    Provisioner,
)
from vmrun.core.errors import VmrunError

#: States of an instance that somebody may still pay for.
ALIVE = {InstanceState.pending, InstanceState.running, InstanceState.stopped, InstanceState.stopping}


class Harness(Protocol):
    """What the suite needs around a driver."""

    #: Two deployments' ids that nobody else uses.
    owner: str
    other_owner: str
    #: Seconds within which a created instance runs, and within which a deleted one is gone from every view.
    boot_seconds: float
    delete_seconds: float

    @property
    def provisioner(self) -> Provisioner:
        """The driver."""
        ...

    def spec(self, owner: str) -> InstanceSpec:
        """All that a new machine of this owner needs; tagged TAG_OWNER and TAG_VM; each call names another VM."""
        ...

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until the condition holds; False if it does not within `seconds`."""
        ...

    def power_off(self, instance: Instance) -> None:
        """Have a running machine power itself off, as its agent does when it is done."""
        ...


def poll_until(condition: Callable[[], bool], seconds: float, pause: float = 0.01) -> bool:
    """`wait_until` for harnesses of things that live in real time; `pause` in seconds between looks.

    It gives up after `seconds`, and not before `PATIENCE`.
    """
    deadline, never = time.monotonic() + max(seconds, PATIENCE), Event()
    while not condition():
        if time.monotonic() >= deadline:
            return False
        never.wait(pause)
    return True


# --- helpers ---


def create(harness: Harness, owner: str = "") -> tuple[InstanceSpec, Instance]:
    spec = harness.spec(owner or harness.owner)
    return spec, harness.provisioner.create(spec)


def listed(harness: Harness, owner: str = "") -> dict[str, Instance]:
    """The owner's instances that may cost something, by id; an id twice is an error."""
    found = list(harness.provisioner.instances(owner or harness.owner))
    ids = [instance.id for instance in found]
    assert len(ids) == len(set(ids)), f"an instance is listed twice: {ids}"
    return {instance.id: instance for instance in found if instance.state in ALIVE}


def state_of(harness: Harness, id: str) -> InstanceState:
    """The state, `gone` for an instance that is not known."""
    try:
        return harness.provisioner.get(id).state
    except InstanceNotFound:
        return InstanceState.gone


def wait_running(harness: Harness, id: str) -> Instance:
    assert harness.wait_until(lambda: state_of(harness, id) is InstanceState.running, harness.boot_seconds), (
        f"not running after {harness.boot_seconds} s, but {state_of(harness, id)}"
    )
    return harness.provisioner.get(id)


def wait_gone(harness: Harness, id: str) -> None:
    def gone() -> bool:
        return state_of(harness, id) is InstanceState.gone and id not in listed(harness)

    assert harness.wait_until(gone, harness.delete_seconds), f"still {state_of(harness, id)}"


def wait_listed(harness: Harness, *ids: str) -> None:
    assert harness.wait_until(lambda: set(ids) <= set(listed(harness)), harness.boot_seconds)


# --- offers ---


def offers_are_its_own_and_enough(harness: Harness) -> None:
    everything = list(harness.provisioner.offers(Need()))
    assert everything
    for offer in everything:
        assert offer.on == harness.provisioner.name
        assert offer.vcpus >= offer.cores >= 1
        assert offer.memory > 0
        assert offer.arch in ("x86_64", "arm64")
        assert offer.usd_per_hour is None or offer.usd_per_hour >= 0
    one = everything[0]
    # Of what a cloud sells, a system can use a little less.
    usable = catalog.usable(one.on, one.memory) if one.on in catalog.CLOUDS else one.memory
    need = Need(cpus=one.vcpus, memory=usable, arch=one.arch, region=one.region, zone=one.zone)
    enough = list(harness.provisioner.offers(need))
    assert one in enough
    assert all(offer.vcpus >= need.cpus and offer.memory >= need.memory for offer in enough)


def offers_nothing_for_what_it_has_not(harness: Harness) -> None:
    for need in (
        Need(cpus=1_000_000),
        Need(memory=1 << 60),
        Need(arch="vax"),
        Need(instance_type="no-such-type"),
        Need(region="no-such-region"),
        Need(zone="no-such-zone"),
    ):
        assert list(harness.provisioner.offers(need)) == []


# --- create, get, list ---


def create_gives_the_instance_of_the_spec(harness: Harness) -> None:
    spec, made = create(harness)

    assert made.id
    assert (made.name, made.on) == (spec.name, harness.provisioner.name)
    assert made.state in (InstanceState.pending, InstanceState.running)
    running = wait_running(harness, made.id)
    assert (running.id, running.name, running.on) == (made.id, made.name, made.on)
    assert running.instance_type == spec.offer.instance_type
    assert running.zone == spec.offer.zone
    assert running.address is not None
    assert bool(running.address.host) == (harness.provisioner.capabilities.transport == "ssh")


def create_again_is_the_same_instance(harness: Harness) -> None:
    spec, first = create(harness)

    again = harness.provisioner.create(spec)
    wait_running(harness, first.id)
    late = harness.provisioner.create(spec)

    assert first.id == again.id == late.id
    wait_listed(harness, first.id)
    assert set(listed(harness)) == {first.id}


def tags_come_back(harness: Harness) -> None:
    spec, made = create(harness)

    wait_listed(harness, made.id)
    assert (spec.tags[TAG_OWNER], spec.tags[TAG_VM]) == (spec.owner, spec.vm)
    for view in (listed(harness)[made.id], harness.provisioner.get(made.id)):
        assert spec.tags.items() <= view.tags.items()


def an_owner_sees_all_its_own_and_no_others(harness: Harness) -> None:
    mine = {create(harness)[1].id, create(harness)[1].id}
    _, theirs = create(harness, harness.other_owner)

    wait_listed(harness, *mine)
    assert harness.wait_until(lambda: theirs.id in listed(harness, harness.other_owner), harness.boot_seconds)
    assert set(listed(harness)) == mine
    assert set(listed(harness, harness.other_owner)) == {theirs.id}
    assert list(harness.provisioner.instances("0" * 26)) == []


def a_taken_name_is_not_adopted(harness: Harness) -> None:
    """A name that belongs to another machine is an error, and leaves that machine as it is."""
    spec, made = create(harness)
    running = wait_running(harness, made.id)
    stranger = harness.spec(harness.other_owner)

    with pytest.raises(CloudError):
        harness.provisioner.create(replace(stranger, name=spec.name))

    assert listed(harness, harness.other_owner) == {}
    assert harness.provisioner.get(made.id) == running


def an_unknown_instance_is_not_found(harness: Harness) -> None:
    gone = harness.spec(harness.owner).name
    for unknown in (gone, "no-such-instance", "../..", ""):
        with pytest.raises(InstanceNotFound) as caught:
            harness.provisioner.get(unknown)
        assert isinstance(caught.value, VmrunError)
        assert caught.value.message


# --- delete ---


def delete_makes_it_disappear(harness: Harness) -> None:
    _, made = create(harness)
    _, other = create(harness)
    wait_running(harness, made.id)
    wait_running(harness, other.id)

    harness.provisioner.delete(made.id)

    wait_gone(harness, made.id)
    assert state_of(harness, other.id) is InstanceState.running
    assert set(listed(harness)) == {other.id}


def delete_before_it_runs(harness: Harness) -> None:
    """An instance that was only just accepted can be deleted as well; where it is not visible yet, a little later."""
    _, made = create(harness)

    def deleted() -> bool:
        harness.provisioner.delete(made.id)
        return state_of(harness, made.id) in (InstanceState.stopping, InstanceState.gone)

    assert harness.wait_until(lambda: state_of(harness, made.id) in ALIVE, harness.boot_seconds)
    assert harness.wait_until(deleted, harness.delete_seconds)
    wait_gone(harness, made.id)


def delete_again_is_fine(harness: Harness) -> None:
    _, made = create(harness)
    wait_running(harness, made.id)

    harness.provisioner.delete(made.id)
    harness.provisioner.delete(made.id)
    wait_gone(harness, made.id)
    harness.provisioner.delete(made.id)
    harness.provisioner.delete("no-such-instance")
    harness.provisioner.delete("../..")
    harness.provisioner.delete("")

    assert listed(harness) == {}


def delete_leaves_nothing_over(harness: Harness) -> None:
    _, made = create(harness)
    wait_running(harness, made.id)

    harness.provisioner.delete(made.id)

    wait_gone(harness, made.id)
    assert harness.wait_until(lambda: not list(harness.provisioner.leftovers(harness.owner)), harness.delete_seconds)


# --- power-off ---


def power_off_ends_it_as_the_capabilities_say(harness: Harness) -> None:
    """Deleted by it, or stopped by it, still listed, and then to be deleted."""
    _, made = create(harness)
    running = wait_running(harness, made.id)

    harness.power_off(running)

    if not harness.provisioner.capabilities.poweroff_deletes:
        stopped = harness.wait_until(
            lambda: state_of(harness, made.id) is InstanceState.stopped, harness.delete_seconds
        )
        assert stopped
        wait_listed(harness, made.id)
        assert listed(harness)[made.id].state is InstanceState.stopped
        harness.provisioner.delete(made.id)
    wait_gone(harness, made.id)


BEHAVIOURS: tuple[Callable[[Harness], None], ...] = (
    offers_are_its_own_and_enough,
    offers_nothing_for_what_it_has_not,
    create_gives_the_instance_of_the_spec,
    create_again_is_the_same_instance,
    tags_come_back,
    an_owner_sees_all_its_own_and_no_others,
    a_taken_name_is_not_adopted,
    an_unknown_instance_is_not_found,
    delete_makes_it_disappear,
    delete_before_it_runs,
    delete_again_is_fine,
    delete_leaves_nothing_over,
    power_off_ends_it_as_the_capabilities_say,
)


def name(behaviour: Callable[[Harness], None]) -> str:
    """A behaviour's name, for test ids."""
    return behaviour.__name__
