"""The driver against a scripted Google: what it sends, and what it makes of the answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.discovery import document, wrong
from vmrun.core.clouds import Address, CloudError, Fault, InstanceNotFound, InstanceState, Leftover, Need, Scope

from .world import DONE, PROJECT, ZONE, World, absent, failed, offer, refusal

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

    assert error.fault is Fault.name_taken
    assert "another VM" in error.message
    assert [each.method for each in world.google.asked] == ["POST", "GET", "POST", "GET"]


def test_a_disk_of_the_same_name_is_not_taken_for_the_machine(world: World) -> None:
    spec = world.spec()
    taken = refusal(409, "alreadyExists", f"The resource 'projects/p/zones/z/disks/{spec.name}' already exists")
    world.answer(taken, absent(f"instances/{spec.name}"))

    error = error_of(lambda: world.driver.create(spec))
    assert "already exists" in error.message
    assert error.fault is Fault.name_taken


def test_a_name_that_exists_when_the_creation_is_carried_out_is_adopted_too(world: World) -> None:
    spec = world.spec()
    message = f"The resource 'projects/p/zones/z/instances/{spec.name}' already exists"
    world.answer(PENDING, failed("RESOURCE_ALREADY_EXISTS", message), world.resource(spec))

    assert world.driver.create(spec).name == spec.name


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
    world.answer(DONE, absent(f"instances/{spec.name}"))

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


def test_without_a_default_network_it_is_the_one_of_the_deployment(tmp_path: Path) -> None:
    world = World(tmp_path, network="")
    lost = refusal(404, "notFound", f"The resource 'projects/{PROJECT}/global/networks/default' was not found")
    specs = [world.spec(), world.spec()]
    world.answer(lost, DONE, world.resource(specs[0]), DONE, world.resource(specs[1]))
    for spec in specs:
        world.driver.create(spec)

    bodies = [each.body for each in world.google.asked if each.method == "POST"]
    assert len(world.google.asked) == 5, "it is looked for once"
    assert [body["networkInterfaces"][0]["network"] for body in bodies] == [f"global/networks/vmrun-{world.owner}"] * 2


@pytest.mark.parametrize(
    "answer", [{"name": "default"}, refusal(403, "forbidden", "Required 'x.y.z' permission for 'x'")]
)
def test_the_default_network_is_taken_where_it_is_or_may_not_be_looked_at(tmp_path: Path, answer: Any) -> None:
    world = World(tmp_path, network="")
    spec = world.spec()
    world.answer(answer, DONE, world.resource(spec))

    world.driver.create(spec)

    assert world.google.asked[1].body["networkInterfaces"][0]["network"] == "global/networks/default"


def test_nothing_is_created_after_its_hard_deadline(world: World) -> None:
    spec = world.spec(hard_deadline=world.clock.now() - 1)

    assert error_of(lambda: world.driver.create(spec)).fault is Fault.config
    assert world.google.asked == []


# --- get, list ---


def test_a_machine_is_found_by_its_id_or_by_its_bare_name(world: World) -> None:
    spec = world.spec()
    world.answer(world.resource(spec))
    world.answer(page({f"zones/{ZONE}": [world.resource(spec)]}), world.resource(spec))

    by_id, by_name = world.driver.get(f"{ZONE}/{spec.name}"), world.driver.get(spec.name)

    assert by_id == by_name
    assert [each.path.rpartition(f"{PROJECT}/")[2] for each in world.google.asked] == [
        f"zones/{ZONE}/instances/{spec.name}",
        "aggregated/instances",
        f"zones/{ZONE}/instances/{spec.name}",
    ]
    assert world.google.asked[1].query["filter"] == f'name = "{spec.name}"'


@pytest.mark.parametrize("id", ["", "../..", "web-1", f"{ZONE}/web-1", "a/b/vmrun-x", f"{ZONE}/vmrun-x/", "vmrun-X"])
def test_what_cannot_be_a_machine_of_vmrun_is_not_asked_for(world: World, id: str) -> None:
    with pytest.raises(InstanceNotFound):
        world.driver.get(id)
    world.driver.delete(id)
    assert world.driver.boot_log(id) == ""
    assert world.google.asked == []


def test_a_wrong_project_is_not_taken_for_a_machine_that_is_gone(world: World) -> None:
    """A deletion that succeeds because nothing was found where nothing is would leave a VM running."""
    world.google.otherwise = lambda _: refusal(404, "notFound", f"The resource 'projects/{PROJECT}' was not found")

    for call in (world.driver.get, world.driver.delete, world.driver.boot_log):
        error = error_of(lambda call=call: call(f"{ZONE}/vmrun-x"))  # type: ignore[misc]
        assert not isinstance(error, InstanceNotFound)
        assert error.fault is Fault.config


STATES = {
    "PROVISIONING": InstanceState.pending,
    "STAGING": InstanceState.pending,
    "RUNNING": InstanceState.running,
    "REPAIRING": InstanceState.running,
    "PENDING_STOP": InstanceState.stopping,
    "STOPPING": InstanceState.stopping,
    "SUSPENDING": InstanceState.stopping,
    "DEPROVISIONING": InstanceState.stopping,
    "SUSPENDED": InstanceState.stopped,
    "STOPPED": InstanceState.stopped,
    "TERMINATED": InstanceState.stopped,
    "PENDING": InstanceState.pending,
}


def test_every_status_that_google_knows_has_a_state(world: World) -> None:
    spec = world.spec()
    assert set(STATES) == set(document()["schemas"]["Instance"]["properties"]["status"]["enum"])
    for status, state in STATES.items():
        world.answer(world.resource(spec, status=status))
        assert world.driver.get(f"{ZONE}/{spec.name}").state is state


def test_why_a_machine_was_ended_is_told(world: World) -> None:
    spec = world.spec()
    world.answer(world.resource(spec, status="TERMINATED", statusMessage="Instance was preempted."))
    world.answer(world.resource(spec, status="RUNNING", statusMessage="fine"))

    ended, running = world.driver.get(f"{ZONE}/{spec.name}"), world.driver.get(f"{ZONE}/{spec.name}")

    assert (ended.reason, ended.fault) == ("Instance was preempted.", Fault.preempted)
    assert (running.reason, running.fault) == ("", None)


def test_the_address_is_the_one_at_which_the_client_reaches_it(tmp_path: Path) -> None:
    outside, inside = World(tmp_path), World(tmp_path, public_ip=False)
    for world, address in ((outside, Address("203.0.113.9")), (inside, Address("10.128.0.2"))):
        spec = world.spec()
        world.answer(world.resource(spec), world.resource(spec, networkInterfaces=[{"network": "x"}]))
        assert world.driver.get(f"{ZONE}/{spec.name}").address == address
        assert world.driver.get(f"{ZONE}/{spec.name}").address is None


def page(scopes: dict[str, list[dict[str, Any]]], **more: Any) -> dict[str, Any]:
    """A page of an aggregated list, with the empty scopes that the API also sends."""
    empty = {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope."}}
    items: dict[str, Any] = {"zones/asia-east1-b": empty, "regions/asia-east1": empty}
    return {"items": items | {scope: {"instances": found} for scope, found in scopes.items()}} | more


def test_all_pages_by_label_and_by_name_are_one_list(world: World) -> None:
    one, two, bare = world.spec(), world.spec(), world.spec()
    far = offer(zone="europe-west4-b")
    elsewhere = world.spec(offer=far)
    stranger = world.spec(owner="0" * 26, name="vmrun-" + "0" * 26 + "-x", tags={})
    world.answer(
        page({f"zones/{ZONE}": [world.resource(one)]}, nextPageToken="next/1"),
        page({"zones/europe-west4-b": [world.resource(elsewhere)]}, nextPageToken="next/2"),
        page({f"zones/{ZONE}": [world.resource(two)]}),
        # By name: those again, one whose labels were taken away, and one that no filter should have let through.
        page({f"zones/{ZONE}": [world.resource(one), world.resource(bare, labels={}), world.resource(stranger)]}),
    )

    found = list(world.driver.instances(world.owner))

    assert [each.name for each in found] == [one.name, elsewhere.name, two.name, bare.name]
    assert found[1].id == f"europe-west4-b/{elsewhere.name}"
    queries = [each.query for each in world.google.asked]
    assert [each.get("pageToken") for each in queries] == [None, "next/1", "next/2", None]
    assert queries[0]["filter"] == f'labels.vmrun-owner = "{world.owner}"'
    assert queries[3]["filter"] == f'name eq "vmrun-{world.owner}-.*"'


UNREACHABLE = {"warning": {"code": "UNREACHABLE", "message": "The zone could not be reached."}}


@pytest.mark.parametrize(
    "gap",
    [
        {"items": {"zones/us-central1-f": UNREACHABLE}},
        {"items": {"zones/us-central1-f": {"warning": {"code": "LIST_OVERHEAD_QUOTA_EXCEED"}}}},
        {"unreachables": ["https://www.googleapis.com/compute/v1/projects/acme-1/zones/us-central1-f"]},
        {"unreachables": ["us-central1-f"]},
        {"warning": {"code": "PARTIAL_SUCCESS"}},
    ],
)
def test_a_listing_with_a_gap_is_an_error_even_when_google_calls_it_success(world: World, gap: dict[str, Any]) -> None:
    spec = world.spec()
    whole = page({f"zones/{ZONE}": [world.resource(spec)]})
    world.google.otherwise = lambda _: whole | gap | {"items": whole["items"] | gap.get("items", {})}

    error = error_of(lambda: list(world.driver.instances(world.owner)))

    assert error.fault is Fault.unavailable


def test_an_outage_in_a_region_that_is_not_used_holds_up_nothing(world: World) -> None:
    spec = world.spec()
    whole = page({f"zones/{ZONE}": [world.resource(spec)], "zones/asia-east2-a": []})
    whole["items"]["zones/asia-east2-a"] = UNREACHABLE
    world.google.otherwise = lambda _: whole

    assert [each.name for each in world.driver.instances(world.owner)] == [spec.name]


def test_a_listing_that_breaks_off_in_the_middle_is_an_error(world: World) -> None:
    spec = world.spec()
    world.answer(page({f"zones/{ZONE}": [world.resource(spec)]}, nextPageToken="2"))
    world.google.otherwise = lambda _: refusal(503, "backendError", "Backend error")

    assert error_of(lambda: list(world.driver.instances(world.owner))).fault is Fault.unavailable
    assert len(world.google.asked) == 1 + 3, "a request that only reads is sent again, and not for ever"


# --- delete, console ---


def test_delete_is_one_request_and_a_machine_that_is_gone_is_success(world: World) -> None:
    world.answer(DONE, absent("instances/vmrun-x"))

    world.driver.delete(f"{ZONE}/vmrun-x")
    world.driver.delete(f"{ZONE}/vmrun-x")

    assert world.google.verbs() == ["DELETE vmrun-x"] * 2
    first, again = (each.query["requestId"] for each in world.google.asked)
    assert first != again, "a deletion that failed must not be taken for the next one"


def test_delete_passes_on_what_is_in_its_way(world: World) -> None:
    world.answer(refusal(403, "forbidden", "Required 'compute.instances.delete' permission for 'x'"))

    error = error_of(lambda: world.driver.delete(f"{ZONE}/vmrun-x"))

    assert error.fault is Fault.permission
    assert "compute.instances.delete" in error.hint


def test_the_console_is_its_last_part(world: World) -> None:
    world.answer({"contents": "x" * 100_000 + "login:"}, absent("instances/vmrun-x"))

    assert world.driver.boot_log(f"{ZONE}/vmrun-x").endswith("xlogin:")
    assert world.driver.boot_log(f"{ZONE}/vmrun-x") == ""


# --- leftovers ---


def test_unused_disks_and_addresses_of_the_owner_are_leftovers(world: World) -> None:
    label, name = {"vmrun-owner": world.owner}, f"vmrun-{world.owner}-x"
    disk = {"name": name, "zone": f"https://x/zones/{ZONE}", "creationTimestamp": "2026-05-28T20:26:40Z"}
    address = {"name": "kept", "region": "https://x/regions/us-central1", "labels": label, "status": "RESERVED"}
    world.answer(
        {"items": {f"zones/{ZONE}": {"disks": [disk | {"name": "used", "labels": label, "users": ["x"]}]}}},
        {"items": {f"zones/{ZONE}": {"disks": [disk, disk | {"name": "vmrun-other-x"}]}}},
        {"items": {"regions/us-central1": {"addresses": [address]}}},
        {"items": {}},
    )

    found = list(world.driver.leftovers(world.owner))

    assert [(each.kind, each.id, each.name, each.region) for each in found] == [
        ("disk", f"{ZONE}/{name}", name, "us-central1"),
        ("address", "us-central1/kept", "kept", "us-central1"),
    ]
    assert found[0].created_at == 1780000000.0
    world.answer(DONE, refusal(400, "resourceInUseByAnotherResource", "used"), absent("disks/x"))
    world.driver.discard(found[0])
    world.driver.discard(found[1])
    world.driver.discard(Leftover("gce", "disk", f"{ZONE}/x", "x"))
    assert world.google.verbs()[-3:] == [f"DELETE {name}", "DELETE kept", "DELETE x"]
    world.driver.discard(Leftover("gce", "disk", "../../x", "x"))
    world.driver.discard(Leftover("gce", "group", f"{ZONE}/x", "x"))
    assert len(world.google.asked) == 4 + 3


# --- offers ---


def test_offers_are_those_zones_that_have_the_type(world: World) -> None:
    zones = {"n2-standard-8": ["a", "f"], "n2d-standard-8": ["c"]}

    def answer(asked: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, letters in zones.items():
            for letter in letters:
                if re.fullmatch(asked.query["filter"].removeprefix('name eq "').removesuffix('"'), name):
                    scope = found.setdefault(f"zones/us-central1-{letter}", {"machineTypes": []})
                    scope["machineTypes"].append({"name": name, "zone": f"us-central1-{letter}"})
        return {"items": found}

    world.google.otherwise = answer
    need = Need(cpus=8, instance_type="n2-standard-8")
    found = list(world.driver.offers(need))

    assert [(each.instance_type, each.zone, each.region) for each in found] == [
        ("n2-standard-8", "us-central1-a", "us-central1"),
        ("n2-standard-8", "us-central1-f", "us-central1"),
    ]
    assert found[0].bucket == "N2_CPUS"
    requests = len(world.google.asked)
    assert list(world.driver.offers(need)) == found
    assert len(world.google.asked) == requests, "what a zone has is asked once"
    assert [each.zone for each in world.driver.offers(Need(cpus=8, zone="us-central1-c"))] == ["us-central1-c"]
    assert list(world.driver.offers(Need(cpus=8, zone="us-central1-x"))) == []
    assert len(list(world.driver.offers(Need()))) == 3
    assert all(each.method == "GET" for each in world.google.asked), "an address that is too long is sent otherwise"


def test_a_need_that_nothing_meets_asks_nothing(world: World) -> None:
    assert list(world.driver.offers(Need(cpus=1_000_000))) == []
    assert list(world.driver.offers(Need(region="europe-west4"))) == [], "a region that is not configured"
    assert world.google.asked == []
