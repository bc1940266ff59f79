"""The driver of borrowed hosts on hosts of paper: leases that count and that do not, and hosts that say no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.suites.provisioner import BEHAVIOURS, Harness, name
from vmrun.core import keys
from vmrun.core.clouds import CloudError, Fault, Instance, InstanceNotFound, InstanceState, Need, Scope
from vmrun.core.host_records import Borrow
from vmrun.core.leases import HostLedger
from vmrun.core.records import Intent
from vmrun.core.vm_ledger import VmLedger
from vmrun.provisioners.ssh.errors import Trouble
from vmrun.provisioners.ssh.hosts import parse_host
from vmrun.provisioners.ssh.leasing import MARGIN

from .paper import GIB, PaperHost, World


class SshHarness(World):
    """The world as the behaviour suite wants it."""

    boot_seconds = delete_seconds = 1.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.provisioner = self.client()

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return condition()

    def power_off(self, instance: Instance) -> None:
        self.paper.hosts[instance.zone].marker = None


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=name)
def test_behaviour(behaviour: Callable[[Harness], None], tmp_path: Path) -> None:
    behaviour(SshHarness(tmp_path))


def holder(world: World, host: str = "host1") -> Borrow | None:
    return HostLedger(world.desk(), keys.host_id(host, 22)).refresh().holder


def only(world: World, host: str = "host1") -> PaperHost:
    return world.paper.hosts[host]


# --- who has it ---


def test_a_host_that_a_vm_has_is_refused_with_its_name_and_its_deadline(world: World) -> None:
    first = world.spec(host="host1")
    world.client().create(first)
    with pytest.raises(CloudError) as caught:
        world.client().create(world.spec(host="host1"))
    assert (caught.value.fault, caught.value.scope) == (Fault.stockout, Scope.zone)
    assert first.name in caught.value.message
    assert "UTC" in caught.value.hint
    assert only(world).marker is not None
    assert only(world).marker["vm"] == first.vm  # type: ignore[index]


def test_what_was_given_back_may_be_had_by_the_next(world: World) -> None:
    made = world.client().create(world.spec(host="host1"))
    world.client().delete(made.id)
    assert holder(world) is None
    assert only(world).marker is None
    second = world.spec(host="host1")
    assert world.client().create(second).name == second.name


def test_a_lease_past_its_deadline_is_taken_and_the_host_cleaned_before(world: World) -> None:
    first, second = world.spec(host="host1", lifetime=100), world.spec(host="host1", lifetime=9999)
    world.client().create(first)
    world.clock.sleep(100 + MARGIN - 1)
    with pytest.raises(CloudError, match="is leased to"):
        world.client().create(second)
    world.clock.sleep(2)
    world.client().create(second)
    assert only(world).ran[-3:] == ["borrow", "clean", "borrow"]
    assert holder(world) is not None
    assert holder(world).vm == second.vm  # type: ignore[union-attr]


def test_the_lease_of_a_vm_whose_journal_has_ended_is_taken(world: World) -> None:
    first, second = world.spec(host="host1"), world.spec(host="host1")
    ledger = VmLedger(world.desk(), first.vm)
    ledger.intend(
        Intent(first.vm, first.owner, "ssh", first.name, "own", "host1", "host1", 8, 1, "x86_64", 0.0, "", 2e9, 900, "")
    )
    world.client().create(first)
    ledger.delete("its job ended", "client")
    world.client().create(second)
    assert only(world).marker["vm"] == second.vm  # type: ignore[index]


def test_the_lease_of_a_vm_that_is_not_on_its_host_is_taken_once_it_cannot_be_on_its_way(world: World) -> None:
    first, second = world.spec(host="host1"), world.spec(host="host1")
    HostLedger(world.desk(), keys.host_id("host1", 22)).borrow(
        Borrow(first.vm, first.owner, "me@host1", first.name, first.hard_deadline, 900.0), lambda _: False
    )
    with pytest.raises(CloudError, match="is leased to"):
        world.client().create(second)
    world.clock.sleep(901)
    only(world).trouble = Trouble.unreachable  # nobody can say that it is not there
    with pytest.raises(CloudError, match="is leased to"):
        world.client().create(second)
    only(world).trouble = None
    world.client().create(second)
    assert only(world).marker["vm"] == second.vm  # type: ignore[index]


def test_another_deployments_vm_keeps_the_host_until_its_deadline(world: World) -> None:
    theirs = {"vm": "0" * 26, "owner": "another", "name": "vmrun-another-vm", "at": 0}
    only(world).marker = {**theirs, "hard_deadline": int(world.clock.now()) + 50}
    with pytest.raises(CloudError, match=r"vmrun-another-vm until .* as the host itself says"):
        world.client().create(world.spec(host="host1"))
    assert only(world).marker["vm"] == theirs["vm"]  # type: ignore[index]
    assert holder(world) is None, "the lease was given back"
    world.clock.sleep(51 + MARGIN)
    world.client().create(world.spec(host="host1"))


def test_one_machine_under_two_names_is_not_had_twice(world: World) -> None:
    world.paper.hosts["alias"] = only(world)
    first = world.spec(host="host1")
    world.client().create(first)
    client = world.client(*world.hosts, parse_host("me@alias"))
    (offer,) = client.offers(Need(zone="alias"))
    second = world.spec(host="host2")
    with pytest.raises(CloudError, match="as the host itself says"):
        client.create(replace(second, offer=offer))
    assert only(world).marker["vm"] == first.vm  # type: ignore[index]


# --- hosts that say no, or nothing ---


def test_a_refused_host_is_named_with_the_reason_and_its_lease_given_back(world: World) -> None:
    only(world).refused = "there is a user vmrun that vmrun did not make"
    with pytest.raises(CloudError) as caught:
        world.client().create(world.spec(host="host1"))
    assert caught.value.fault is Fault.not_offered
    assert "me@host1 cannot be borrowed: there is a user vmrun" in caught.value.message
    assert holder(world) is None


def test_a_host_that_fails_halfway_is_cleaned_and_given_back(world: World) -> None:
    spec = world.spec(host="host1")
    only(world).broken = {"borrow"}
    with pytest.raises(CloudError, match="it failed"):
        world.client().create(spec)
    assert only(world).ran[-1] == "clean"
    assert holder(world) is None
    only(world).broken = {"borrow", "clean"}
    with pytest.raises(CloudError, match="it failed"):
        world.client().create(world.spec(host="host1"))
    assert holder(world) is not None, "it is not known to be clean"


def test_a_vm_on_a_host_that_does_not_answer_stays_listed_and_cannot_be_given_back(world: World) -> None:
    spec = world.spec(host="host1", lifetime=100)
    made = world.client().create(spec)
    only(world).trouble = Trouble.unreachable
    (listed,) = world.client().instances(world.owner)
    assert (listed.id, listed.state) == (made.id, InstanceState.running)
    assert "does not answer" in listed.reason
    for ask in (world.client().get, world.client().delete):
        with pytest.raises(CloudError) as caught:
            ask(made.id)
        assert caught.value.fault is Fault.unavailable
        assert not isinstance(caught.value, InstanceNotFound)
    # Past its deadline the host has cleaned itself, if it runs at all.
    world.clock.sleep(101 + MARGIN)
    assert world.client().get(made.id).tags == listed.tags == spec.tags
    world.client().delete(made.id)
    assert holder(world) is None
    assert list(world.client().instances(world.owner)) == []
    with pytest.raises(InstanceNotFound):
        world.client().get(made.id)


def test_giving_back_does_not_touch_the_next_vm_of_the_host(world: World) -> None:
    first = world.client().create(world.spec(host="host1", lifetime=100))
    world.clock.sleep(101 + MARGIN)
    second = world.spec(host="host1")
    world.client().create(second)
    world.client().delete(first.id)
    assert only(world).marker["vm"] == second.vm  # type: ignore[index]
    assert holder(world).vm == second.vm  # type: ignore[union-attr]


def test_a_vm_that_ended_by_itself_is_not_found(world: World) -> None:
    made = world.client().create(world.spec(host="host1"))
    only(world).marker = None
    with pytest.raises(InstanceNotFound):
        world.client().get(made.id)
    assert list(world.client().instances(world.owner)) == []


# --- offers ---


def test_hosts_that_cannot_be_worked_on_are_left_out_and_told(world: World) -> None:
    only(world, "host2").trouble = Trouble.other_key
    only(world, "host3").trouble = Trouble.no_sudo
    found = [offer.zone for offer in world.client().offers(Need())]
    assert found == ["host1", "host4", "host5"]
    assert [text.split(" ")[2] for text in world.told] == ["me@host2", "me@host3"]


def test_when_none_can_be_worked_on_it_is_an_error_of_the_configuration_or_of_the_moment(world: World) -> None:
    client = world.client(*world.hosts[:2])
    only(world, "host1").trouble = only(world, "host2").trouble = Trouble.other_key
    with pytest.raises(CloudError) as caught:
        client.offers(Need())
    assert caught.value.fault is Fault.config
    assert "me@host1" in caught.value.message
    assert "me@host2" in caught.value.message
    only(world, "host2").trouble = Trouble.unreachable
    with pytest.raises(CloudError) as caught:
        client.offers(Need())
    assert caught.value.fault is Fault.stockout
    assert "me@host2 does not answer" in caught.value.hint


def test_a_host_known_to_be_too_small_is_not_asked_again_for_a_day(world: World) -> None:
    client = world.client()
    assert len(list(client.offers(Need()))) == 5
    for host in world.paper.hosts.values():
        host.ran = []
    only(world, "host5").memory = 64 * GIB
    assert list(client.offers(Need(memory=48 * GIB))) == []
    assert all(host.ran == [] for host in world.paper.hosts.values())
    world.clock.sleep(86401)
    assert [offer.zone for offer in client.offers(Need(memory=48 * GIB))] == ["host5"]
