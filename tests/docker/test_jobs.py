"""Whole jobs on machines that boot: submitted, pushed, run, brought home, given back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.journals import client_of, committed_tasks
from tests.support.s3 import S3Server
from tests.support.shell import Shell, until
from tests.support.source import ROOT
from vmrun.provisioners.docker.driver import DockerProvisioner
from vmrun.watch.observe import vm_ids
from vmrun.watch.results import ResultReader

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

#: Enough of them for what happens on the way, however slowly this computer sees it.
SLEEPY_TASKS = 400
SLEEPY = f"""
    import os, time
    import vmrun

    @vmrun.job(over=range({SLEEPY_TASKS}))
    def task(x):
        time.sleep(0.2)
        return x
"""
#: How long a machine waits for its agent where the client is killed at a stage: as short as it can be for a client to
#: get so far on a busy computer; and what is said inside the machine then. Not all stages are shown that pass quickly.
STAGES = {
    "creating": ("12s", ()),
    "logged in": ("45s", ("sh", "-c", "journalctl --unit ssh.service --output cat | grep 'Accepted publickey'")),
    "starting the agent": ("60s", ("ls", "/var/lib/vmrun/agent.key")),
}


def containers(shell: Shell) -> list[str]:
    """Names of this deployment's containers, stopped ones included."""
    owner = client_of(shell).deployment
    shown = subprocess.run(
        ["docker", "ps", "-a", "--filter", f"name=vmrun-{owner}-", "--format", "{{.Names}}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return shown.stdout.split()


def inside(name: str, *argv: str) -> str:
    """What a command prints inside a container."""
    done = subprocess.run(["docker", "exec", name, *argv], capture_output=True, text=True, check=False, timeout=120)
    return done.stdout


def nothing_left(shell: Shell) -> bool:
    sessions = shell.home / ".local" / "state" / "vmrun" / "sessions"
    return not containers(shell) and not (sessions.is_dir() and any(sessions.iterdir()))


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner) -> Iterator[Shell]:
    shell = Shell(isolated)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def test_flights_runs_on_a_machine_that_boots_and_nothing_is_left(shell: Shell) -> None:
    here = shell.run("submit", str(ROOT / "examples" / "flights.py"), timeout=240)
    there = shell.run("submit", "--on", "docker", str(ROOT / "examples" / "flights.py"), "-o", "out", timeout=300)
    assert there.stdout == here.stdout
    assert (shell.home / "out" / "delays.csv").read_text().count("\n") > 100
    assert nothing_left(shell)


def test_user_data_ran_and_a_warm_machine_is_taken_at_once(shell: Shell) -> None:
    shell.write("quick.py", "import vmrun\n\n@vmrun.job(over=range(4))\ndef f(x):\n    return x\n")
    shell.run("submit", "--on", "docker", "--keep-warm", "5m", "quick.py", timeout=200)
    # A script runs as a user without privileges, in a directory that it may write to.
    shell.write("who.py", "import getpass\nopen('here', 'w').close()\nprint(getpass.getuser())\n")
    done = shell.run("submit", "--on", "docker", "--keep-warm", "5m", "who.py", timeout=120)
    assert done.stdout == "vmjob\n"
    (name,) = containers(shell)
    assert inside(name, "ps", "-p", "1", "-o", "comm=").strip() == "systemd"
    assert "done" in inside(name, "cloud-init", "status")
    assert inside(name, "systemctl", "is-active", "vmrun-deadman.timer").strip() == "active"
    # What a busy computer does meanwhile makes some of them late, and not all
    took = [begun_after(shell)]
    while min(took) >= 3.0 and len(took) < 5:
        took.append(begun_after(shell))
    assert min(took) < 3.0, took
    assert containers(shell) == [name]
    until(lambda: [vm["state"] for vm in shell.ask("status")["vms"]] == ["ready"], 60, "it rests")
    shell.run("reap", "--all", "--yes")
    assert nothing_left(shell)


def begun_after(shell: Shell) -> float:
    """Seconds from the submission of another job to the begin of its first task."""
    shell.run("submit", "--on", "docker", "--keep-warm", "5m", "quick.py")
    client = client_of(shell)
    job = client.jobs()[0]
    return min(outcome.started for outcome in ResultReader(client.desk, job.id).outcomes()) - job.created


def test_shared_data_is_on_the_machine_once_and_out_of_reach_of_the_job(shell: Shell) -> None:
    shell.write(
        "sharing.py",
        """
        import os
        import vmrun

        def load():
            return {"squares": [n * n for n in range(1000)], "bytes": bytes(20_000_000)}

        @vmrun.job(over=range(8), shared=load, workers=2, retries=0)
        def f(x):
            path = os.environ["VMRUN_SHARED_OBJECT"]
            for forbidden in (lambda: os.chmod(path, 0o666), lambda: open(path, "r+"), lambda: os.unlink(path)):
                try:
                    forbidden()
                except PermissionError:
                    continue
                raise AssertionError("the job's user can change what is shared")
            shared = vmrun.shared()
            return [shared["squares"][x], len(shared["bytes"]), os.getppid()]
        """,
    )
    job = shell.ask("submit", "--on", "docker", "--keep-warm", "5m", "sharing.py")["job"]["id"]
    found = shell.ask("result", job)["results"]
    assert [row[:2] for row in found] == [[x * x, 20_000_000] for x in range(8)]
    # All workers are the runner's children.
    assert len({row[2] for row in found}) == 1
    shell.write("words.txt", "some words\n")
    for _ in range(2):
        done = shell.run(
            "submit", "--on", "docker", "--keep-warm", "5m", "--shared", "words.txt",
            "--", "sh", "-c", 'cat "$VMRUN_SHARED"; stat -c "%U %a" "$VMRUN_SHARED"; basename "$VMRUN_SHARED"',
            timeout=100,
        )  # fmt: skip
        assert done.stdout == "some words\nroot 444\nwords.txt\n"
    (name,) = containers(shell)
    kept = inside(name, "sh", "-c", "find / -xdev -path '*/shared/*' -name words.txt 2>/dev/null").split()
    assert len(kept) == 1


def test_a_worker_and_then_the_agent_are_killed_and_every_task_is_committed_once(shell: Shell) -> None:
    shell.write("sleepy.py", SLEEPY)
    job = shell.submit("--on", "docker", "sleepy.py")
    until(lambda: shell.ask("status", job)["job"]["tasks"]["done"] > 10, 120, "tasks run")
    (name,) = containers(shell)
    agent = inside(name, "systemctl", "show", "-p", "MainPID", "--value", "vmrun-agent.service").strip()
    inside(name, "sh", "-c", "kill -9 $(pgrep -u vmjob | tail -1)")
    until(lambda: shell.ask("status", job)["job"]["tasks"]["done"] > 60, 120, "tasks go on")
    inside(name, "kill", "-9", agent)
    again = until(
        lambda: (
            (pid := inside(name, "systemctl", "show", "-p", "MainPID", "--value", "vmrun-agent.service").strip())
            not in ("", "0", agent)
            and pid
        ),
        60,
        "systemd restarts the agent",
    )
    assert again != agent
    assert shell.wait(job)["state"] == "done"
    assert shell.ask("result", job)["results"] == list(range(SLEEPY_TASKS))
    assert committed_tasks(shell, job) == list(range(SLEEPY_TASKS))
    until(lambda: not containers(shell), 90, "the machine ends by itself")


@pytest.mark.parametrize("stage", list(STAGES))
def test_the_client_is_killed_on_the_way_and_the_machine_ends_by_itself(shell: Shell, stage: str) -> None:
    # Given a client that is killed at some point on the way to a working agent
    grace, told = STAGES[stage]
    shell.write(
        "vmrun.toml",
        f'[docker]\nboot_grace = "{grace}"\nheartbeat = "1s"\nlease = "10s"\ndeadman_poll = "1s"\nflush_grace = "2s"\n',
    )
    shell.write(
        "job.py", "import time\nimport vmrun\n\n@vmrun.job(over=range(4))\ndef f(x):\n    time.sleep(4)\n    return x\n"
    )
    shell.run("status")
    client = shell.start("submit", "--on", "docker", "job.py")

    def so_far() -> object:
        if not told:
            return vm_ids(client_of(shell).desk)
        return [name for name in containers(shell) if inside(name, *told)]

    until(lambda: client.poll() is not None or so_far(), 120, "it has come so far")
    assert client.poll() is None, client.communicate()
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    # Then its machine is gone within the boot grace (and the time that a busy computer needs to boot it)
    until(lambda: not containers(shell), 180, "the container is gone")
    # And the job is not lost: whoever waits for it gets it a machine
    (job,) = shell.ask("status")["jobs"]
    shell.write("vmrun.toml", "")
    assert shell.wait(job["id"], timeout=200)["state"] == "done"
    assert shell.ask("result", job["id"])["results"] == list(range(4))


def test_a_store_behind_the_s3_api_on_the_bridge(bridge_s3: S3Server, shell: Shell) -> None:
    bridge_s3.configure(shell)
    shell.write("quick.py", "import vmrun\n\n@vmrun.job(over=range(50))\ndef f(x):\n    print('at', x)\n    return x\n")
    done = shell.run("submit", "--on", "docker", "--keep-warm", "5m", "quick.py", timeout=300)
    assert "[7] at 7" in done.stderr
    (job,) = shell.ask("status")["jobs"]
    assert shell.ask("result", job["id"])["results"] == list(range(50))
    (name,) = [vm["id"] for vm in shell.ask("status")["vms"]]
    container = subprocess.run(
        ["docker", "ps", "--filter", f"name={name}", "--format", "{{.Names}}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()
    # The credentials are in one file on tmpfs that only root may read, and nowhere else.
    assert inside(container, "stat", "-c", "%a %U", "/run/vmrun/secrets.json").strip() == "600 root"
    hits = inside(container, "sh", "-c", "grep -rl canary-secret-key /var/lib /etc /opt /home /var/log 2>/dev/null")
    assert hits == ""
    shell.run("reap", "--all", "--yes")
