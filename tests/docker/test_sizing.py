"""A job that leaves its machine's memory open gets what its tasks took in a sample, and then in its own past."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.test_growth import machines_of
from tests.docker.test_jobs import nothing_left
from tests.support.shell import Shell
from vmrun.core.crew import usable_memory
from vmrun.provisioners.docker.driver import DockerProvisioner

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

MB = 10**6
#: Each task holds 250 MB.
HUNGRY = """
    import vmrun

    @vmrun.job(over=range(8))
    def hungry(x):
        kept = [bytes(range(250)) * 10_000 for _ in range(100)]
        return x + len(kept)
"""
WANTED = ("submit", "--on", "docker", "--cpus", "2", "--memory", "auto", "hungry.py")


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner) -> Iterator[Shell]:
    shell = Shell(isolated)
    shell.write("hungry.py", HUNGRY)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def test_memory_auto_takes_a_sample_and_then_experience(shell: Shell) -> None:
    # A plan runs nothing, and says so.
    plan = shell.ask(*WANTED, "--dry-run")["plan"]
    assert "no task of it has run before; a submit runs 3 of them on this computer" in plan["memory_why"]
    assert shell.ask("status")["jobs"] == []
    # The first submission runs a sample here, and rents what follows from it.
    done = shell.run(*WANTED, timeout=240)
    assert done.stdout.split() == [str(x + 100) for x in range(8)]
    assert "1.25 x " in done.stderr
    own, sample = shell.ask("status")["jobs"]
    assert (sample["name"], sample["tasks"]["done"], sample["vms"][0]["on"]) == ("hungry (sample)", 3, "local")
    assert (own["name"], own["tasks"]["done"], own["tasks"]["failed"]) == ("hungry", 8, 0)
    ((_, memory),) = machines_of(shell, own["id"])
    peak = max(each["peak_bytes"] for each in shell.ask("status", sample["id"], "--tasks")["tasks"])
    assert 250 * MB < peak < 320 * MB
    assert 1.24 * 2 * peak < usable_memory(memory) < 1.26 * 2 * peak + MB
    # From then on its own past tells.
    plan = shell.ask(*WANTED, "--dry-run")["plan"]
    assert f"the peak is that of 11 tasks of job {own['id']}" in plan["memory_why"]
    assert 0.9 * memory < plan["memory_bytes"] < 1.3 * memory
    assert plan["offers"][0]["memory_gib"] == pytest.approx(plan["memory_bytes"] / 2**30, abs=0.01)
    assert "memory: " in shell.run(*WANTED, "--dry-run").stdout
    assert len(shell.ask("status")["jobs"]) == 2
    assert nothing_left(shell)
