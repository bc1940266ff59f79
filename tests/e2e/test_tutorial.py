"""The tutorial, typed in: every file that it shows is written, every command that needs no Docker Engine is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.source import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TUTORIAL = ROOT / "docs" / "tutorial" / "first-job.md"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What changes the machine, or is tested elsewhere.
_LEFT_OUT = re.compile(r"^(make|export|docker|sh tools)\b|--on docker")


def steps(text: str) -> Iterator[tuple[str, str]]:
    """(`python`, a version of pi.py) and (`sh`, a command), in order, up to where Docker comes in."""
    for kind, body in _BLOCK.findall(text.partition("\n## 6.")[0]):
        if kind == "python" and "import random" in body:
            yield kind, body
        elif kind == "sh":
            for line in body.splitlines():
                if not _LEFT_OUT.search(line):
                    yield kind, line.partition(" #")[0].strip()


def test_the_tutorial_does_what_it_says(isolated: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, shell=True, cwd=isolated, env=environment, capture_output=True, text=True, timeout=400, check=False
        )

    def newest() -> str:
        jobs = json.loads(shell("vmrun status --json").stdout)["jobs"]
        return str(max(jobs, key=lambda job: job["created"])["id"])

    # Who follows it is in a clone of the repository.
    (isolated / "examples").symlink_to(ROOT / "examples")
    printed = []
    for kind, text in steps(TUTORIAL.read_text(encoding="utf-8")):
        if kind == "python":
            (isolated / "pi.py").write_text(text)
            continue
        done = shell(text.replace("JOB", newest()) if "JOB" in text else text)
        if not text.startswith("vmrun cancel"):  # it may have ended before
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        if text == "vmrun submit pi.py":
            printed.append(done.stdout)
    # The estimate, printed by the script first and then reduced from two hundred tasks.
    assert len(printed) == 2
    for text in printed:
        assert re.search(r"3\.1[34]\d", text), printed
