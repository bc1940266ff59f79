"""The driver of EC2 on its double: the real SDK over a socket, and every trouble that a create call can meet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.double import Inventory
from tests.clouds.ec2 import Ec2Double
from tests.clouds.machines import PaperMachines
from tests.clouds.trouble import Rule, Trouble
from tests.suites.provisioner import poll_until
from vmrun.core.clock import SystemClock
from vmrun.core.clouds import (
    TAG_DEADLINE,
    TAG_OWNER,
    TAG_VM,
    CloudError,
    Fault,
    InstanceNotFound,
    InstanceSpec,
    InstanceState,
    Market,
    Need,
    Scope,
    instance_name,
)
from vmrun.core.estates import Grade
from vmrun.core.ids import new_deployment_id, new_id
from vmrun.provisioners.context import ProvisionerContext
from vmrun.provisioners.ec2.driver import Ec2Provisioner, open_driver
from vmrun.provisioners.ec2.estate import Ec2Estate, open_estate
from vmrun.provisioners.ec2.store_credentials import store_credentials

CLOCK = SystemClock()


class Bench:
    """A double, an account that `init` has made ready, and a driver."""

    def __init__(self, folder: Path) -> None:
        self.rng = random.SystemRandom()
        self.owner = new_deployment_id(CLOCK, self.rng)
        #: Seconds, on the double's own clock: it goes as it is put, so that what is late is so until then.
        self.time = 1000.0
        self.double = Ec2Double(PaperMachines(), now=lambda: self.time)
        self.context = ProvisionerContext(folder, folder, CLOCK, self.rng, self.double.settings())
        self.estate: Ec2Estate = open_estate(self.context)

    def driver(self) -> Ec2Provisioner:
        """As another process opens it."""
        return open_driver(self.context)

    def spec(self, *, spot: bool = False) -> InstanceSpec:
        vm, deadline = new_id(CLOCK, self.rng), float(int(CLOCK.now() + 3600))
        market = Market.spot if spot else Market.on_demand
        (offer, *_) = self.driver().offers(Need(instance_type="m6i.large", market=market))
        tags = {TAG_OWNER: self.owner, TAG_VM: vm, TAG_DEADLINE: f"{deadline:.0f}"}
        name = instance_name(self.owner, vm)
        return InstanceSpec(vm, self.owner, name, offer, "#cloud-config\n", deadline, tags)

    def sent(self, operation: str) -> list[Any]:
        return [call for call in self.double.script.calls if call.operation == operation]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for key, value in made.double.environment().items():
        monkeypatch.setenv(key, value)
    list(made.estate.establish(made.owner))
    yield made
    made.double.close()


REFUSED = [
    (Trouble.stockout, Fault.stockout, Scope.offer, "try again in a few minutes"),
    (Trouble.quota, Fault.quota, Scope.bucket, "--quota-code L-1216C47A"),
    (Trouble.not_offered, Fault.not_offered, Scope.offer, "--zone"),
    (Trouble.permission, Fault.permission, Scope.cloud, '"ec2:RunInstances"'),
    (Trouble.billing, Fault.billing, Scope.cloud, "verifying"),
    (Trouble.throttle, Fault.throttle, Scope.region, "wait"),
    (Trouble.config, Fault.config, Scope.cloud, "ec2.image"),
    (Trouble.unavailable, Fault.unavailable, Scope.region, "try again"),
    (Trouble.unknown, Fault.unknown, Scope.offer, "as it came"),
    (Trouble.request_lost, Fault.unavailable, Scope.region, "network"),
]


@pytest.mark.parametrize(("trouble", "fault", "scope", "hint"), REFUSED, ids=[row[0].value for row in REFUSED])
def test_a_refused_create_is_sent_once_understood_and_leaves_nothing(
    bench: Bench, trouble: Trouble, fault: Fault, scope: Scope, hint: str
) -> None:
    driver, spec = bench.driver(), bench.spec()
    bench.double.script.add(Rule(trouble, "RunInstances"))

    with pytest.raises(CloudError) as caught:
        driver.create(spec)

    assert (caught.value.fault, caught.value.scope) == (fault, scope)
    assert hint in caught.value.hint
    assert len(bench.sent("RunInstances")) == 1
    assert bench.double.inventory().instances == {}
    assert driver.create(spec).name == spec.name, "the same call again is granted once the trouble has passed"


def test_a_create_whose_reply_was_lost_is_adopted_by_the_next_call(bench: Bench) -> None:
    spec = bench.spec()
    bench.double.script.add(Rule(Trouble.reply_lost, "RunInstances"))

    with pytest.raises(CloudError) as caught:
        bench.driver().create(spec)
    assert caught.value.fault is Fault.unavailable
    (there,) = bench.double.inventory().instances

    assert bench.driver().create(spec).id == f"us-east-1/{there}"
    assert list(bench.double.inventory().instances) == [there]
    tokens = [call.about["token"] for call in bench.sent("RunInstances")]
    assert len(tokens) == 2
    assert len(set(tokens)) == 1


def test_a_machine_that_was_accepted_and_then_failed_says_why(bench: Bench) -> None:
    driver = bench.driver()
    bench.double.script.add(Rule(Trouble.accepted_then_failed, "RunInstances"))

    made = driver.create(bench.spec())

    assert poll_until(lambda: driver.get(made.id).state is InstanceState.gone, 20)
    seen = driver.get(made.id)
    assert seen.fault is Fault.stockout
    assert seen.reason.startswith("Server.InsufficientInstanceCapacity: ")


def test_the_end_of_a_machine_is_told_with_its_reason(bench: Bench) -> None:
    driver = bench.driver()
    spec = bench.spec(spot=True)
    made = driver.create(spec)
    by_itself_spec = bench.spec()
    by_itself = driver.create(by_itself_spec)
    assert poll_until(lambda: driver.get(by_itself.id).state is InstanceState.running, 20)

    bench.double.preempt(spec.name)
    bench.double.power_off(by_itself_spec.name)

    assert poll_until(lambda: driver.get(made.id).state is InstanceState.gone, 20)
    assert driver.get(made.id).fault is Fault.preempted
    assert poll_until(lambda: driver.get(by_itself.id).state is InstanceState.gone, 20), "it is made to end for good"
    assert driver.get(by_itself.id).fault is None
    assert driver.get(by_itself.id).reason


def test_a_spot_market_without_shutdown_behaviour_is_served_again_by_the_same_calls(bench: Bench) -> None:
    bench.double.refuse_shutdown_behavior_of_spot()
    spec = bench.spec(spot=True)

    made, again = bench.driver().create(spec), bench.driver().create(spec)

    assert made.id == again.id
    assert len(bench.double.inventory().instances) == 1
    assert len(bench.sent("RunInstances")) == 4


def test_what_is_created_late_is_not_found_at_first_and_then_is(bench: Bench) -> None:
    driver, spec = bench.driver(), bench.spec()
    bench.double.script.add(Rule(Trouble.late, "RunInstances", seconds=10))

    made = driver.create(spec)

    with pytest.raises(InstanceNotFound):
        driver.get(made.id)
    bench.time += 10
    assert poll_until(lambda: [one.id for one in driver.instances(bench.owner)] == [made.id], 20)


def test_small_pages_are_all_read_and_half_a_list_is_an_error(bench: Bench) -> None:
    driver = bench.driver()
    made = {driver.create(bench.spec()).id for _ in range(5)}
    bench.double.script.add(Rule(Trouble.small_pages, "DescribeInstances", size=2, times=-1))

    assert {one.id for one in driver.instances(bench.owner)} == made

    bench.double.script.clear()
    bench.double.script.add(Rule(Trouble.half_a_list, "DescribeInstances", times=-1))
    with pytest.raises(CloudError):
        driver.instances(bench.owner)


def test_a_strangers_machine_of_the_same_name_is_neither_adopted_nor_ended(bench: Bench) -> None:
    driver, spec = bench.driver(), bench.spec()
    stranger = bench.double.plant(spec.name)

    made = driver.create(spec)
    driver.delete(spec.name)

    assert made.id != f"us-east-1/{stranger}"
    assert poll_until(lambda: list(bench.double.inventory().instances) == [stranger], 20)


def test_doctor_finds_all_in_order_and_leaves_no_trace(bench: Bench) -> None:
    before = bench.double.inventory()

    found = {one.what: one for one in bench.estate.check(Need(cpus=128, memory=10**12))}

    bad = [f"{one.what}: {one.message}" for one in found.values() if one.grade is Grade.bad]
    assert bad == []
    assert found["permission ec2:RunInstances in us-east-1"].grade is Grade.good
    assert found["quota in us-east-1"].grade is Grade.good
    assert bench.double.inventory() == before


def test_doctor_tells_the_quota_before_a_machine_is_asked_for(bench: Bench) -> None:
    bench.double.quotas.set("L-1216C47A", 32)

    found = {one.what: one for one in bench.estate.check(Need(cpus=128))}

    assert found["quota in us-east-1"].grade is Grade.bad
    assert "L-1216C47A" in found["quota in us-east-1"].hint


def test_prices_come_from_the_clouds_own_lists(bench: Bench) -> None:
    bench.double.prices.on_demand["r6a.32xlarge"] = 7.25
    bench.double.prices.spot["r6a.32xlarge"] = 2.5

    row = next(row for row in bench.estate.prices() if row.instance_type == "r6a.32xlarge")

    assert (row.usd_per_hour, row.spot_usd_per_hour, row.vcpus, row.cores) == (7.25, 2.5, 128, 64)


def test_keys_for_the_store_are_lent(bench: Bench) -> None:
    lent = store_credentials(bench.context, "s3://bucket/prefix", 3600.0)

    assert lent["access_key_id"].startswith("ASIA")
    assert lent["session_token"]


def test_init_undone_leaves_the_account_empty(bench: Bench) -> None:
    driver = bench.driver()
    made = driver.create(bench.spec())
    driver.delete(made.id)

    list(bench.estate.dismantle(bench.owner))

    assert poll_until(lambda: bench.double.inventory() == Inventory(), 20)
