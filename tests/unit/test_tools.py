"""The setup scripts on machines that lack things: what they refuse, what they say, what they leave alone.

The machine is a directory of commands that is all there is on the path.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.source import ROOT

#: Commands that every machine has.
BASICS = ("basename", "cat", "cksum", "dirname", "env", "mkdir", "readlink", "rm", "sh", "sleep", "tail")


class Machine:
    """A checkout with the scripts, and the commands that can be found there."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.commands = folder / "bin"
        self.calls = folder / "calls"
        self.commands.mkdir(parents=True)
        shutil.copytree(ROOT / "tools", self.checkout / "tools")
        shutil.copy(ROOT / "pyproject.toml", self.checkout)
        for name in BASICS:
            (self.commands / name).symlink_to(shutil.which(name) or name)

    def has(self, name: str, does: str) -> Machine:
        """Add a command that is a line of shell; each call of it is recorded."""
        path = self.commands / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls}"\n{does}\n')
        path.chmod(0o755)
        return self

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", f"tools/{script}", *arguments],
            cwd=self.checkout,
            env={"PATH": str(self.commands)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_engine_that_answers_is_left_alone(machine: Machine) -> None:
    machine.has("docker", "exit 0").has("debootstrap", "exit 1").has("dockerd", "exit 1").has("apt-get", "exit 1")
    assert machine.run("docker.sh").returncode == 0
    assert machine.called() == ["docker info"]


def test_without_engine_and_without_root_it_says_what_to_do(machine: Machine) -> None:
    machine.has("id", "echo 1000").has("docker", "exit 1").has("dockerd", "exit 1")
    done = machine.run("docker.sh")
    assert done.returncode == 1
    assert "may not start one" in done.stderr
    assert "sudo systemctl start docker" in done.stderr
    assert not [call for call in machine.called() if call.startswith("dockerd")]


def test_without_engine_and_without_apt_it_says_what_to_do(machine: Machine) -> None:
    machine.has("id", "echo 0")
    done = machine.run("docker.sh")
    assert done.returncode == 1
    assert "not a Debian or Ubuntu machine" in done.stderr


def test_an_engine_that_ends_at_once_is_not_waited_for(machine: Machine) -> None:
    """The limit is a minute; this test's is half of one."""
    machine.has("id", "echo 0").has("docker", "exit 1").has("debootstrap", "exit 0")
    machine.has("setsid", 'exec "$@"').has("dockerd", "echo no cgroups here >&2; exit 1")
    done = machine.run("docker.sh")
    assert done.returncode == 1
    assert "no cgroups here" in done.stderr
    assert "did not come up" in done.stderr


def test_an_engine_that_comes_up_is_waited_for(machine: Machine) -> None:
    machine.has("id", "echo 0").has("debootstrap", "exit 0").has("setsid", 'exec "$@"')
    machine.has("dockerd", 'echo >"$0.up"; exec sleep 3').has("docker", '[ -e "${0%docker}dockerd.up" ] && echo 20.10')
    done = machine.run("docker.sh")
    assert done.returncode == 0, done.stderr
    assert "Docker Engine 20.10 answers" in done.stderr


def test_without_python_and_without_apt_it_says_what_to_do(machine: Machine) -> None:
    machine.has("python3", "exit 1")  # older than 3.11
    done = machine.run("bootstrap.sh")
    assert done.returncode == 1
    assert "no Python 3.11 or newer" in done.stderr
    assert "set PYTHON" in done.stderr


def test_python_without_venv_is_named_with_its_package(machine: Machine) -> None:
    machine.has("python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    done = machine.run("bootstrap.sh")
    assert done.returncode == 1
    assert "has no venv module" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_what_is_missing_comes_from_the_distribution(machine: Machine) -> None:
    machine.has("id", "echo 0").has("apt-get", "exit 0")
    machine.run("bootstrap.sh")
    (call,) = machine.called()[-1:]
    assert "install python3 python3-venv" in call
    assert "--no-install-recommends" in call


def fake_environment(machine: Machine) -> Path:
    """A `.venv` whose installer records what it is asked for."""
    programs = machine.checkout / ".venv" / "bin"
    programs.mkdir(parents=True)
    machine.has("fake-python", "exit 0").has("fake-uv", "exit 0")
    (programs / "python").symlink_to(machine.commands / "fake-python")
    (programs / "uv").symlink_to(machine.commands / "fake-uv")
    return programs.parent


def test_a_second_run_does_nothing_until_the_project_changes(machine: Machine) -> None:
    fake_environment(machine)
    assert machine.run("bootstrap.sh", "dev").returncode == 0
    first = machine.called()
    assert any(call.startswith("fake-uv pip install") and call.endswith("-e .[dev]") for call in first)
    # Neither flavour has anything left to do.
    assert machine.run("bootstrap.sh", "dev").stderr == ""
    assert machine.run("bootstrap.sh", "base").stderr == ""
    with (machine.checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert "installing vmrun (dev)" in machine.run("bootstrap.sh", "dev").stderr


def test_a_failed_installation_is_tried_with_pip_and_leaves_no_stamp(machine: Machine) -> None:
    venv = fake_environment(machine)
    machine.has("fake-uv", "exit 1").has("fake-python", 'case "$*" in *"pip install"*) exit 1;; esac')
    done = machine.run("bootstrap.sh", "base")
    assert done.returncode == 1
    assert "trying with pip" in done.stderr
    assert "could not be installed" in done.stderr
    assert list(venv.glob(".stamp-*")) == []


def test_help_lists_every_target_that_a_person_may_want() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE))
    wanted = {
        "help",
        "demo",
        "test",
        "check",
        "fmt",
        "lint",
        "type",
        "layers",
        "unit",
        "sim",
        "docker",
        "bench",
        "docs",
        "clean",
    }
    assert wanted <= told
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert told <= set(phony.split())
