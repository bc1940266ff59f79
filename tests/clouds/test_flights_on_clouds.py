"""The flights example on each cloud as its user runs it: from the ranked choice to an account that is empty again.

The SDK is the real one, and so is the machine's boot; the cloud is its double, which answers on loopback only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.cloud_config import check_user_data
from tests.clouds.double import Inventory
from tests.clouds.journeys import Journey, journey
from tests.clouds.opening import NAMES
from tests.docker.machines import engine_fault
from tests.support import flights as naive
from tests.support.shell import until
from tests.support.source import ROOT
from vmrun.core import codec
from vmrun.core.clouds import instance_name
from vmrun.core.folds import VmFold
from vmrun.core.vm_ledger import VmLedger
from vmrun.transport.keys import new_key_pair

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

CPUS, MEMORY, ARCH = 2, 4 * 10**9, "x86_64"
NEED = ("--cpus", str(CPUS), "--memory", "4GB", "--arch", ARCH)


@pytest.fixture(params=NAMES)
def trip(request: pytest.FixtureRequest, isolated: Path, tmp_path: Path) -> Iterator[Journey]:
    """A cloud, in an account that `vmrun init` has made ready."""
    if fault := engine_fault():
        pytest.skip(fault)
    with journey(request.param, isolated, tmp_path / "s3.log") as made:
        made.shell.run("init", made.cloud, "--yes")
        made.canaries.add_key("client key", isolated / ".config" / "vmrun" / "keys" / "client.key")
        yield made


def test_flights_from_the_ranked_choice_to_an_empty_account(trip: Journey) -> None:
    naive.rows()
    before = trip.double.inventory()
    # When the example is submitted to the cloud
    flights = str(ROOT / "examples" / "flights.py")
    done = trip.shell.run("submit", flights, "--on", trip.cloud, *NEED, "-o", "out", timeout=400)
    # Then one machine was rented, the cheapest that fits, and booted with the user data that its intent names
    vm, fold = the_machine(trip)
    check_choice(trip, fold)
    (user_data,) = trip.machines.user_data.values()
    assert fold.intent is not None
    assert codec.sha256(user_data.encode()) == fold.intent.user_data
    check_user_data(trip.cloud, user_data, trip.canaries, trip.machines)
    # And it was let in over SSH, under a host key that has since taken the place of the one in the user data
    assert fold.ready is not None
    first = json.loads(user_data.partition("\n")[2])["ssh_keys"]["ed25519_public"].split()[1]
    assert fold.ready.host_key.startswith("ssh-ed25519 ")
    assert first not in fold.ready.host_key
    # And the agent worked by the store
    check_results(trip, done.stdout, vm)
    # And nothing of it is left: not at the cloud, not here, not in the list of what is still to be watched
    assert fold.gone is not None
    until(lambda: trip.double.inventory() == before, 60, "the account is empty")
    assert (before.instances, before.disks, before.addresses, before.keys) == ({}, [], [], [])
    assert trip.shell.ask("reap")["verdicts"] == []
    sessions = trip.shell.home / ".local" / "state" / "vmrun" / "sessions"
    assert not sessions.is_dir() or not list(sessions.iterdir())
    check_secrets(trip, done.stdout + done.stderr)
    trip.shell.run("init", trip.cloud, "--dismantle", "--yes")
    until(lambda: trip.double.inventory() == Inventory(), 60, "nothing that was founded is left")


def the_machine(trip: Journey) -> tuple[str, VmFold]:
    """The only machine that was asked for, and what its journal tells."""
    (call,) = trip.creates()
    assert call.outcome == "ok"
    client = trip.client
    name = str(call.about["name"])
    vm = name.rpartition("-")[2]
    assert name == instance_name(client.deployment, vm)
    return vm, VmLedger(client.desk, vm).refresh()


def check_choice(trip: Journey, fold: VmFold) -> None:
    """The type is the cheapest of the packaged catalogue: found here the naive way."""
    document = json.loads((ROOT / "vmrun" / "catalog" / "data" / f"{trip.cloud}.json").read_bytes())
    place = document["regions"].index(trip.region)
    prices = {
        name: price
        for name, (vcpus, _, gib, arch, _, rows) in document["types"].items()
        for region, price, *_ in rows
        if region == place and price and vcpus >= CPUS and gib * 2**30 * 0.93 >= MEMORY and arch == ARCH
    }
    (call,) = trip.creates()
    assert fold.intent is not None
    assert len(prices) > 20
    assert prices[call.about["instance_type"]] == min(prices.values()) == fold.intent.usd_per_hour
    assert (fold.intent.instance_type, fold.intent.zone) == (call.about["instance_type"], call.about["zone"])
    assert call.about["region"] == trip.region


def check_results(trip: Journey, printed: str, vm: str) -> None:
    """The table, the reduced value and the file are what one process computes; they come from the store."""
    for carrier, name in (("EV", "ExpressJet Airlines Inc."), ("HA", "Hawaiian Airlines Inc.")):
        assert any(line.startswith(f"{carrier} {name}") for line in printed.splitlines()), printed
    assert any(line.startswith("all") and f"{len(naive.rows()):,}" in line for line in printed.splitlines()), printed
    naive.check_csv((trip.shell.home / "out" / "delays.csv").read_text())
    (job,) = trip.shell.ask("status")["jobs"]
    assert job["state"] == "done"
    found = trip.shell.ask("result", job["id"])
    assert (found["errors"], found["reduced"]) == ([], naive.summary())
    stored = trip.store.objects()
    journal = f"deployment/jobs/{job['id']}/journal/000000"
    assert journal in stored
    assert f"deployment/vms/{vm}/000000" in stored
    assert f"deployment/index/vms/{vm}" not in stored
    # The machine signed with a key of its own what it committed.
    shards = [body for key, body in stored.items() if key.startswith(f"deployment/jobs/{job['id']}/shards/")]
    assert any(f"vm:{vm}".encode() in body for body in shards)


def check_secrets(trip: Journey, printed: str) -> None:
    """What was planted is in the files that are meant for it and nowhere else."""
    trip.canaries.check("what is printed", printed)
    for key, body in trip.store.objects().items():
        trip.canaries.check(f"the object {key}", body)
    trip.canaries.check("the server's log", trip.store.log.read_bytes())
    left = trip.canaries.files(trip.shell.home)
    assert left.pop("vmrun.toml") == ["store secret"]
    assert left.pop(".config/vmrun/keys/client.key") == ["client key (PEM)"]
    assert left == {}


@pytest.mark.parametrize("trip", ["ec2"], indirect=True)
def test_a_machine_with_another_host_key_is_not_talked_to_and_given_back(trip: Journey) -> None:
    trip.shell.write("job.py", "print('ran')\n")
    # Given a machine at the right address that is not the one that was asked for
    trip.machines.change = with_another_host_key
    done = trip.shell.run("submit", "--on", trip.cloud, *NEED, "job.py", exit_code=5, timeout=400)
    assert "host key" in done.stderr
    assert len(trip.creates()) == 1
    until(lambda: trip.double.inventory().instances == {}, 60, "it was given back")


def with_another_host_key(user_data: str) -> str:
    """The same but for the key by which the machine is known."""
    other = new_key_pair("other")
    head, _, body = user_data.partition("\n")
    document = json.loads(body)
    document["ssh_keys"] = {"ed25519_private": other.private, "ed25519_public": other.public + "\n"}
    return f"{head}\n{json.dumps(document)}\n"
