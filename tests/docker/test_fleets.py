"""Several machines that boot share one job: all work, one is killed, the others finish, another one is had for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.test_jobs import containers, nothing_left
from tests.support.journals import claims, client_of, committed_tasks
from tests.support.shell import Shell, until
from vmrun.core.ledger import JobLedger
from vmrun.provisioners.docker.driver import DockerProvisioner

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

TASKS = 480
JOB = f"""
    import time
    import vmrun

    @vmrun.job(over=range({TASKS}))
    def task(x):
        time.sleep(0.5)
        return x
"""


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner) -> Iterator[Shell]:
    shell = Shell(isolated)
    # Small machines, and a silence that is noticed soon, but not of a computer that is only busy
    shell.write("vmrun.toml", '[docker]\ncpus = 1\nheartbeat = "1s"\ndead_after = "40s"\n')
    shell.write("job.py", JOB)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def running(shell: Shell, job: str) -> list[str]:
    """VMs that have claimed a part of the job, by the store."""
    return sorted({vm for _, vm in claims(shell, job)})


def done(shell: Shell, job: str) -> int:
    return len(committed_tasks(shell, job))


def container(shell: Shell, vm: str) -> str:
    """The name of a VM's container."""
    (name,) = [name for name in containers(shell) if vm in name]
    return name


def kill(name: str) -> None:
    """`docker kill`."""
    subprocess.run(["docker", "kill", name], check=True, capture_output=True, timeout=120)


def test_four_machines_share_a_job_and_the_three_that_are_left_finish_it(shell: Shell) -> None:
    # Given a job on four machines, whose client is gone
    job = shell.submit("--on", "docker", "--vms", "4", "job.py")
    until(lambda: len(running(shell, job)) == 4, 300, "all four machines work")
    asked = shell.ask("status", job)["job"]
    assert (asked["vms_asked"], len(asked["vms"])) == (4, 4)
    # When one is killed half-way
    victim = running(shell, job)[0]
    name = container(shell, victim)
    until(lambda: done(shell, job) >= TASKS * 2 // 5, 200, "nearly half of it is done")
    kill(name)
    assert done(shell, job) < TASKS * 4 // 5
    # Then the others finish the job, and every task is committed once
    assert shell.wait(job, timeout=400)["state"] == "done"
    assert committed_tasks(shell, job) == list(range(TASKS))
    assert shell.ask("result", job)["results"] == list(range(TASKS))
    assert len(running(shell, job)) == 4
    # What the killed one had in hand was taken over, and nothing else
    owners: dict[int, list[str]] = {}
    for shard, vm in claims(shell, job):
        owners.setdefault(shard, []).append(vm)
    taken_over = [vms for vms in owners.values() if len(vms) > 1]
    assert taken_over
    assert all(vms[0] == victim for vms in taken_over)
    until(lambda: nothing_left(shell) or shell.run("reap") is None, 120, "all machines are given back")


def test_a_machine_that_is_lost_is_replaced_if_asked(shell: Shell) -> None:
    job = shell.submit("--on", "docker", "--vms", "2", "--replace-lost", "1", "job.py")
    until(lambda: len(running(shell, job)) == 2, 300, "both machines work")
    victim, other = running(shell, job)
    kill(container(shell, victim))
    # A third machine is had in its place, and works
    until(lambda: len(running(shell, job)) == 3, 200, "another machine works")
    # A second loss is not made good: once was asked for
    kill(container(shell, other))
    assert shell.wait(job, timeout=400)["state"] == "done"
    assert committed_tasks(shell, job) == list(range(TASKS))
    fold = JobLedger(client_of(shell).desk, job).refresh()
    assert (fold.replaced, len(fold.vms)) == ([victim], 3)
    until(lambda: nothing_left(shell) or shell.run("reap") is None, 120, "all machines are given back")
