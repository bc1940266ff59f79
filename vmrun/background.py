"""Starts the processes that go on when this one ends: those that get a job, or a pool, its machines."""

from __future__ import annotations

import subprocess
import sys
import threading

from .settings import Settings

#: Files kept of what such processes said.
LOGS_MAX = 50


def start_in_background(settings: Settings, job: str) -> None:
    """Have a process of its own get the job what it lacks; it outlives this one."""
    spawn(settings, ("_bring-up", job), job)


def spawn(settings: Settings, words: tuple[str, ...], name: str) -> subprocess.Popen[bytes]:
    """Start `vmrun` with these words; what it says goes to the log of this name."""
    folder = settings.cache_dir / "background"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[:-LOGS_MAX]:  # ids are in order of time
        old.unlink(missing_ok=True)
    with (folder / f"{name}.log").open("ab") as out:
        process = subprocess.Popen(
            # -P: a file beside the job may be called like a module of the standard library.
            [sys.executable, "-P", "-m", "vmrun", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    # Should this process live longer, no zombie stays.
    threading.Thread(target=process.wait, name="vmrun-background", daemon=True).start()
    return process
