"""The driver against a double whose machines are paper: what is Compute Engine's own, and every trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clouds.gce import GceDouble, open_double
from tests.clouds.machines import PaperMachines
from tests.clouds.trouble import Rule, Script, Trouble
from tests.nets.moved_clock import MovedClock
from tests.suites.provisioner import poll_until
from vmrun.core.clock import SystemClock, system_rng
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_VM,
    CloudError,
    Fault,
    Instance,
    InstanceSpec,
    InstanceState,
    Market,
    Need,
    Offer,
    instance_name,
)
from vmrun.core.ids import new_deployment_id, new_id
from vmrun.provisioners.context import ProvisionerContext
from vmrun.provisioners.gce.driver import GceProvisioner, open_driver


class DoubleHarness:
    """A project of its own for each test."""

    boot_seconds = delete_seconds = 20.0

    def __init__(self, tmp_path: Path) -> None:
        self.machines = PaperMachines()
        #: The double's own, which a test may put forward.
        self.time = MovedClock()
        self.double: GceDouble = open_double(self.machines, "127.0.0.1", Script(), clock=self.time, pace=0.02)
        self.clock, self.rng = SystemClock(), system_rng()
        self.provisioner: GceProvisioner = open_driver(
            ProvisionerContext(tmp_path / "state", tmp_path / "cache", self.clock, self.rng, self.double.settings())
        )
        self.owner, self.other_owner = new_deployment_id(self.clock, self.rng), new_deployment_id(self.clock, self.rng)

    def spec(self, owner: str = "", **changes: object) -> InstanceSpec:
        vm, owner = new_id(self.clock, self.rng), owner or self.owner
        hard_deadline = float(int(self.clock.now()) + 3600)
        known = {
            "vm": vm,
            "owner": owner,
            "name": instance_name(owner, vm),
            "offer": self.offer(),
            "user_data": "#cloud-config\n{}\n",
            "hard_deadline": hard_deadline,
            "tags": {TAG_OWNER: owner, TAG_VM: vm, TAG_DEADLINE: str(int(hard_deadline))},
        }
        return InstanceSpec(**(known | changes))  # type: ignore[arg-type]

    def offer(self, instance_type: str = "n2-standard-4", market: Market = Market.on_demand) -> Offer:
        need = Need(instance_type=instance_type, market=market)
        return next(iter(self.provisioner.offers(need)))

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return poll_until(condition, seconds)

    def power_off(self, instance: Instance) -> None:
        self.double.power_off(instance.id)

    def fail(self, trouble: Trouble, operation: str = "compute.instances.insert", **more: object) -> None:
        self.double.script.add(Rule(trouble, operation, **more))  # type: ignore[arg-type]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[DoubleHarness]:
    made = DoubleHarness(tmp_path)
    yield made
    made.double.close()


def refused(harness: DoubleHarness, spec: InstanceSpec | None = None) -> CloudError:
    with pytest.raises(CloudError) as caught:
        harness.provisioner.create(spec or harness.spec())
    return caught.value


@pytest.mark.parametrize(
    ("trouble", "fault"),
    [
        (Trouble.stockout, Fault.stockout),
        (Trouble.accepted_then_failed, Fault.stockout),
        (Trouble.quota, Fault.quota),
        (Trouble.not_offered, Fault.not_offered),
        (Trouble.permission, Fault.permission),
        (Trouble.billing, Fault.billing),
        (Trouble.throttle, Fault.throttle),
        (Trouble.config, Fault.config),
        (Trouble.unavailable, Fault.unavailable),
        (Trouble.unknown, Fault.unknown),
        (Trouble.request_lost, Fault.unavailable),
    ],
    ids=lambda each: getattr(each, "value", each),
)
def test_a_refused_creation_says_why_and_leaves_nothing(harness: DoubleHarness, trouble: Trouble, fault: Fault) -> None:
    harness.fail(trouble)

    error = refused(harness)

    assert error.fault is fault
    assert error.hint
    assert harness.double.inventory().instances == {}
    assert harness.double.inventory().disks == []


def test_a_creation_whose_answer_was_lost_is_one_machine_when_it_is_sent_again(harness: DoubleHarness) -> None:
    spec = harness.spec()
    harness.fail(Trouble.reply_lost)

    assert refused(harness, spec).fault is Fault.unavailable
    made = harness.provisioner.create(spec)

    assert made.id == f"{spec.offer.zone}/{spec.name}"
    assert list(harness.double.inventory().instances) == [made.id]


def test_a_machine_that_shows_late_is_pending_and_then_there(harness: DoubleHarness) -> None:
    spec = harness.spec()
    harness.fail(Trouble.late, seconds=1800.0)

    made = harness.provisioner.create(spec)

    assert made.state is InstanceState.pending
    harness.time.ahead += 1800.0
    assert harness.wait_until(lambda: [one.id for one in harness.provisioner.instances(spec.owner)] == [made.id], 10)


def test_small_pages_make_the_same_list_and_half_a_list_is_an_error(harness: DoubleHarness) -> None:
    made = {harness.provisioner.create(harness.spec()).id for _ in range(3)}
    listing = "compute.instances.aggregatedList"
    harness.fail(Trouble.small_pages, listing, size=1, times=-1)
    assert {one.id for one in harness.provisioner.instances(harness.owner)} == made

    harness.fail(Trouble.half_a_list, listing, times=-1)
    with pytest.raises(CloudError):
        list(harness.provisioner.instances(harness.owner))


def test_a_foreign_machine_of_the_same_name_is_left_alone(harness: DoubleHarness) -> None:
    spec = harness.spec()
    planted = harness.double.plant(spec.name, tags={"team": "other"}, zone=spec.offer.zone)

    assert refused(harness, spec).fault is Fault.name_taken
    assert list(harness.double.inventory().instances) == [planted]


def test_spot_machines_are_taken_back_and_gone(harness: DoubleHarness) -> None:
    spec = harness.spec(offer=harness.offer(market=Market.spot))
    assert spec.offer.spot
    made = harness.provisioner.create(spec)
    assert harness.double.instance(spec.name)["scheduling"]["provisioningModel"] == "SPOT"

    harness.double.preempt(spec.name)

    assert harness.wait_until(lambda: not harness.double.inventory().instances, 20)
    assert list(harness.provisioner.instances(spec.owner)) == []
    harness.provisioner.delete(made.id)


def test_a_machine_stopped_by_hand_is_still_listed_and_deleted_with_its_disk(harness: DoubleHarness) -> None:
    made = harness.provisioner.create(harness.spec())
    harness.double.stop_by_hand(made.name)

    def stopped() -> bool:
        return [one.state for one in harness.provisioner.instances(harness.owner)] == [InstanceState.stopped]

    assert harness.wait_until(stopped, 20)
    harness.provisioner.delete(made.id)
    assert harness.wait_until(lambda: not harness.double.inventory().instances, 20)
    assert harness.double.inventory().disks == []


def test_the_user_data_arrives_as_it_is(harness: DoubleHarness) -> None:
    spec = harness.spec(user_data='#cloud-config\n{"x": "é\\n"}\n')
    harness.provisioner.create(spec)

    assert list(harness.machines.user_data.values()) == [spec.user_data]
