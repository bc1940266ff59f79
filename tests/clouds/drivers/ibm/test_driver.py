"""The driver with the real SDK against the double of IBM Cloud, whose machines are paper: what it asks, and what of."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clouds.trouble import Rule, Trouble
from tests.suites.provisioner import poll_until
from tests.unit.provisioners.ibm.bodies import OTHER, OWNER, offer
from tests.unit.provisioners.manual_clock import ManualClock
from vmrun.core.clouds import (
    TAG_VM,
    CloudError,
    Fault,
    InstanceNotFound,
    InstanceState,
    Leftover,
    Market,
    Need,
    Scope,
)
from vmrun.core.secret import Secret
from vmrun.provisioners.ibm.driver import open_driver

from .world import SMALL, World

# --- creating ---


@pytest.mark.parametrize(
    ("trouble", "fault", "scope"),
    [
        (Trouble.quota, Fault.quota, Scope.bucket),
        (Trouble.not_offered, Fault.not_offered, Scope.offer),
        (Trouble.permission, Fault.permission, Scope.cloud),
        (Trouble.billing, Fault.billing, Scope.cloud),
        (Trouble.throttle, Fault.throttle, Scope.region),
        (Trouble.config, Fault.config, Scope.cloud),
        (Trouble.unavailable, Fault.unavailable, Scope.region),
        (Trouble.unknown, Fault.unknown, Scope.offer),
        (Trouble.request_lost, Fault.unavailable, Scope.region),
    ],
)
def test_a_refused_create_is_sent_once_and_leaves_nothing(
    world: World, trouble: Trouble, fault: Fault, scope: Scope
) -> None:
    world.script(Rule(trouble, "create_instance"))

    with pytest.raises(CloudError) as caught:
        world.provisioner.create(world.spec(OWNER))

    assert (caught.value.fault, caught.value.scope) == (fault, scope)
    assert caught.value.hint
    assert world.calls("create_instance", "create_floating_ip") == ["create_instance"]
    assert world.left() == []


def test_a_quota_is_named_as_the_offers_name_it(world: World) -> None:
    big = replace(world.spec(OWNER), offer=offer())
    world.provisioner.create(big)

    with pytest.raises(CloudError) as caught:
        world.provisioner.create(replace(world.spec(OWNER), offer=offer()))

    offers = world.provisioner.offers(Need(instance_type="mx2-128x1024"))
    assert {each.bucket for each in offers} == {caught.value.bucket}


def test_a_create_whose_reply_was_lost_is_adopted_by_the_next_call(world: World) -> None:
    spec = world.spec(OWNER)
    world.script(Rule(Trouble.reply_lost, "create_instance"))
    with pytest.raises(CloudError) as caught:
        world.provisioner.create(spec)
    assert caught.value.fault is Fault.unavailable

    made = world.another().create(spec)

    assert len(world.double.inventory().instances) == 1
    assert made.address is not None
    assert made.tags[TAG_VM] == spec.vm


def test_an_instance_that_lists_do_not_show_yet_is_waited_for(world: World) -> None:
    spec = world.spec(OWNER)
    world.script(Rule(Trouble.reply_lost, "create_instance"), Rule(Trouble.late, "create_instance", seconds=0.1))
    with pytest.raises(CloudError):
        world.provisioner.create(spec)

    assert world.provisioner.create(spec).name == spec.name
    assert len(world.double.inventory().instances) == 1


def test_a_name_that_no_instance_ever_shows_is_a_doubt_and_not_a_machine(world: World) -> None:
    spec = world.spec(OWNER)
    world.script(Rule(Trouble.reply_lost, "create_instance"), Rule(Trouble.late, "create_instance", seconds=3600))
    with pytest.raises(CloudError):
        world.provisioner.create(spec)
    clock = ManualClock()
    driver = open_driver(world.context(clock))
    began = clock.monotonic()

    with pytest.raises(CloudError) as caught:
        driver.create(spec)

    assert caught.value.fault is Fault.unavailable
    assert 30 <= clock.monotonic() - began < 60


def test_a_foreign_instance_of_the_name_is_neither_adopted_nor_touched(world: World) -> None:
    spec = world.spec(OWNER)
    foreign = world.double.plant(spec.name, zone=spec.offer.zone)

    with pytest.raises(CloudError) as caught:
        world.provisioner.create(spec)

    assert caught.value.fault is Fault.name_taken
    assert "left alone" in caught.value.hint
    with pytest.raises(InstanceNotFound):
        world.provisioner.get(spec.name)
    with pytest.raises(CloudError):
        world.provisioner.delete(spec.name)
    assert list(world.provisioner.instances(OWNER)) == []
    assert list(world.double.inventory().instances) == [foreign]


def test_an_instance_of_another_size_or_user_data_is_not_this_specs(world: World) -> None:
    spec = world.spec(OWNER)
    world.provisioner.create(spec)

    for other in (
        replace(spec, user_data="#cloud-config\n# other\n"),
        replace(spec, hard_deadline=spec.hard_deadline + 1),
        replace(spec, offer=replace(SMALL, instance_type="bx2-4x16")),
    ):
        with pytest.raises(CloudError) as caught:
            world.provisioner.create(other)
        assert caught.value.fault is Fault.config


def test_a_machine_that_finds_no_room_later_tells_so(world: World) -> None:
    world.script(Rule(Trouble.accepted_then_failed, "create_instance"))
    made = world.provisioner.create(world.spec(OWNER))
    assert poll_until(lambda: world.provisioner.get(made.id).fault is not None, 20)

    failed = world.provisioner.get(made.id)

    assert (failed.state, failed.fault) == (InstanceState.stopped, Fault.stockout)
    assert "cannot_start_capacity" in failed.reason
    assert [one.fault for one in world.provisioner.instances(OWNER)] == [Fault.stockout]
    world.provisioner.delete(made.id)
    assert world.all_gone()


# --- addresses ---


def test_the_address_is_there_when_create_returns(world: World) -> None:
    made = world.provisioner.create(world.spec(OWNER))

    assert made.address is not None
    assert len(world.double.inventory().addresses) == 1
    assert world.calls("create_floating_ip") == ["create_floating_ip"]


@pytest.mark.parametrize("trouble", [Trouble.unavailable, Trouble.throttle, Trouble.request_lost, Trouble.reply_lost])
def test_an_address_that_was_not_given_at_once_is_given_when_the_machine_runs(world: World, trouble: Trouble) -> None:
    world.script(Rule(trouble, "create_floating_ip"))
    spec = world.spec(OWNER)

    running = world.running(spec)

    assert running.address is not None
    assert len(world.double.inventory().addresses) == 1
    assert [one.address for one in world.provisioner.instances(OWNER)] == [running.address]


def test_looking_at_a_machine_that_has_its_address_changes_nothing(world: World) -> None:
    running = world.running(world.spec(OWNER))
    world.double.script.clear()

    assert world.provisioner.get(running.id) == running
    assert {call.operation for call in world.double.script.calls} == {"get_instance", "list_floating_ips"}


@pytest.mark.parametrize(("trouble", "fault"), [(Trouble.quota, Fault.quota), (Trouble.permission, Fault.permission)])
def test_a_machine_that_can_have_no_address_is_given_back_before_the_error(
    world: World, trouble: Trouble, fault: Fault
) -> None:
    world.script(Rule(trouble, "create_floating_ip"))

    with pytest.raises(CloudError) as caught:
        world.provisioner.create(world.spec(OWNER))

    assert caught.value.fault is fault
    assert world.all_gone()


def test_a_machine_without_address_that_cannot_be_given_back_is_a_doubt(world: World) -> None:
    world.script(Rule(Trouble.quota, "create_floating_ip"), Rule(Trouble.permission, "delete_instance"))

    with pytest.raises(CloudError) as caught:
        world.provisioner.create(world.spec(OWNER))

    assert caught.value.fault is Fault.unavailable
    assert "could not be deleted" in caught.value.message


def test_machines_that_are_reached_from_inside_have_no_public_address(world: World) -> None:
    world.changes["public_ip"] = False
    running = world.running(world.spec(OWNER))

    assert running.address is not None
    assert running.address.host == "127.0.0.1"
    assert world.double.inventory().addresses == []
    assert [one.address for one in world.provisioner.instances(OWNER)] == [running.address]


# --- deleting, and what is left over ---


def test_the_address_of_a_machine_that_was_deleted_by_hand_goes_too(world: World) -> None:
    spec = world.spec(OWNER)
    running = world.running(spec)
    world.double.delete_by_hand(spec.name)
    assert poll_until(lambda: not world.double.inventory().instances, 20)

    world.provisioner.delete(running.id)

    assert world.left() == []


def test_by_the_bare_name_another_process_tidies_as_well(world: World) -> None:
    spec = world.spec(OWNER)
    world.running(spec)
    world.double.delete_by_hand(spec.name)
    assert poll_until(lambda: not world.double.inventory().instances, 20)

    world.another().delete(spec.name)

    assert world.left() == []


@pytest.mark.parametrize("trouble", [Trouble.reply_lost, Trouble.request_lost, Trouble.unavailable])
def test_a_delete_that_was_not_answered_is_seen_through(world: World, trouble: Trouble) -> None:
    running = world.running(world.spec(OWNER))
    world.script(Rule(trouble, "delete_instance"))

    world.provisioner.delete(running.id)

    assert world.all_gone()


def test_trouble_with_the_address_does_not_keep_the_machine(world: World) -> None:
    running = world.running(world.spec(OWNER))
    world.script(Rule(Trouble.permission, "delete_floating_ip"))

    with pytest.raises(CloudError) as caught:
        world.provisioner.delete(running.id)

    assert caught.value.fault is Fault.permission
    assert poll_until(lambda: not world.double.inventory().instances, 20)


def test_an_address_without_its_machine_is_left_over_and_can_be_discarded(world: World) -> None:
    spec, kept = world.spec(OWNER), world.running(world.spec(OWNER))
    world.running(spec)
    world.double.delete_by_hand(spec.name)
    assert poll_until(lambda: len(world.double.inventory().instances) == 1, 20)
    other = world.another()

    (left,) = other.leftovers(OWNER)

    assert (left.kind, left.name, left.region) == ("floating-ip", spec.name, "us-south")
    assert list(other.leftovers(OTHER)) == []
    other.discard(left)
    other.discard(left)
    assert list(other.leftovers(OWNER)) == []
    assert world.provisioner.get(kept.id).address == kept.address


def test_what_is_in_use_by_now_is_not_discarded(world: World) -> None:
    spec = world.spec(OWNER)
    running = world.running(spec)
    (address,) = world.double.inventory().addresses
    (disk,) = world.double.inventory().disks
    world.provisioner.create(spec)

    for kind, key in (("floating-ip", address), ("volume", disk)):
        world.provisioner.discard(Leftover("ibm", kind, f"us-south/{key}", spec.name))

    assert world.provisioner.get(running.id).address == running.address
    assert world.double.inventory().disks == [disk]


# --- listing ---


def test_lists_are_read_to_the_last_page(world: World) -> None:
    made = {world.provisioner.create(world.spec(OWNER)).id for _ in range(5)}
    world.script(Rule(Trouble.small_pages, size=2, times=-1))

    found = list(world.another().instances(OWNER))

    assert {one.id for one in found} == made
    assert all(one.address for one in found)
    assert len(world.calls("list_instances")) == 3


def test_half_a_list_is_no_list(world: World) -> None:
    for _ in range(4):
        world.provisioner.create(world.spec(OWNER))
    world.script(Rule(Trouble.half_a_list, "list_instances", times=-1))

    with pytest.raises(CloudError) as caught:
        list(world.provisioner.instances(OWNER))

    assert caught.value.fault is Fault.unavailable


@pytest.mark.parametrize("trouble", [Trouble.throttle, Trouble.unavailable, Trouble.request_lost])
def test_a_list_is_asked_for_again_while_the_cloud_is_busy(world: World, trouble: Trouble) -> None:
    made = world.provisioner.create(world.spec(OWNER))
    world.script(Rule(trouble, "list_instances", times=3))

    assert [one.id for one in world.provisioner.instances(OWNER)] == [made.id]
    assert len(world.calls("list_instances")) == 4


def test_each_region_is_listed_once(world: World) -> None:
    world.changes["regions"] = ("us-south", "us-east")
    here = world.provisioner.create(world.spec(OWNER))
    there = world.spec(OWNER)
    there = replace(there, offer=replace(SMALL, region="us-east", zone="us-east-3"))
    made = world.provisioner.create(there)

    found = list(world.provisioner.instances(OWNER))

    assert sorted(one.id for one in found) == sorted([here.id, made.id])
    assert {one.region for one in found} == {"us-south", "us-east"}
    assert made.id.startswith("us-east/")
    assert world.another().get(there.name).id == made.id


# --- offers and spot ---


def test_offers_are_of_zones_with_a_subnet(world: World) -> None:
    need = Need(cpus=128, memory=10**12)

    everywhere = list(world.provisioner.offers(need))
    named = list(world.another(subnets=("lab-us-south-3",)).offers(need))

    assert {each.zone for each in everywhere} == {"us-south-1", "us-south-2", "us-south-3"}
    assert {each.zone for each in named} == {"us-south-3"}
    assert {each.zone for each in world.provisioner.offers(replace(need, zone="us-south-2"))} == {"us-south-2"}
    priced = [each for each in everywhere if each.usd_per_hour]
    assert min(priced, key=lambda each: each.usd_per_hour or 0).instance_type == "mx2-128x1024"


def test_there_is_no_spot_at_this_size_and_that_is_said(world: World) -> None:
    with pytest.raises(CloudError) as caught:
        list(world.provisioner.offers(Need(cpus=128, market=Market.spot)))

    assert caught.value.fault is Fault.not_offered
    assert "no spot on IBM at this size" in caught.value.message
    small = list(world.provisioner.offers(Need(cpus=16, market=Market.spot)))
    assert small
    assert all(each.spot for each in small)


def test_a_spot_machine_that_is_not_to_be_had_is_refused_without_a_call(world: World) -> None:
    spec = replace(world.spec(OWNER), offer=offer(spot=True))

    with pytest.raises(CloudError) as caught:
        world.provisioner.create(spec)

    assert caught.value.fault is Fault.not_offered
    assert world.calls("create_instance") == []


def test_a_spot_machine_that_is_taken_back_is_gone_and_its_address_is_left_over(world: World) -> None:
    spec = replace(world.spec(OWNER), offer=replace(SMALL, instance_type="bxf-2x8", spot=True))
    world.running(spec)

    world.double.preempt(spec.name)

    assert poll_until(lambda: not world.double.inventory().instances, 20)
    assert [left.name for left in world.provisioner.leftovers(OWNER)] == [spec.name]


# --- credentials and places ---


def test_a_wrong_key_is_told_each_time_and_never_waited_for(world: World) -> None:
    driver = world.another(api_key=Secret("wrong"))

    for _ in range(3):
        with pytest.raises(CloudError) as caught:
            list(driver.instances(OWNER))
        assert (caught.value.fault, caught.value.cloud_code) == (Fault.permission, "BXNIM0415E")


def test_the_key_of_the_environment_serves_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = world.another(api_key=Secret(""))
    monkeypatch.delenv("IBMCLOUD_API_KEY", raising=False)
    with pytest.raises(CloudError) as caught:
        list(driver.instances(OWNER))
    assert caught.value.fault is Fault.permission
    assert "IBMCLOUD_API_KEY" in caught.value.hint

    monkeypatch.setenv("IBMCLOUD_API_KEY", world.double.environment()["IBMCLOUD_API_KEY"])
    assert list(driver.instances(OWNER)) == []


def test_a_token_that_ran_out_is_fetched_anew(world: World) -> None:
    running = world.running(world.spec(OWNER))

    for _ in range(2):
        world.double.iam.expire()
        assert [one.id for one in world.provisioner.instances(OWNER)] == [running.id]
    world.double.iam.expire()
    world.provisioner.delete(running.id)

    assert world.all_gone()


def test_a_resource_group_is_named_or_given_by_id(world: World) -> None:
    ((key, _),) = world.double.account.resource_groups.items()
    made = world.another(resource_group="Default").create(world.spec(OWNER))

    assert [one.id for one in world.another(resource_group=key).instances(OWNER)] == [made.id]
    with pytest.raises(CloudError) as caught:
        world.another(resource_group="no-such-group").create(world.spec(OWNER))
    assert caught.value.fault is Fault.config


@pytest.mark.parametrize(
    "changes",
    [{"vpc": "no-such-vpc"}, {"security_group": "none"}, {"subnets": ("none",)}, {"image": "none"}, {"vpc": ""}],
    ids=str,
)
def test_a_place_that_is_not_there_is_named_with_the_remedy(world: World, changes: dict[str, object]) -> None:
    with pytest.raises(CloudError) as caught:
        world.another(**changes).create(world.spec(OWNER))

    assert caught.value.fault is Fault.config
    assert "[ibm]" in caught.value.hint
    assert world.left() == []


def test_a_zone_without_subnet_rules_out_the_zone_only(world: World) -> None:
    with pytest.raises(CloudError) as caught:
        world.another(subnets=("lab-us-south-1",)).create(world.spec(OWNER))

    assert (caught.value.fault, caught.value.scope) == (Fault.not_offered, Scope.zone)


# --- by its own hand ---


def test_a_machine_with_a_trusted_profile_deletes_itself_with_all_it_has(world: World, tmp_path: Path) -> None:
    world.changes["trusted_profile"] = "Profile-1"
    spec, other = world.spec(OWNER), world.running(world.spec(OWNER))
    world.running(spec)
    script = tmp_path / "self-delete"
    script.write_text(world.provisioner.capabilities.self_delete)
    environment = {
        "VMRUN_METADATA": f"{world.double.endpoint}/guest/{spec.name}",
        "VMRUN_CONSOLE": str(tmp_path / "console"),
        "VMRUN_PAUSE": "0.01",
    }

    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script)], env=environment, check=False, timeout=120, capture_output=True
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert poll_until(lambda: len(world.double.inventory().instances) == 1, 20)
    assert [one.id for one in world.provisioner.instances(OWNER)] == [other.id]
    assert list(world.provisioner.leftovers(OWNER)) == []


def test_without_a_trusted_profile_there_is_no_such_program(world: World) -> None:
    assert world.provisioner.capabilities.self_delete == ""


def test_opening_the_driver_loads_no_sdk_and_asks_nothing() -> None:
    program = (
        "import random, sys, pathlib; from vmrun.core.clock import SystemClock;"
        "from vmrun.provisioners.context import ProvisionerContext; from vmrun import registry;"
        "here = pathlib.Path('/nonexistent');"
        "p = registry.load_provisioner('ibm', ProvisionerContext(here, here, SystemClock(), random.Random(1)));"
        "print(p.name, sorted({m.partition('.')[0] for m in sys.modules} & {'ibm_vpc', 'ibm_cloud_sdk_core'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "ibm []"
