"""A job that needs more memory than its machine has moves to a larger one by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.test_jobs import containers, nothing_left
from tests.support.journals import client_of, committed_tasks
from tests.support.shell import Shell, kill, until
from vmrun.core.vm_ledger import VmLedger
from vmrun.provisioners.docker.driver import DockerProvisioner

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

GIB = 2**30
#: Task 5 takes about a gigabyte, the others hardly any; every run of each leaves a word in the output.
GREEDY = """
    import socket
    import time
    import vmrun

    @vmrun.job(over=range(8), workers=1)
    def task(x):
        print(f"run of {x}.", flush=True)
        kept = []
        if x == 5:
            time.sleep(6)
            for _ in range(100):
                kept.append(bytes(range(256)) * 40_000)
        return [x, len(kept), socket.gethostname()]
"""


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner) -> Iterator[Shell]:
    shell = Shell(isolated)
    shell.write("greedy.py", GREEDY)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def runs(shell: Shell, job: str) -> Counter[int]:
    """How often each task was begun, by what it wrote."""
    text = shell.run("logs", job).stdout
    return Counter(int(piece.split("run of ")[1]) for piece in text.split(".") if "run of " in piece)


def machines_of(shell: Shell, job: str) -> list[tuple[str, int]]:
    """The VMs that worked for a job, in the order in which they were made, and the memory of each."""
    client = client_of(shell)
    intents = [VmLedger(client.desk, view.id).refresh() for view in client.handle(job).status().vms]
    found = sorted(intents, key=lambda fold: fold.intended_at)
    return [(fold.intent.vm, fold.intent.memory) for fold in found if fold.intent is not None]


def test_it_moves_from_512_mb_to_2_gib_and_only_what_had_not_finished_runs_again(shell: Shell) -> None:
    done = json.loads(shell.run("submit", "--json", *WANTED, timeout=400).stdout)
    job = done["job"]["id"]
    assert done["job"]["state"] == "done"
    found = shell.ask("result", job)["results"]
    assert [row[:2] for row in found] == [[x, 100 if x == 5 else 0] for x in range(8)]
    # Both machines worked for it, the second one for the one task that the first was too small for.
    (first, small), (second, large) = machines_of(shell, job)
    assert (small, large) == (512 * 10**6, 2 * GIB)
    hosts = {x: host for x, _, host in found}
    assert {x for x, host in hosts.items() if host != hosts[0]} == {5}
    assert committed_tasks(shell, job) == list(range(8))
    counted = runs(shell, job)
    assert {x: count for x, count in counted.items() if x != 5} == dict.fromkeys([0, 1, 2, 3, 4, 6, 7], 1)
    # The verdict names the peak and the limit.
    (outgrown,) = shell.ask("status", job)["job"]["outgrown"]
    assert (outgrown["vm"], outgrown["memory_bytes"], outgrown["task"]) == (first, 512 * 10**6, 5)
    assert 0 < outgrown["limit_bytes"] < 512 * 10**6
    assert 0.5 * outgrown["limit_bytes"] < outgrown["peak_bytes"] < 512 * 10**6
    shown = shell.run("status", job).stdout
    assert f"{first}: task 5 peaked at " in shown
    assert "was the limit on a machine of 512 MB" in shown
    assert "task 5 ran out of memory, and runs again on a larger machine" in shell.run("logs", job).stderr
    # Nothing of either machine is left.
    assert nothing_left(shell)
    assert second not in str(shell.ask("status")["vms"])


WANTED = ("--on", "docker", "--cpus", "1", "--memory", "512MB", "--on-oom", "grow", "greedy.py")


def finished(shell: Shell, job: str) -> None:
    """It is done, on two machines, and each task is settled once."""
    assert shell.ask("status", job)["job"]["state"] == "done"
    assert [memory for _, memory in machines_of(shell, job)] == [512 * 10**6, 2 * GIB]
    assert committed_tasks(shell, job) == list(range(8))
    counted = runs(shell, job)
    assert {x: count for x, count in counted.items() if x != 5} == dict.fromkeys([0, 1, 2, 3, 4, 6, 7], 1)


def test_a_job_that_nobody_watches_moves_too(shell: Shell) -> None:
    job = shell.submit(*WANTED)
    until(lambda: shell.ask("status", job)["job"]["state"] in ("done", "failed"), 240, "the job ended by itself")
    finished(shell, job)
    until(lambda: not containers(shell), 60, "both machines are gone")


def test_a_job_whose_client_is_dead_stays_and_goes_on_when_somebody_waits_for_it(shell: Shell) -> None:
    # The client is to be dead before it is too late, however slowly this computer sees that tasks run.
    shell.write("greedy.py", GREEDY.replace("time.sleep(6)", "time.sleep(30)"))
    client = shell.start("submit", *WANTED)
    try:
        job = until(lambda: [each["id"] for each in shell.ask("status")["jobs"]], 120, "the job is there")[0]
        until(lambda: shell.ask("status", job)["job"]["tasks"]["done"] > 0, 120, "tasks run")
    finally:
        kill(client.pid)
        client.communicate()
    # The machine that was too small ends by itself; what had finished is kept, and what is left says what it is for.
    until(lambda: not containers(shell), 240, "the machine is gone")
    left = shell.ask("status", job)["job"]
    assert (left["state"], left["tasks"]["done"], left["tasks"]["failed"]) == ("pending", 7, 0)
    assert [each["task"] for each in left["outgrown"]] == [5]
    shell.run("wait", job, timeout=240)
    finished(shell, job)
    until(lambda: not containers(shell), 60, "the second machine is gone")


def test_a_script_that_the_system_ends_moves_too_and_without_growth_its_error_names_peak_and_limit(
    shell: Shell,
) -> None:
    shell.write(
        "big.py", "import sys\nx = [bytes(range(256)) * 40_000 for _ in range(100)]\nprint(len(x), *sys.argv[1:])\n"
    )
    asked = ("--on", "docker", "--cpus", "1", "--memory", "512MB", "--keep-warm", "10m")
    failed = json.loads(shell.run("submit", "--json", *asked, "big.py", exit_code=6, timeout=300).stdout)
    (error,) = failed["errors"]
    assert error["kind"] == "oom"
    assert "its memory peaked at " in error["message"]
    assert "and all tasks together may take 384 MB" in error["message"]
    # The same machine, still warm, is what it grows out of; it stays for others.
    done = shell.run("submit", *asked, "--on-oom", "grow", "big.py", "--", "word", timeout=240)
    assert done.stdout == "100 word\n"
    assert "on to a larger machine" in done.stderr
    job = shell.ask("status")["jobs"][0]
    (outgrown,) = job["outgrown"]
    assert outgrown["vm"] == failed["job"]["vms"][0]["id"]
    assert 300 * 10**6 < outgrown["peak_bytes"] < 512 * 10**6
    assert len(containers(shell)) == 2
    until(lambda: [vm["state"] for vm in shell.ask("status")["vms"]] == ["ready", "ready"], 60, "both rest")
    shell.run("reap", "--all", "--yes")
    assert nothing_left(shell)
