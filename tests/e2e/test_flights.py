"""The flights example as its user runs it, against a naive computation in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import flights as naive
from tests.support.source import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


class Shell:
    """A person's shell: a home of its own, and vmrun on its path."""

    def __init__(self, home: Path) -> None:
        self.folder = home
        self.environment = {**os.environ, "HOME": str(home)}

    def run(self, *arguments: str, exit_code: int = 0) -> str:
        """What `vmrun ARGUMENTS` prints to stdout; it must end with `exit_code`."""
        command = [str(Path(sys.executable).with_name("vmrun")), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=500, check=False, cwd=self.folder, env=self.environment
        )
        assert done.returncode == exit_code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """The document that `vmrun ARGUMENTS --json` prints: one, and nothing beside it on stdout."""
        document = json.loads(self.run(*arguments, "--json"))
        assert document["schema"] == 1
        assert document["ok"] is True
        return document


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    naive.rows()
    return Shell(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def printed(shell: Shell) -> str:
    """What an attached submit of the example printed."""
    return shell.run("submit", str(ROOT / "examples" / "flights.py"))


@pytest.fixture(scope="module")
def job(shell: Shell, printed: str) -> str:
    """The job's id, from the list of jobs."""
    assert printed
    (one,) = shell.ask("status")["jobs"]
    return str(one["id"])


def test_the_table_is_printed(printed: str) -> None:
    lines = printed.splitlines()
    for carrier, name in (("EV", "ExpressJet Airlines Inc."), ("HA", "Hawaiian Airlines Inc.")):
        assert any(line.startswith(f"{carrier} {name}") for line in lines), printed
    assert any(line.startswith("all") and f"{len(naive.rows()):,}" in line for line in lines), printed


def test_the_job_is_done(shell: Shell, job: str) -> None:
    document = shell.ask("status", job)["job"]
    assert document["state"] == "done"
    assert document["name"] == "flights"
    tasks = document["tasks"]
    assert (tasks["failed"], tasks["running"], tasks["done"]) == (0, 0, tasks["total"])


def test_the_result_is_what_one_process_computes(shell: Shell, job: str) -> None:
    document = shell.ask("result", job)
    assert document["errors"] == []
    assert document["reduced"] == naive.summary()
    counted = sum(group["flights"] for groups in document["results"] for group in groups)
    assert counted == len(naive.rows())


def test_the_file_that_the_job_wrote_comes_home(shell: Shell, job: str, tmp_path: Path) -> None:
    shell.run("result", job, "-o", str(tmp_path / "home"))
    (path,) = (tmp_path / "home").rglob("delays.csv")
    naive.check_csv(path.read_text())
