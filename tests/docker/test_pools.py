"""A pool of machines that boot: jobs start at once, packages are installed once, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.test_jobs import containers, inside, nothing_left
from tests.support.shell import Shell
from vmrun.machine import layout
from vmrun.provisioners.docker.driver import DockerProvisioner

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner) -> Iterator[Shell]:
    shell = Shell(isolated)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def installed(name: str) -> str:
    """The environments in a container, and when each was made."""
    return inside(name, "sh", "-c", f"stat -c '%n %y' {layout.STATE}/environments/*/.complete")


def test_a_second_job_finds_its_environment_and_the_pool_goes_without_a_rest(shell: Shell) -> None:
    shell.write("needs.py", "import tomli\nprint(tomli.loads('a = 1'))\n")
    up = shell.ask("up", "--on", "docker", "--cpus", "1", "--size", "2", "--for", "1h")["pool"]
    assert (up["ready"], len(containers(shell))) == (2, 2)
    for name in containers(shell):
        assert inside(name, "systemctl", "is-active", "vmrun-deadman.timer").strip() == "active"
    jobs = []
    made: set[str] = set()
    for number in range(2):
        # The source differs, the packages do not.
        shell.write("needs.py", f"import tomli\nprint(tomli.loads('a = {number}'))\n")
        done = shell.ask("submit", "--on", "docker", "--with", "tomli==2.0.1", "needs.py")
        jobs.append(done["job"]["vms"][0]["id"])
        made |= {line for name in containers(shell) for line in installed(name).splitlines()}
    assert jobs[0] == jobs[1], "the VM that has the environment is taken"
    assert jobs[0] in up["vms"]
    assert len(made) == 1, "nothing was installed a second time"
    assert shell.ask("down")["pool"]["vms"] == []
    assert nothing_left(shell)
