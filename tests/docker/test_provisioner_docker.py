"""The Docker driver: the behaviour suite of provisioners, and what is Docker's own."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.docker.machines import BOOT, CLOCK, Machines, open_provisioner, same_machine_other_data, until
from tests.suites.provisioner import BEHAVIOURS, Harness, name, poll_until
from tests.support.source import ROOT
from vmrun.core.clouds import CloudError, Fault, Instance, InstanceNotFound, InstanceSpec, InstanceState, Need
from vmrun.core.errors import Unreachable
from vmrun.machine import commands
from vmrun.provisioners.docker.api import Docker
from vmrun.provisioners.docker.containers import create_arguments
from vmrun.provisioners.docker.driver import DockerProvisioner


class DockerHarness:
    boot_seconds = 180.0
    delete_seconds = 180.0

    def __init__(self, provisioner: DockerProvisioner) -> None:
        self.provisioner = provisioner
        self.mine, self.theirs = Machines(provisioner), Machines(provisioner)
        self.owner, self.other_owner = self.mine.owner, self.theirs.owner

    def spec(self, owner: str) -> InstanceSpec:
        return (self.mine if owner == self.owner else self.theirs).plan().spec

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return poll_until(condition, seconds)

    def power_off(self, instance: Instance) -> None:
        def begun() -> bool:
            # The machine may still be too early in its boot for it, or be gone before it is told that it went well.
            done = docker("exec", instance.id, "systemctl", "poweroff").returncode == 0
            return done or docker("inspect", instance.id).returncode != 0

        until(begun, 60, "a power-off")

    def close(self) -> None:
        self.mine.close()
        self.theirs.close()


@pytest.fixture
def harness(provisioner: DockerProvisioner) -> Iterator[DockerHarness]:
    made = DockerHarness(provisioner)
    yield made
    made.close()


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=name)
def test_behaves_like_a_provisioner(behaviour: Callable[[Harness], None], harness: DockerHarness) -> None:
    behaviour(harness)


def docker(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", *arguments], capture_output=True, timeout=120, check=False)


def inspected(id: str) -> dict:
    return json.loads(docker("inspect", id).stdout)[0]


# --- offers ---


def test_an_offer_has_exactly_the_size_asked_for(provisioner: DockerProvisioner) -> None:
    (offer,) = provisioner.offers(Need(cpus=1, memory=1 << 30))
    assert (offer.instance_type, offer.vcpus, offer.memory) == ("docker-1x1", 1, 1 << 30)
    assert (offer.region, offer.usd_per_hour, offer.spot) == ("docker", 0.0, False)


def test_an_offer_for_anything_is_the_whole_engine(provisioner: DockerProvisioner) -> None:
    info = Docker().info()
    (offer,) = provisioner.offers(Need())
    assert (offer.vcpus, offer.memory) == (info["NCPU"], info["MemTotal"])


def test_an_instance_type_can_be_asked_for_by_name(provisioner: DockerProvisioner) -> None:
    (offer,) = provisioner.offers(Need(instance_type="docker-1x2"))
    assert (offer.instance_type, offer.vcpus, offer.memory) == ("docker-1x2", 1, 2 << 30)
    assert list(provisioner.offers(Need(instance_type="docker-1x2", memory=3 << 30))) == []


# --- create ---


def test_a_container_of_that_name_that_is_not_ours_is_left_alone(machines: Machines) -> None:
    plan = machines.plan()
    image = machines.provisioner._image.tag
    assert docker("create", "--name", plan.spec.name, image, "true").returncode == 0
    try:
        before = inspected(plan.spec.name)
        with pytest.raises(CloudError) as caught:
            machines.provisioner.create(plan.spec)
        assert caught.value.fault is Fault.config
        assert plan.spec.name in caught.value.message
        after = inspected(plan.spec.name)
        assert (after["Id"], after["State"]["Status"]) == (before["Id"], "created")
        # Neither seen, nor to be deleted.
        assert list(machines.provisioner.instances(machines.owner)) == []
        with pytest.raises(InstanceNotFound):
            machines.provisioner.get(before["Id"])
        with pytest.raises(CloudError):
            machines.provisioner.delete(before["Id"])
        assert inspected(plan.spec.name)["Id"] == before["Id"]
    finally:
        docker("rm", "--force", plan.spec.name)


def test_the_same_name_with_other_user_data_is_not_adopted(machines: Machines) -> None:
    booted = machines.create(machines.plan())
    with pytest.raises(CloudError) as caught:
        machines.provisioner.create(same_machine_other_data(booted.plan).spec)
    assert caught.value.fault is Fault.config
    assert machines.provisioner.get(booted.instance.id).state is InstanceState.running


def test_a_create_that_broke_off_before_the_start_is_completed(machines: Machines) -> None:
    """The client died between the engine's two calls: the machine is listed as pending, and a second call boots it."""
    plan = machines.plan()
    arguments = create_arguments(plan.spec, machines.provisioner._image.tag, publish=False)
    half = docker(*arguments).stdout.decode().strip()
    (listed,) = machines.provisioner.instances(machines.owner)
    assert (listed.id, listed.state) == (half, InstanceState.pending)

    booted = machines.boot(plan)

    assert booted.instance.id == half
    assert booted.host.run(["true"]).exit_code == 0


