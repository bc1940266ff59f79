"""Tasks that attack the machine that they run on, which they know as a user without privileges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.test_jobs import containers, inside
from tests.support.journals import client_of
from tests.support.shell import Shell, until
from vmrun.core.blocks import Status
from vmrun.provisioners.docker.driver import DockerProvisioner
from vmrun.watch.results import ResultReader, failure_of

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

#: Of three tasks of 300 MB, two fit at once.
WHERE = ("--on", "docker", "--memory", "1GB", "--keep-warm", "5m", "--workers", "3", "--task-memory", "300MB")

GREEDY = """
    import time
    import vmrun

    @vmrun.job(over=range(12))
    def task(x):
        if x == 5:
            kept = []
            while True:
                kept.append(bytes([1]) * 10_000_000)
        time.sleep(0.1)
        return x
"""
GREEDY_ALL = """
    import vmrun

    @vmrun.job(over=range(1))
    def task(x):
        return len(bytes([1]) * 1_500_000_000)
"""
OFF = """
    import subprocess
    import vmrun

    @vmrun.job(over=["systemctl poweroff", "shutdown -h now", "reboot -f", "kill -9 1", "echo b > /proc/sysrq-trigger"])
    def task(command):
        return subprocess.run(["sh", "-c", command], capture_output=True).returncode
"""
KILLS_ALL = """
    import os
    import vmrun

    @vmrun.job(over=range(3))
    def task(x):
        if x == 1:
            os.kill(-1, 9)
        return x
"""


ASKS = """
    import subprocess
    import vmrun

    @vmrun.job(over=[("6", "80"), ("6", "443"), ("17", "53")])
    def task(way):
        # What the kernel would do with a connection of this user's; nothing is sent.
        ask = ["ip", "route", "get", "169.254.169.254", "ipproto", way[0], "dport", way[1]]
        return subprocess.run(ask, capture_output=True, text=True).stderr.strip()
"""


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner) -> Iterator[Shell]:
    shell = Shell(isolated)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def run(shell: Shell, name: str, text: str, *options: str) -> str:
    """Submit a job; its id, once it has ended."""
    shell.write(name, text)
    job = shell.submit(*WHERE, *options, name)
    shell.wait(job, timeout=200)
    return job


def agent(name: str) -> str:
    return inside(name, "systemctl", "show", "-p", "MainPID", "--value", "vmrun-agent.service").strip()


@pytest.mark.catalogue(44, 52, 53, 54)
def test_what_tasks_do_to_their_machine_costs_nobody_else(shell: Shell) -> None:
    # Given a small machine, on which no more tasks run at once than fit
    job = run(shell, "greedy.py", GREEDY)
    (name,) = containers(shell)
    before = agent(name)
    desk = client_of(shell).desk
    outcomes = {outcome.task: outcome for outcome in ResultReader(desk, job).outcomes()}
    # Then the one that takes more than it said ends as such, and the others do not notice
    assert outcomes[5].status is Status.oom
    assert "300 MB is the limit (--task-memory)" in failure_of(outcomes[5]).message
    assert {task for task, outcome in outcomes.items() if outcome.status is Status.ok} == set(range(12)) - {5}

    def log() -> str:
        return inside(name, "journalctl", "-u", "vmrun-agent.service", "-o", "cat", "--no-pager")

    # The journal hears of it a moment after it was said.
    until(lambda: "workers=2" in log(), 30, "the agent has said how many run at once")
    assert "bound=memory" in log()
    # And without a limit of its own, one that takes more than there is
    job = run(shell, "all.py", GREEDY_ALL, "--task-memory", "700MB")
    (outcome,) = ResultReader(desk, job).outcomes()
    assert outcome.status is Status.oom
    # And the machine is not theirs to switch off
    job = run(shell, "off.py", OFF)
    document = shell.ask("result", job)
    assert len(document["results"]) == 5
    assert 0 not in document["results"]
    # And its identity at the cloud is not theirs to ask for: the kernel knows no way for them
    job = run(shell, "asks.py", ASKS)
    forbidden = "RTNETLINK answers: Permission denied"
    # But the names that Google's machines ask the same address for
    assert shell.ask("result", job)["results"] == [forbidden, forbidden, ""]
    assert "dev eth0" in inside(name, "ip", "route", "get", "169.254.169.254", "ipproto", "6", "dport", "80")
    # And who kills all that it may kill has killed its job's processes, not the agent
    job = run(shell, "kills.py", KILLS_ALL)
    outcomes = {outcome.task: outcome.status for outcome in ResultReader(desk, job).outcomes()}
    assert outcomes == {0: Status.ok, 1: Status.lost, 2: Status.ok}
    assert agent(name) == before
    assert containers(shell) == [name]
    # And the machine is as good as new for the next job
    job = run(shell, "quick.py", "import vmrun\n\n@vmrun.job(over=range(9))\ndef f(x):\n    return x\n")
    assert shell.ask("result", job)["results"] == list(range(9))
    assert containers(shell) == [name]
    assert agent(name) == before
    until(lambda: inside(name, "pgrep", "-u", "vmjob") == "", 20, "no process of a job is left")
    groups = inside(name, "sh", "-c", "find /sys/fs/cgroup -name 'vmrun-job-*' -path '*memory*' | wc -l")
    assert groups.strip().isdigit()
