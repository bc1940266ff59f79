"""A person's shell: a home of its own, and vmrun on its path."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VMRUN = str(Path(sys.executable).with_name("vmrun"))
#: Seconds for which a condition is waited for at least, and a command gets: what a step takes on a loaded computer is
#: nothing that a test shows. One that shows within what time something happens compares times.
PATIENCE, COMMAND = 90.0, 300.0


@dataclass
class Shell:
    """Runs `vmrun` as a user would, and nothing else."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.home), **self.environment}

    def run(self, *arguments: str, exit_code: int | None = 0, timeout: float = 0.0) -> subprocess.CompletedProcess[str]:
        """`vmrun ARGUMENTS`; it must end with `exit_code` (None: any), within `timeout` seconds or more."""
        done = subprocess.run(
            [VMRUN, *arguments],
            capture_output=True,
            text=True,
            timeout=max(timeout, COMMAND),
            check=False,
            cwd=self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
        )
        if exit_code is not None:
            assert done.returncode == exit_code, f"{arguments}\n--- out\n{done.stdout}\n--- err\n{done.stderr}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`vmrun ARGUMENTS`, left running in a process group of its own."""
        return subprocess.Popen(
            [VMRUN, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.home,
            env=self.env,
            start_new_session=True,
        )

    def ask(self, *arguments: str, exit_code: int = 0) -> Any:
        """The document that `vmrun ARGUMENTS --json` prints: one, and nothing beside it on stdout."""
        document = json.loads(self.run(*arguments, "--json", exit_code=exit_code).stdout)
        assert document["schema"] == 1
        assert document["ok"] is (exit_code in (0, 6)) or "error" in document or "results" in document
        return document

    def write(self, name: str, text: str) -> Path:
        """A file in the home directory."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), "utf-8")
        return path

    def submit(self, *arguments: str) -> str:
        """The id of a job that was submitted and left."""
        return str(self.ask("submit", "--detach", *arguments)["job"]["id"])

    def wait(self, job: str, timeout: float = 0.0) -> Any:
        """The job's document once it has ended."""
        self.run("wait", job, exit_code=None, timeout=timeout)
        return self.ask("status", job)["job"]


def until(condition: Callable[[], Any], seconds: float = PATIENCE, what: str = "") -> Any:
    """Wait for a true value of `condition`; the value. Fails after `seconds`, and not before `PATIENCE`."""
    seconds = max(seconds, PATIENCE)
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.05)  # noqa: TID251 - the world outside has no event to wait for


def processes(marker: str) -> dict[int, str]:
    """Processes whose command line contains `marker`: command line by number."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if marker in line:
                found[int(entry.name)] = line
    return found


def kill(number: int) -> None:
    """`kill -9`; that it is gone already is fine."""
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        pass