def test_a_client_that_is_killed_leaves_no_machine_that_never_ends(machines: Machines, tmp_path: Path) -> None:
    """Killed as soon as anything can be seen of the machine, with all that it started in its process group."""
    plan = machines.plan(boot_grace=3.0)
    (tmp_path / "spec").write_bytes(pickle.dumps(plan.spec))
    program = (
        "import pickle, sys\nfrom tests.docker.machines import open_provisioner\n"
        "open_provisioner().create(pickle.load(open(sys.argv[1], 'rb')))"
    )
    client = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "spec")], cwd=ROOT, start_new_session=True)
    until(lambda: list(machines.provisioner.instances(machines.owner)), 60, "something of the machine")
    os.killpg(client.pid, signal.SIGKILL)
    client.wait(60)
    until(lambda: not list(machines.provisioner.instances(machines.owner)), 240, "the machine has ended by itself")


def test_two_calls_at_once_make_one_machine(machines: Machines) -> None:
    plan = machines.plan()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: machines.provisioner.create(plan.spec), range(4)))
    assert len({instance.id for instance in made}) == 1
    machines.reach(plan, made[0]).connect(timeout=BOOT)


def test_limits_are_those_of_the_offer(machines: Machines) -> None:
    booted = machines.boot()
    facts = commands.read_facts(booted.host.run(commands.facts()))
    assert (facts.cpus, facts.memory) == (1, 512 << 20)
    shared = booted.host.run(["df", "--block-size=1", "--output=size", "/dev/shm"]).stdout.split()
    assert int(shared[1]) == 256 << 20


def test_an_offer_that_no_longer_fits_is_not_offered(machines: Machines) -> None:
    plan = machines.plan()
    huge = replace(plan.spec.offer, vcpus=100_000)
    with pytest.raises(CloudError) as caught:
        machines.provisioner.create(replace(plan.spec, offer=huge))
    assert caught.value.fault is Fault.not_offered
    assert list(machines.provisioner.instances(machines.owner)) == []


def test_mounts_are_seen_under_the_same_path(machines: Machines, tmp_path: Path) -> None:
    store = tmp_path / "a store, with a comma"
    store.mkdir()
    (store / "here").write_text("from outside")
    booted = machines.boot(mounts=(str(store),))
    assert booted.host.run(["cat", f"{store}/here"]).stdout == b"from outside"
    assert booted.host.run(["sudo", "-n", "tee", f"{store}/there"], input=b"from inside").exit_code == 0
    assert (store / "there").read_text() == "from inside"


def test_a_mount_that_is_not_there_is_refused(machines: Machines, tmp_path: Path) -> None:
    plan = machines.plan(mounts=(str(tmp_path / "absent"),))
    with pytest.raises(CloudError) as caught:
        machines.provisioner.create(plan.spec)
    assert caught.value.fault is Fault.config
    assert not (tmp_path / "absent").exists()


def test_ssh_can_be_published_on_this_machine(provisioner: DockerProvisioner) -> None:
    """As it is done where containers' own addresses lead nowhere (Docker Desktop)."""
    machines = Machines(open_provisioner(publish=True))
    try:
        booted = machines.boot()
        assert booted.instance.address is not None
        assert booted.instance.address.host == "127.0.0.1"
        assert booted.instance.address.port != 22
        assert booted.host.run(["id", "-un"]).stdout == b"vmrun\n"
    finally:
        machines.close()


def test_nothing_of_the_user_data_is_on_this_machine(machines: Machines) -> None:
    """Neither in the container's configuration nor in its labels."""
    booted = machines.create(machines.plan())
    secret = booted.plan.host.private.splitlines()[2]
    assert secret in booted.plan.spec.user_data
    assert secret not in json.dumps(inspected(booted.instance.id))


# --- get, list, delete ---


def test_the_beginning_of_an_id_is_nobody(machines: Machines) -> None:
    booted = machines.create(machines.plan())
    short = booted.instance.id[:12]
    assert docker("inspect", short).returncode == 0
    with pytest.raises(InstanceNotFound):
        machines.provisioner.get(short)
    machines.provisioner.delete(short)
    assert machines.provisioner.get(booted.instance.id).state is InstanceState.running


def test_created_at_is_on_the_engines_clock(machines: Machines) -> None:
    before = CLOCK.now()
    booted = machines.create(machines.plan())
    assert before - 2 <= booted.instance.created_at <= CLOCK.now() + 2


def test_delete_while_the_machine_powers_off(machines: Machines) -> None:
    """The engine removes it by itself at the same time; both ways end with it gone."""
    booted = machines.boot()
    with contextlib.suppress(Unreachable):
        assert booted.host.run(commands.power_off()).exit_code in (0, -1)
    machines.provisioner.delete(booted.instance.id)
    assert machines.is_gone(booted)


def test_volumes_of_the_owner_are_leftovers(machines: Machines) -> None:
    volume = f"vmrun-{machines.owner}-data"
    assert docker("volume", "create", "--label", f"vmrun-owner={machines.owner}", volume).returncode == 0
    try:
        (left,) = machines.provisioner.leftovers(machines.owner)
        assert (left.kind, left.id) == ("volume", volume)
    finally:
        docker("volume", "rm", volume)
    assert list(machines.provisioner.leftovers(machines.owner)) == []


def test_a_machine_leaves_no_control_group_and_no_volume(machines: Machines) -> None:
    booted = machines.boot()

    def groups() -> list[Path]:
        return list(Path("/sys/fs/cgroup").glob(f"*/docker/{booted.instance.id}"))

    def there() -> set[str]:
        return set(docker("volume", "ls", "--quiet").stdout.decode().split())

    # Of its own alone: other tests have volumes, too.
    volumes = {mount["Name"] for mount in inspected(booted.instance.id)["Mounts"] if mount["Type"] == "volume"}
    assert volumes <= there()
    if Path("/sys/fs/cgroup/systemd/docker").exists():
        assert groups()
    machines.provisioner.delete(booted.instance.id)
    until(lambda: not groups(), 20, "the control groups are gone")
    assert not volumes & there()
    assert list(machines.provisioner.leftovers(machines.owner)) == []
