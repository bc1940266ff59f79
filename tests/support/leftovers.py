"""Finds what tests left running: processes of this test run, and containers that were not there before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

#: Seconds that a process or a container may take to end after the last test: what gives machines back watches their
#: end for two minutes at most (`vmrun.fleet.retire.WATCH`).
GRACE = 150.0
#: Python's own helpers, which end with the process that started them.
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def end_leftovers(run: str, *places: str) -> list[str]:
    """Command lines of the processes of test run `run` that are alive after the grace; they are killed.

    A process belongs to the run when its environment says so (VMRUN_TEST_RUN) or its command line names one of
    `places`.
    """
    deadline = time.monotonic() + GRACE
    while (left := _ours(run, places)) and time.monotonic() < deadline:
        threading.Event().wait(0.1)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return [f"{pid} {command}" for pid, command in left.items()]


def _ours(run: str, places: tuple[str, ...]) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # gone, or not ours to look at
        pid = int(folder.name)
        if pid == os.getpid() or not command or any(helper in command for helper in HELPERS):
            continue  # this process, one that ended, a helper
        if f"VMRUN_TEST_RUN={run}".encode() in environment or any(place in command for place in places):
            found[pid] = command
    return found


def new_containers(before: frozenset[str]) -> frozenset[str]:
    """Names of the containers of vmrun, running or not, that are not in `before`; none without a Docker Engine."""
    if shutil.which("docker") is None:
        return frozenset()
    listing = subprocess.run(
        ["docker", "ps", "--all", "--filter", "name=^vmrun-", "--format", "{{.Names}}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return frozenset(listing.stdout.split()) - before


def left_containers(before: frozenset[str]) -> list[str]:
    """Names of those that are still there after the grace: the engine takes a moment to remove what ended by itself."""
    deadline = time.monotonic() + GRACE
    while (left := new_containers(before)) and time.monotonic() < deadline:
        threading.Event().wait(0.5)
    return sorted(left)
