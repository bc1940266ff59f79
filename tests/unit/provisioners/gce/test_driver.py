"""The driver against a scripted Google: what it sends, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.discovery import wrong
from vmrun.core.clouds import Address, CloudError, Fault, InstanceState, Scope

from .world import DONE, ZONE, World, absent, failed, refusal

PENDING = DONE | {"status": "RUNNING"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def error_of(call: Callable[[], Any]) -> CloudError:
    with pytest.raises(CloudError) as caught:
        call()
    return caught.value


# --- create ---


def test_create_sends_one_request_and_waits_for_its_operation(world: World) -> None:
    spec = world.spec()
    world.answer(PENDING, PENDING, DONE, world.resource(spec))

    made = world.driver.create(spec)

    assert world.google.verbs() == [
        "POST instances",
        "GET operation-1",
        "GET operation-1",
        f"GET {spec.name}",
    ]
    assert wrong(world.google.asked[0].body, "Instance") == []
    assert (made.id, made.state) == (f"{ZONE}/{spec.name}", InstanceState.running)
    assert made.address == Address("203.0.113.9")
    assert made.tags == spec.tags
    assert (made.region, made.zone, made.instance_type) == ("us-central1", ZONE, "n2-standard-4")
    assert made.created_at == 1780000000.25


def test_the_same_spec_is_sent_the_same_way_again(world: World) -> None:
    spec = world.spec()
    world.answer(DONE, world.resource(spec))
    world.driver.create(spec)
    world.clock.sleep(600)
    world.answer(DONE, world.resource(spec))
    world.driver.create(spec)

    first, again = (each for each in world.google.asked if each.method == "POST")
    assert (first.body, first.query["requestId"]) == (again.body, again.query["requestId"])
    other = world.spec()
    world.answer(DONE, world.resource(other))
    world.driver.create(other)
    assert world.google.asked[-2].query["requestId"] != first.query["requestId"]


def test_a_name_that_exists_is_adopted_only_if_it_is_this_vm(world: World) -> None:
    spec, other = world.spec(), world.spec()
    taken = refusal(409, "alreadyExists", f"The resource 'projects/p/zones/z/instances/{spec.name}' already exists")
    world.answer(taken, world.resource(spec))
    assert world.driver.create(spec).name == spec.name

    world.answer(taken, world.resource(spec, labels=dict(other.tags)))
    error = error_of(lambda: world.driver.create(spec))

    assert error.fault is Fault.config
    assert "another VM" in error.message
    assert [each.method for each in world.google.asked] == ["POST", "GET", "POST", "GET"]


def test_a_disk_of_the_same_name_is_not_taken_for_the_machine(world: World) -> None:
    spec = world.spec()
    taken = refusal(409, "alreadyExists", f"The resource 'projects/p/zones/z/disks/{spec.name}' already exists")
    world.answer(taken, absent())

    assert "already exists" in error_of(lambda: world.driver.create(spec)).message


def test_an_operation_that_fails_is_the_answer_of_create(world: World) -> None:
    message = f"The zone 'projects/acme-1/zones/{ZONE}' does not have enough resources available"
    world.answer(PENDING, failed("ZONE_RESOURCE_POOL_EXHAUSTED", message))

    error = error_of(lambda: world.driver.create(world.spec()))

    assert (error.fault, error.scope) == (Fault.stockout, Scope.offer)
    assert error.cloud_code == "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert "not have enough resources" in error.message


def test_create_does_not_wait_for_ever(world: World) -> None:
    spec = world.spec()
    began = world.clock.monotonic()
    world.google.otherwise = lambda asked: (
        world.resource(spec, status="PROVISIONING") if asked.path.endswith(spec.name) else PENDING
    )

    made = world.driver.create(spec)

    assert made.state is InstanceState.pending
    assert 60 < world.clock.monotonic() - began < 100


def test_a_machine_that_is_accepted_and_not_yet_visible_is_pending(world: World) -> None:
    spec = world.spec()
    world.answer(DONE, absent())

    made = world.driver.create(spec)

    assert (made.id, made.state, made.tags) == (f"{ZONE}/{spec.name}", InstanceState.pending, spec.tags)


@pytest.mark.parametrize("broken", [ConnectionResetError("cut"), TimeoutError("slow"), (502, b"<html>bad gateway")])
def test_a_lost_answer_leaves_the_outcome_open_and_is_not_sent_again(world: World, broken: Any) -> None:
    world.answer(broken)

    error = error_of(lambda: world.driver.create(world.spec()))

    assert error.fault is Fault.unavailable
    assert world.google.verbs() == ["POST instances"]


def test_an_accepted_machine_is_in_doubt_when_its_operation_cannot_be_read(world: World) -> None:
    world.answer(PENDING, refusal(403, "forbidden", "Required 'compute.zoneOperations.get' permission for 'x'"))

    error = error_of(lambda: world.driver.create(world.spec()))

    assert error.fault is Fault.unavailable, "anything definite would let the machine be forgotten"
    assert "compute.zoneOperations.get" in error.hint


def test_nothing_is_created_after_its_hard_deadline(world: World) -> None:
    spec = world.spec(hard_deadline=world.clock.now() - 1)

    assert error_of(lambda: world.driver.create(spec)).fault is Fault.config
    assert world.google.asked == []
