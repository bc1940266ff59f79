"""Several machines share one job: whoever of them is lost, every task is committed once, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.journals import claims, client_of, committed_tasks
from tests.support.shell import Shell, kill, processes, until
from vmrun.core.ledger import JobLedger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

JOB = """
    import os, time
    import vmrun

    @vmrun.job(over=range({tasks}))
    def task(x):
        time.sleep({seconds})
        # The last ones wait until the test has seen what it wants to see
        while x >= {held} and not os.path.exists({gate!r}):
            time.sleep(0.05)
        return x
"""


def written(shell: Shell, tasks: int, seconds: float = 0.0, *, held: int | None = None) -> Path:
    """A job whose tasks from `held` on wait for the file that is returned."""
    gate = shell.home / "gate"
    shell.write("vmrun.toml", '[local]\nheartbeat = "0.5s"\ndead_after = "25s"\n')
    shell.write(
        "job.py", JOB.format(tasks=tasks, seconds=seconds, held=tasks if held is None else held, gate=str(gate))
    )
    return gate


def working(shell: Shell, job: str) -> list[str]:
    """VMs that have claimed a part of the job."""
    return sorted({vm for _, vm in claims(shell, job)})


def lose(shell: Shell, vm: str) -> None:
    """End a machine as a power cut would: all its processes at once, the guardian first."""
    found = [number for number, line in processes(vm).items() if str(shell.home) in line]
    assert found
    for number in sorted(found):
        kill(number)


def resting(shell: Shell) -> list[str]:
    """VMs that are there and have nothing to do."""
    shown = shell.ask("status")["vms"]
    return sorted(vm["id"] for vm in shown if not vm["busy_because"] and vm["state"] == "ready")


def nothing_runs(shell: Shell) -> bool:
    return not processes(f"{shell.home}/.local/state/vmrun/local")


def test_machines_share_a_job_and_all_are_shown_and_given_back(shell: Shell) -> None:
    gate = written(shell, 60, held=0)
    client = shell.start("submit", "--vms", "3", "--workers", "1", "job.py")
    job = until(lambda: shell.ask("status")["jobs"], 60, "the job is there")[0]["id"]
    # Of 60 shards of a task each has taken only the one that it works at
    until(lambda: len(claims(shell, job)) == len(working(shell, job)) == 3, 60, "all three work")
    shown = shell.ask("status", job)["job"]
    assert shown["vms_asked"] == 3
    assert sorted(vm["id"] for vm in shown["vms"]) == working(shell, job)
    assert "3 of 3" in shell.run("status", job).stdout
    gate.touch()
    out, errors = client.communicate(timeout=240)
    assert client.returncode == 0, errors
    assert out.splitlines()[:3] == ["0", "1", "2"]
    assert committed_tasks(shell, job) == list(range(60))
    # Each shard was one machine's: nobody took what another one had in hand
    assert len(claims(shell, job)) == len(dict(claims(shell, job))) > 3
    assert shell.ask("status")["vms"] == []
    until(lambda: nothing_runs(shell), 30, "all machines have ended")


def test_the_client_and_one_machine_are_killed_and_the_others_finish(shell: Shell) -> None:
    gate = written(shell, 90, held=30)
    client = shell.start("submit", "--vms", "3", "--workers", "1", "job.py")
    job = until(lambda: shell.ask("status")["jobs"], 60, "the job is there")[0]["id"]
    until(lambda: len(working(shell, job)) == 3, 100, "all three work")
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    victim = working(shell, job)[0]
    lose(shell, victim)
    gate.touch()
    ledger = JobLedger(client_of(shell).desk, job)
    final = until(lambda: ledger.refresh().final, 240, "the job ends with nobody there")
    assert (final.outcome, final.done) == ("done", 90)
    assert committed_tasks(shell, job) == list(range(90))
    assert shell.ask("result", job)["results"] == list(range(90))
    shell.run("reap")
    until(lambda: nothing_runs(shell), 60, "all machines have ended")


def test_a_lost_machine_is_replaced_once_whoever_looks_after_the_job(shell: Shell) -> None:
    gate = written(shell, 90, held=30)
    job = shell.submit("--vms", "2", "--replace-lost", "1", "--workers", "1", "job.py")
    until(lambda: len(working(shell, job)) == 2, 100, "both work")
    victim, other = working(shell, job)
    # Two more look after the job, beside the process in the background
    watchers = [shell.start("wait", job) for _ in range(2)]
    lose(shell, victim)
    until(lambda: len(working(shell, job)) == 3, 100, "another machine works")
    lose(shell, other)
    gate.touch()
    for watcher in watchers:
        _, errors = watcher.communicate(timeout=240)
        assert watcher.returncode == 0, errors
    assert committed_tasks(shell, job) == list(range(90))
    fold = JobLedger(client_of(shell).desk, job).refresh()
    assert (fold.replaced, len(fold.vms)) == ([victim], 3)
    shell.run("reap")
    until(lambda: nothing_runs(shell), 60, "all machines have ended")


def test_whoever_leaves_while_machines_are_on_their_way_leaves_them_to_the_job(shell: Shell) -> None:
    gate = written(shell, 40, held=0)
    client = shell.start("submit", "--vms", "3", "--workers", "1", "job.py")
    job = until(lambda: shell.ask("status")["jobs"], 60, "the job is there")[0]["id"]
    os.killpg(client.pid, signal.SIGINT)
    _, errors = client.communicate(timeout=240)
    assert client.returncode == 130, errors
    until(lambda: len(working(shell, job)) == 3, 100, "all three work")
    gate.touch()
    assert shell.wait(job)["state"] == "done"
    assert committed_tasks(shell, job) == list(range(40))
    until(lambda: nothing_runs(shell), 60, "all machines have ended")


def test_machines_that_were_kept_warm_share_the_next_job(shell: Shell) -> None:
    gate = written(shell, 8, held=0)
    options = ("--vms", "2", "--workers", "1", "--keep-warm", "10m", "job.py")
    first = shell.submit(*options)
    until(lambda: len(working(shell, first)) == 2, 100, "both work")
    gate.touch()
    assert shell.wait(first)["state"] == "done"
    machines = working(shell, first)
    until(lambda: resting(shell) == machines, 60, "both rest")
    gate.unlink()
    second = shell.submit(*options)
    until(lambda: working(shell, second) == machines, 60, "both work at the next job")
    gate.touch()
    assert shell.wait(second)["state"] == "done"
    assert sorted(vm["id"] for vm in shell.ask("status", second)["job"]["vms"]) == machines
    shell.run("reap", "--all", "--yes")
    until(lambda: nothing_runs(shell), 60, "all machines have ended")


def test_calls_of_an_executor_are_shared(shell: Shell) -> None:
    shell.write(
        "program.py",
        """
        import os, time
        import vmrun

        def where(x):
            time.sleep(0.3)
            return os.getppid(), x

        if __name__ == "__main__":
            with vmrun.Executor(vms=2, workers=1) as pool:
                found = list(pool.map(where, range(200)))
            assert [x for _, x in found] == list(range(200))
            print(len({machine for machine, _ in found}))
        """,
    )
    program = [sys.executable, "program.py"]
    done = subprocess.run(
        program, cwd=shell.home, env=shell.env, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.stdout.strip() == "2", done.stderr
    until(lambda: nothing_runs(shell), 60, "all machines have ended")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--vms", "0", "job.py"), "--vms: 0 is not a whole number from 1 to 256"),
        (("--vms", "4", "script.py"), "4 machines for one task"),
        (("--vms", "4", "--", "true"), "4 machines for one task"),
        (("--replace-lost", "-1", "job.py"), "--replace-lost: -1 is not a whole number"),
    ],
)
def test_what_cannot_be_shared_is_refused(shell: Shell, options: tuple[str, ...], said: str) -> None:
    written(shell, 4)
    shell.write("script.py", "print(1)\n")
    error = json.loads(shell.run("submit", "--json", *options, exit_code=2).stdout)["error"]
    assert said in error["message"]
    assert error["hint"]
    assert not Path(shell.home, ".local/state/vmrun/local/machines").exists()


def test_the_plan_is_of_all_machines(shell: Shell) -> None:
    written(shell, 10)
    shell.write("vmrun.toml", "[local]\nusd_per_hour = 0.5\n")
    plan = shell.ask("submit", "--dry-run", "--vms", "4", "--max-lifetime", "1h", "job.py")["plan"]
    assert (plan["vms"], plan["usd_per_hour"], plan["usd_at_most"]) == (4, 2.0, 2.0)
    assert "4 VMs of local" in shell.run("submit", "--dry-run", "--vms", "4", "job.py").stdout
