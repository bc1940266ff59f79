"""`--keep-on-failure`, on this computer: the machine of a failed job stays for debugging, and ends by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shell import Shell, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

JOB = """
    import os
    import vmrun

    @vmrun.job(over=range(6))
    def f(x):
        if x == 4 and not os.environ.get("MENDED"):
            raise ValueError(f"no {x}")
        return x
"""


@pytest.fixture
def shell(isolated: Path) -> Shell:
    shell = Shell(isolated)
    shell.write("job.py", JOB)
    return shell


def vms(shell: Shell) -> list[dict[str, object]]:
    found: list[dict[str, object]] = shell.ask("status")["vms"]
    return found


def test_a_failed_job_is_entered_its_task_run_again_and_its_machine_released(shell: Shell) -> None:
    done = shell.run("submit", "--keep-on-failure", "10m", "job.py", exit_code=6)
    job = shell.ask("status")["jobs"][0]["id"]
    assert f"vmrun ssh {job}" in done.stderr
    (vm,) = until(lambda: [vm for vm in vms(shell) if vm["state"] == "held"], 60, "the machine is held")
    assert vm["busy_because"] == f"held for debugging: 1 task of job {job} failed"
    assert vm["ends_because"] == "hold on failure"
    until(lambda: "run one again" in shell.run("ssh", job).stderr, 60, "the failed task is laid out")
    shown = shell.run("ssh", str(vm["id"]), "--", "echo $VMRUN_JOB; basename $PWD; ls; cat ../failed/4/traceback.txt")
    lines = shown.stdout.splitlines()
    assert lines[:2] == [job, "code"]
    assert "job.py" in lines
    assert "ValueError: no 4" in shown.stdout
    again = shell.run("ssh", job, "--", "vmrun-again", "4", exit_code=1)
    assert again.stderr.rstrip().endswith("ValueError: no 4")
    assert shell.run("ssh", job, "--", "MENDED=1 vmrun-again 4").stdout == "task 4 returned 4\n"
    # It is left alone by the reaper, and by whoever looks for a warm machine
    (verdict,) = shell.ask("reap")["verdicts"]
    assert verdict["delete"] is False
    assert "held for debugging" in verdict["reason"]
    assert shell.ask("release", job)["gone"] is True
    assert vms(shell) == []
    refused = shell.run("ssh", job, exit_code=2)
    assert "there is no running VM" in refused.stderr


def test_the_machine_ends_by_itself_when_the_time_is_over(shell: Shell) -> None:
    shell.run("submit", "--keep-on-failure", "3s", "job.py", exit_code=6)
    vm = until(lambda: vms(shell) or "none", 60, "the state of the machine")
    job = shell.ask("status")["jobs"][0]["id"]
    until(lambda: vms(shell) == [], 60, f"{vm} is gone")
    name = shell.ask("status", job)["job"]["vms"][0]["id"]
    life = shell.ask("why", name)["life"]
    assert [entry["type"] for entry in life][3:5] == ["HOLD", "DRAIN"]
    assert "hold on failure" in life[4]["text"]


def test_a_machine_that_works_is_not_released_and_one_that_is_warm_is(shell: Shell) -> None:
    shell.write("slow.py", "import time, os\nwhile not os.path.exists(os.environ['GATE']): time.sleep(0.05)\n")
    gate = shell.home / "gate"
    job = shell.submit("--keep-warm", "10m", "--env", f"GATE={gate}", "slow.py")
    until(lambda: shell.ask("status", job)["job"]["tasks"]["running"], 60, "it runs")
    refused = shell.run("release", job, exit_code=2)
    assert f"works on job {job}" in refused.stderr
    # A job that runs is entered as well
    assert shell.run("ssh", job, "--", "ls").stdout.split() == ["slow.py"]
    gate.touch()
    assert shell.wait(job)["state"] == "done"
    until(lambda: not vms(shell)[0]["busy_because"], 60, "it rests")
    assert shell.ask("release", str(vms(shell)[0]["id"]))["gone"] is True
    assert vms(shell) == []


ALL_FAIL = """
    import pathlib
    import time
    import vmrun

    @vmrun.job(over=range(24))
    def f(x):
        met = pathlib.Path.cwd().parents[2]  # work directories of one machine: each has its own
        pathlib.Path("{HERE}", met.name).touch()
        deadline = time.monotonic() + 300
        while len(list(pathlib.Path("{HERE}").iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        raise ValueError(f"no {x}")
"""


def test_of_three_machines_on_which_every_task_failed_one_is_held(shell: Shell) -> None:
    """The tasks wait until all three have begun one, so that each has seen a failure."""
    met = shell.home / "met"
    met.mkdir()
    shell.write("job.py", ALL_FAIL.replace("{HERE}", str(met)))
    shell.run("submit", "--vms", "3", "--workers", "1", "--keep-on-failure", "10m", "job.py", exit_code=6, timeout=250)
    assert len(list(met.iterdir())) == 3
    job = shell.ask("status")["jobs"][0]["id"]
    (held,) = until(
        lambda: vms(shell) if [vm["state"] for vm in vms(shell)] == ["held"] else None, 60, "the other two are gone"
    )
    # It has what failed on the others, too
    until(lambda: "run one again" in shell.run("ssh", job).stderr, 60, "the failed tasks are laid out")
    assert len(shell.run("ssh", job, "--", "ls ../failed").stdout.split()) == 20
    claimants = shell.ask("status", job)["job"]["vms"]
    assert len(claimants) == 3
    assert shell.ask("release", str(held["id"]))["gone"] is True
    assert vms(shell) == []
