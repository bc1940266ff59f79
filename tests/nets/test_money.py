"""`--max-cost` on machines that boot: the client is dead, the agent stops the job, keeps what there is, ends the VM."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker.machines import engine_fault
from tests.nets.flights import ENDLESS, Flight
from tests.nets.test_booted import MARGIN
from tests.nets.worlds import open_world
from tests.support.shell import until

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

#: What is paid for: seconds of a machine, boot and all, which takes a busy computer long.
SECONDS = 120.0
#: What tells the price of a machine, and dollars for an hour of it with its disk and its address, at the least.
WORLDS = {
    "docker": ({"VMRUN_DOCKER_USD_PER_HOUR": "36"}, (), 36.0),
    "ec2": ({}, ("--instance-type", "r6i.32xlarge"), 8.064),
}


@pytest.mark.parametrize("on", WORLDS)
def test_a_job_whose_money_is_spent_ends_with_its_vm_and_its_results_stay(
    on: str, isolated: Path, tmp_path: Path
) -> None:
    if fault := engine_fault():
        pytest.skip(fault)
    prices, options, rate = WORLDS[on]
    limit = round(rate * SECONDS / 3600, 3)
    with open_world(on, isolated, tmp_path) as world:
        world.shell.environment |= prices
        world.shell.write("job.py", ENDLESS)
        before = world.place.inventory()
        # Given a client that dies while its job runs
        flight = Flight(world, "running", options=(*options, "--max-cost", f"{limit}"))
        flight.run()
        (job,) = flight.fold.jobs
        # Then the machine itself stops the job, and ends
        flight.watch(SECONDS + MARGIN)
        fold = flight.latest()
        assert fold.drain is not None
        assert fold.drain.reason.startswith("maximum cost: it has cost $")
        assert fold.delete is None
        until(lambda: world.place.inventory() == before, 60, "nothing is left")
        # And whatever was done by then is there to be read
        given = world.shell.ask("result", job, exit_code=7)
    done = [task for task, value in enumerate(given["results"]) if value is not None]
    assert len(done) >= 2
    assert [given["results"][task] for task in done] == done
    told = given["job"]
    assert (told["state"], told["error_code"], told["tasks"]["done"]) == ("failed", "budget", len(done))
    assert "its money is spent: it has cost $" in told["error"]
    assert fold.drained_at - fold.given_at[0] <= SECONDS
    assert 0 < told["usd"] <= limit * 1.5
