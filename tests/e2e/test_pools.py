"""Pools of machines on this computer: kept up, taken by jobs, taken down, and at their end without anybody."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.shell import Shell, kill, processes, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

JOB = "import vmrun\n\n@vmrun.job(over=range(4))\ndef f(x):\n    return x\n"


@pytest.fixture
def shell(isolated, request):
    shell = Shell(isolated)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def vms(shell: Shell) -> dict[str, dict[str, object]]:
    return {vm["id"]: vm for vm in shell.ask("status")["vms"]}


def test_a_pool_is_kept_up_taken_by_jobs_and_taken_down(shell: Shell) -> None:
    shell.write("quick.py", JOB)
    up = shell.ask("up", "--size", "2", "--for", "1h")["pool"]
    assert (up["state"], up["size"], up["ready"] + up["busy"]) == ("up", 2, 2)
    there = vms(shell)
    assert set(there) == set(up["vms"])
    assert {vm["pool"] for vm in there.values()} == {"default"}
    # The same again makes nothing.
    assert set(shell.ask("up")["pool"]["vms"]) == set(there)
    job = shell.ask("submit", "quick.py")["job"]
    (taken,) = {vm["id"] for vm in job["vms"]}
    assert taken in there
    assert set(vms(shell)) == set(there), "it stays, although the job did not ask for it"
    # One is lost, and a pass of a reaper makes another.
    for number in processes(f"{taken}"):
        kill(number)
    until(lambda: (shell.run("reap"), len(vms(shell)) == 2 and taken not in vms(shell))[1], 240, "it is made anew")
    down = shell.ask("down")["pool"]
    assert (down["state"], down["vms"]) == ("down", [])
    assert vms(shell) == {}
    assert shell.ask("status")["pools"] == []


def test_without_anybody_its_machines_end_with_its_time(shell: Shell) -> None:
    # Long enough for a busy computer to make the machine before it is over
    up = shell.ask("up", "short", "--for", "30s")["pool"]
    (vm,) = up["vms"]
    assert processes(vm)
    until(lambda: not processes(vm), 240, "the machine ends by itself")
    assert shell.ask("status")["pools"][0]["state"] == "ended"
    shell.run("down", "short")
    assert shell.ask("status")["pools"] == []


def test_a_service_makes_what_is_missing_in_the_background(shell: Shell) -> None:
    up = shell.ask("up", "--for", "1h")["pool"]
    (vm,) = up["vms"]
    service = shell.start("reap", "--every", "1s", "--json")
    try:
        for number in processes(vm):
            kill(number)
        until(lambda: [each for each, seen in vms(shell).items() if each != vm and seen["state"] == "ready"], 240)
    finally:
        os.killpg(service.pid, signal.SIGTERM)
        service.communicate(timeout=240)
    assert service.returncode == 0
    shell.run("down")
    assert vms(shell) == {}


def test_reap_all_takes_pools_down_too(shell: Shell) -> None:
    shell.run("up", "--for", "1h")
    shell.run("reap", "--all", "--yes")
    shell.run("reap")
    assert vms(shell) == {}


def test_a_pool_that_would_have_no_end_is_refused(shell: Shell) -> None:
    done = shell.run("up", "--size", "2", exit_code=2)
    assert "--for 8h" in done.stderr
    assert shell.run("down", "nothing", exit_code=2).stderr.startswith("error: there is no pool 'nothing'")
    assert shell.ask("status")["pools"] == []
