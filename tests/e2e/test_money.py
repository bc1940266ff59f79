"""A job's money ends it on its own machine, with nobody watching; and a deployment's budget keeps it from beginning."""

from __future__ import annotations

import re

import pytest

from tests.support.journals import client_of, committed_tasks
from tests.support.shell import Shell, processes, until
from vmrun.core.ledger import JobLedger
from vmrun.core.vm_ledger import VmLedger
from vmrun.watch.spending import known_vms

#: Half a minute of this computer at 0.1 dollars a second: it may be slow to begin.
PRICE, LIMIT = {"VMRUN_LOCAL_USD_PER_HOUR": "360"}, "3"
JOB = """
    import time
    import vmrun

    @vmrun.job(over=range(1000), workers=2)
    def slow(number):
        time.sleep(0.5)
        return number * 10
"""


@pytest.fixture
def priced(shell: Shell) -> Shell:
    shell.environment.update(PRICE)
    return shell


def test_the_money_of_a_job_ends_it_on_its_machine_while_its_client_is_dead(priced: Shell) -> None:
    priced.write("job.py", JOB)
    job = priced.submit("job.py", "--max-cost", LIMIT)
    desk = client_of(priced).desk
    (vm,) = until(lambda: list(known_vms(desk, 0.0)))
    until(lambda: VmLedger(desk, vm).refresh().ready)
    until(lambda: not processes(f"_bring-up {job}"), what="the client is gone")
    machines = priced.home / ".local/state/vmrun/local/machines"
    assert list(machines.iterdir())
    # From here on nobody looks but the machine itself
    until(lambda: not list(machines.iterdir()), seconds=120, what="the machine is gone")
    fold = VmLedger(desk, vm).refresh()
    assert fold.drain is not None
    assert fold.drain.reason.startswith("maximum cost: it has cost $")
    given = priced.ask("result", job, exit_code=7)
    values = [value for value in given["results"] if value is not None]
    assert 4 <= len(values) < 150
    assert values == [number * 10 for number in range(1000) if given["results"][number] is not None]
    told = given["job"]
    assert (told["state"], told["error_code"]) == ("failed", "budget")
    assert "its money is spent: it has cost $" in told["error"]
    assert "of the $3.00 that it may" in told["error"]
    assert 1.5 < told["usd"] <= 3.0
    assert told["tasks"]["done"] == len(values)
    spent = priced.ask("cost")
    assert spent["rows"][0]["job"] == job
    assert 1.5 < spent["rows"][0]["usd_on_demand"] <= 3.0


def test_machines_keep_to_the_money_together_and_the_last_one_ends_the_job(priced: Shell) -> None:
    priced.write("job.py", JOB.replace("range(1000)", "range(2000)"))
    job = priced.submit("job.py", "--vms", "2", "--max-cost", "5.2", "--workers", "1")
    desk = client_of(priced).desk
    ledger = JobLedger(desk, job)
    vms = until(lambda: len(ledger.refresh().vms) == 2 and list(ledger.fold.vms), what="both machines are there")
    until(lambda: not processes(f"_bring-up {job}"), what="the client is gone")
    machines = priced.home / ".local/state/vmrun/local/machines"
    until(lambda: not list(machines.iterdir()), seconds=120, what="both machines are gone")
    for vm in vms:
        fold = VmLedger(desk, vm).refresh()
        assert fold.max_cost == 2.6
        assert fold.drain is not None
        assert fold.drain.reason.startswith("maximum cost: it has cost $2.")
    told = priced.ask("result", job, exit_code=7)["job"]
    assert (told["state"], told["error_code"]) == ("failed", "budget")
    assert "its money is spent, of which each of its 2 VMs had a part" in told["error"]
    assert 2.6 < told["usd"] <= 5.2
    assert told["tasks"]["done"] == len(committed_tasks(priced, job)) > 4


def test_a_watched_job_that_runs_out_of_money_exits_with_7_and_says_what_was_spent(priced: Shell) -> None:
    priced.write("job.py", JOB)
    done = priced.run("submit", "job.py", "--max-cost", "2.4", exit_code=7)
    assert "local on local costs $360.0000 an hour, at most $2.40 in all" in done.stderr
    spent = re.search(r"its money is spent: it has cost \$(\d+\.\d+)", done.stderr)
    assert spent is not None, done.stderr
    assert 1.2 <= float(spent[1]) <= 2.4
    assert "--max-cost" in done.stderr


def test_the_budget_of_the_deployment_refuses_what_comes_after_it_is_spent(priced: Shell) -> None:
    priced.environment["VMRUN_BUDGET_USD_PER_DAY"] = "0.2"
    priced.write("short.py", "import time; time.sleep(3)")
    too_dear = priced.ask("submit", "short.py", "--max-cost", "5", exit_code=7)
    assert (
        "a job of up to $5.00 does not fit into the budget: $0.00 of this day's $0.20" in too_dear["error"]["message"]
    )
    priced.run("submit", "short.py")
    refused = priced.ask("submit", "short.py", exit_code=7)
    assert refused["error"]["code"] == "budget"
    assert "the budget is used up: $0." in refused["error"]["message"]
    assert "of this day's $0.20 are spent" in refused["error"]["message"]
    assert "budget.usd_per_day" in refused["error"]["hint"]
    # What costs nothing is not refused
    priced.environment["VMRUN_LOCAL_USD_PER_HOUR"] = "0"
    priced.run("submit", "--", "true")
