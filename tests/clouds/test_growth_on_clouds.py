"""A job that runs out of memory on a rented machine moves to a larger one by itself, and leaves nothing behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.journeys import Journey, journey
from tests.clouds.trouble import Rule, Trouble
from tests.docker.machines import engine_fault
from tests.support.shell import until
from vmrun.core.folds import VmFold
from vmrun.core.ledger import JobLedger
from vmrun.core.vm_ledger import VmLedger
from vmrun.fleet.search import TRIES_MAX

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

GIB = 2**30
#: A machine here has this part of what was rented, as the smallest of the catalogue has 4 GiB.
SHRINK = 4
TASKS, GREEDY = 6, 4
#: One task takes about 1.3 GB, the others hardly any; every run of each leaves a word in the output.
JOB = f"""
    import time
    import vmrun

    @vmrun.job(over=range({TASKS}), workers=1)
    def task(x):
        print(f"run of {{x}}.", flush=True)
        kept = []
        if x == {GREEDY}:
            time.sleep(4)
            for _ in range(130):
                kept.append(bytes(range(256)) * 40_000)
        return [x, len(kept)]
"""

WANTED = ("--on", "ec2", "--cpus", "2", "--memory", "3GB", "--arch", "x86_64", "--on-oom", "grow")


@pytest.fixture
def trip(isolated: Path, tmp_path: Path) -> Iterator[Journey]:
    if fault := engine_fault():
        pytest.skip(fault)
    with journey("ec2", isolated, tmp_path / "s3.log", memory=4 * GIB, shrink=SHRINK) as made:
        made.shell.run("init", made.cloud, "--yes")
        yield made


def machines(trip: Journey) -> list[VmFold]:
    """In the order in which they were asked for, as their journals tell."""
    vms = [str(call.about["name"]).rpartition("-")[2] for call in trip.creates()]
    return [VmLedger(trip.client.desk, vm).refresh() for vm in vms]


def committed(trip: Journey, job: str) -> list[int]:
    """Tasks by their settled outcomes, in order: a task that was settled twice would stand here twice."""
    ledger, found = JobLedger(trip.client.desk, job), list[int]()
    for plan in ledger.refresh().shards():
        shard = ledger.shard(plan)
        shard.refresh()
        for extent in shard.fold.extents:
            found.extend(range(extent.first, extent.end))
    return sorted(found)


def test_a_job_that_outgrows_its_machine_ends_on_a_larger_one(trip: Journey) -> None:
    before = trip.double.inventory()
    trip.shell.write("job.py", JOB)
    # When one task needs more than the cheapest machine that fits has
    done = json.loads(trip.shell.run("submit", *WANTED, "--json", "job.py", timeout=600).stdout)
    job = done["job"]["id"]
    # Then the job ends on a larger one
    assert done["job"]["tasks"] == {"total": TASKS, "done": TASKS, "failed": 0, "running": 0}
    assert trip.shell.ask("result", job)["results"] == [[x, 130 if x == GREEDY else 0] for x in range(TASKS)]
    sizes = [fold.intent.memory for fold in machines(trip) if fold.intent is not None]
    assert sizes == [4 * GIB, 8 * GIB]
    # What had finished on the first is not run again, and each task is settled once
    text = trip.shell.run("logs", job).stdout
    runs = Counter(int(piece.split("run of ")[1]) for piece in text.split(".") if "run of " in piece)
    assert {x: count for x, count in runs.items() if x != GREEDY} == dict.fromkeys(set(range(TASKS)) - {GREEDY}, 1)
    assert committed(trip, job) == list(range(TASKS))
    # And the verdict names machine, peak and limit of each that was too small
    outgrown = trip.shell.ask("status", job)["job"]["outgrown"]
    assert [each["memory_bytes"] for each in outgrown] == sizes[:-1]
    assert {each["task"] for each in outgrown} == {GREEDY}
    assert all(0 < each["peak_bytes"] <= GIB for each in outgrown)
    assert all(0 < each["limit_bytes"] <= GIB for each in outgrown)
    # And neither machine is left
    assert all(fold.gone is not None for fold in machines(trip))
    until(lambda: trip.double.inventory() == before, 60, "the account is empty")


def test_a_job_whose_larger_machine_is_not_to_be_had_at_first_waits_for_it(trip: Journey) -> None:
    before = trip.double.inventory()
    trip.shell.write("job.py", JOB)
    # Given a cloud that has a small machine, and then no other for as long as one search tries
    trip.double.script.add(Rule(Trouble.stockout, operation="RunInstances", skip=1, times=TRIES_MAX))
    done = trip.shell.run("submit", *WANTED, "--json", "job.py", timeout=600)
    # Then whoever submitted it is told, and the job ends on a larger one all the same
    assert "no larger machine is to be had just now: no machine was to be had on ec2: stockout in us-" in done.stderr
    assert "searching again in 15s" in done.stderr
    assert json.loads(done.stdout)["job"]["tasks"] == {"total": TASKS, "done": TASKS, "failed": 0, "running": 0}
    assert [call.outcome for call in trip.creates()].count("ok") == 2
    until(lambda: trip.double.inventory() == before, 60, "the account is empty")
