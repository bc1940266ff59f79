"""One program, one call: half of the inputs on hosts that I have, half on machines that are rented."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clouds.docker_machines import DockerMachines
from tests.clouds.opening import open_double
from tests.docker.machines import Machines
from tests.docker.own_hosts import OwnHost, OwnHosts, append, is_clean
from tests.docker.test_jobs import containers
from tests.support.s3 import S3Server
from tests.support.shell import Shell, until
from vmrun.provisioners.docker.driver import DockerProvisioner

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(900)]

PROGRAM = """
    import json, sys
    import vmrun

    def work(x):
        import socket, time
        time.sleep(0.1)
        return socket.gethostname(), x * x

    if __name__ == "__main__":
        rented = json.loads(sys.argv[1])
        with vmrun.HybridExecutor(vmrun.Executor(on="ssh"), vmrun.Executor(**rented)) as pool:
            print(json.dumps(list(pool.map(work, range(40)))))
"""


@pytest.fixture
def shell(isolated: Path, provisioner: DockerProvisioner, bridge_s3: S3Server) -> Iterator[Shell]:
    shell = Shell(isolated)
    bridge_s3.configure(shell)
    yield shell
    shell.run("reap", "--all", "--yes", exit_code=None)


def run_halves(shell: Shell, host: OwnHost, rented: dict[str, str]) -> None:
    """Run the program: all results in order, half of them from `host`, half from one other machine."""
    done = subprocess.run(
        [sys.executable, str(shell.write("halves.py", PROGRAM)), json.dumps(rented)],
        cwd=shell.home,
        env=shell.env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [value for _, value in results] == [x * x for x in range(40)]
    where = [machine for machine, _ in results]
    own = host.inside("hostname").strip()
    assert where.count(own) == 20
    assert len(set(where)) == 2
    until(lambda: is_clean(host), 60, "the host is clean")
    assert shell.ask("status")["vms"] == []


@contextmanager
def ec2(shell: Shell) -> Iterator[None]:
    """A double of EC2 for the shell, made ready by `vmrun init`; nothing is left on it."""
    machines = DockerMachines()
    double = open_double("ec2", machines)
    try:
        table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in double.settings().items())
        append(shell, f"[ec2]\n{table}\n")
        shell.environment.update(double.environment())
        shell.run("init", "ec2", "--yes", timeout=200)
        yield
        left = double.inventory()
        assert (left.instances, left.disks, left.addresses, left.keys) == ({}, [], [], [])
    finally:
        double.close()
        machines.close()


def test_halves_on_a_host_of_mine_and_on_a_docker_machine(machines: Machines, shell: Shell, tmp_path: Path) -> None:
    own = OwnHosts(machines, tmp_path / "own")
    host = own.boot()
    append(shell, own.table(host))
    run_halves(shell, host, {"on": "docker"})
    assert not containers(shell)


def test_halves_on_a_host_of_mine_and_on_ec2(machines: Machines, shell: Shell, tmp_path: Path) -> None:
    own = OwnHosts(machines, tmp_path / "own")
    host = own.boot()
    append(shell, own.table(host))
    with ec2(shell):
        run_halves(shell, host, {"on": "ec2", "instance_type": "m6i.large"})
