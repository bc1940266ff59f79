"""The small examples, run as their first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EXAMPLES = ROOT / "examples"


def run(folder: Path, *command: str) -> str:
    """What a command prints in `folder`; it must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hello_gets_its_argument_and_its_file_comes_home(isolated: Path) -> None:
    vmrun = str(Path(sys.executable).with_name("vmrun"))
    printed = run(isolated, vmrun, "submit", str(EXAMPLES / "hello.py"), "--", "Ada")
    assert printed.startswith("Hello, Ada, from ")
    (file,) = (isolated / "vmrun-output").rglob("hello.txt")
    assert file.read_text() == printed


def test_primes_counts_them(isolated: Path) -> None:
    assert run(isolated, sys.executable, str(EXAMPLES / "primes.py")) == "78,498 primes below 1,000,000\n"


def test_hybrid_spreads_its_calls_over_two_executors(isolated: Path) -> None:
    printed = run(isolated, sys.executable, str(EXAMPLES / "hybrid.py"))
    assert printed.endswith("the longest of 1000 walks has 178 steps\n")
    assert sum(int(line.split()[0]) for line in printed.splitlines()[:-1]) == 1000
