"""`--keep-on-failure` on a machine that boots: entered over SSH with the client dead, gone when the time is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.test_jobs import containers, inside
from tests.support.journals import client_of
from tests.support.shell import Shell, kill, processes, until
from vmrun.agent.pulse import HOLD_MARGIN
from vmrun.core.errors import Unreachable
from vmrun.provisioners.docker.driver import DockerProvisioner
from vmrun.submit.request import SubmitRequest

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

JOB = """
    import os
    import time
    import vmrun

    @vmrun.job(over=range(4))
    def f(x):
        time.sleep(3)
        if x == 2 and not os.environ.get("MENDED"):
            raise ValueError(f"no {x}")
        return x
"""
CONFIG = """
    [docker]
    heartbeat = "1s"
    lease = "60s"
    deadman_poll = "1s"
    flush_grace = "2s"
"""


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner) -> Iterator[Shell]:
    shell = Shell(isolated)
    shell.write("job.py", JOB)
    shell.write("vmrun.toml", CONFIG)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def held(shell: Shell, job: str) -> dict[str, object]:
    """The machine of the job, once it is held and all is laid out."""

    def look() -> dict[str, object] | None:
        found = [vm for vm in shell.ask("status")["vms"] if vm["state"] == "held"]
        return found[0] if found else None

    vm: dict[str, object] = until(look, 200, "the machine is held")
    until(lambda: "run one again" in shell.run("ssh", job, "--", "cat ../welcome.txt").stdout, 60, "it is laid out")
    return vm


def test_it_is_entered_as_the_user_of_the_job_and_ends_by_itself_with_the_client_dead(shell: Shell) -> None:
    job = shell.submit("--on", "docker", "--keep-on-failure", "90s", "job.py")
    until(lambda: shell.ask("status", job)["job"]["tasks"]["running"], 200, "it runs")
    # Whoever submitted is dead: nothing but the machine itself can end it
    for number in processes(job):
        kill(number)
    vm = held(shell, job)
    assert vm["ends_because"] == "hold on failure"
    shown = shell.run("ssh", str(vm["id"]), "--", "id -un; echo $VMRUN_JOB; pwd; ls *.py; sudo -n true; echo $?")
    user, name, place, files, sudo = shown.stdout.split()
    assert (user, name, files, sudo) == ("vmjob", job, "job.py", "1")
    assert place == f"/var/lib/vmrun/work/{job}/code"
    again = shell.run("ssh", job, "--", "vmrun-again", "2", exit_code=1)
    assert again.stderr.rstrip().endswith("ValueError: no 2")
    assert shell.run("ssh", job, "--", "MENDED=1 vmrun-again 2").stdout == "task 2 returned 2\n"
    # Past the job, on the machine itself: the timer's lease ends with the hold
    lease = shell.run("ssh", str(vm["id"]), "--plain", "--", "id -un; cat /var/lib/vmrun/lease").stdout.split()
    assert lease[0] == "vmrun"
    assert isinstance(vm["ends_at"], int | float)
    assert int(lease[1]) <= vm["ends_at"] + HOLD_MARGIN
    until(lambda: not containers(shell), 240, "the machine is gone")


def test_the_timer_ends_a_held_machine_whose_agent_does_not(shell: Shell) -> None:
    job = shell.submit("--on", "docker", "--keep-on-failure", "60s", "job.py")
    held(shell, job)
    (name,) = containers(shell)
    pid = inside(name, "systemctl", "show", "-p", "MainPID", "--value", "vmrun-agent.service").strip()
    inside(name, "kill", "-STOP", pid)
    until(lambda: not containers(shell), 240, "the machine is gone")


def test_a_hold_is_ended_early_and_an_agent_that_is_killed_holds_on(shell: Shell) -> None:
    job = shell.submit("--on", "docker", "--keep-on-failure", "10m", "job.py")
    held(shell, job)
    (name,) = containers(shell)
    pid = inside(name, "systemctl", "show", "-p", "MainPID", "--value", "vmrun-agent.service").strip()
    inside(name, "kill", "-9", pid)

    def restarted() -> bool:
        now = inside(name, "systemctl", "show", "-p", "MainPID", "--value", "vmrun-agent.service").strip()
        return now not in ("", "0", pid)

    until(restarted, 60, "systemd restarts the agent")
    before = inside(name, "cat", "/var/lib/vmrun/lease")
    until(lambda: inside(name, "cat", "/var/lib/vmrun/lease") != before, 60, "the lease is renewed")
    assert shell.run("ssh", job, "--", "MENDED=1 vmrun-again 2").stdout == "task 2 returned 2\n"
    (vm,) = shell.ask("status")["vms"]
    assert vm["state"] == "held"
    shell.run("release", job)
    assert containers(shell) == []


def test_a_machine_that_could_not_be_made_ready_is_held_too(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(shell)
    monkeypatch.setattr("vmrun.fleet.ssh.commands.start_agent", lambda: ["false"])
    request = SubmitRequest(target=str(shell.home / "job.py"), on="docker", keep_on_failure=60.0)
    with pytest.raises(Unreachable, match="cannot start the agent") as refused:
        client.submit(request)
    (vm,) = shell.ask("status")["vms"]
    assert f"vmrun ssh {vm['id']}" in refused.value.hint
    assert vm["state"] == "held"
    assert "could not be made ready: cannot start the agent" in vm["busy_because"]
    (verdict,) = shell.ask("reap")["verdicts"]
    assert verdict["delete"] is False
    lease = shell.run("ssh", vm["id"], "--", "cat /var/lib/vmrun/lease").stdout
    assert int(lease) == int(vm["ends_at"])
    until(lambda: not containers(shell), 240, "the timer has ended the machine")
