"""A control group with room for so many processes and threads: what starts more of them is refused by the kernel.

So a system that starts as many as it can leaves room for all others on the computer, as one in a container does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
#: Seconds in which killed processes leave a group.
PATIENCE = 20.0
_PROCS = "cgroup.procs"


class NoGroup(Exception):
    """There can be no such group here; the message says why."""


@contextlib.contextmanager
def room_for(count: int) -> Iterator[Path]:
    """A group for `count` processes and threads. What is in it at the end is killed. Raises NoGroup.

    A process enters it, with all that it starts, by having its number written into the file `cgroup.procs`.
    """
    group = _make(count)
    try:
        yield group
    finally:
        _remove(group)


def enter(group: Path, pid: int) -> None:
    """Put a process into the group; what it has started before stays where it is."""
    (group / _PROCS).write_text(str(pid), encoding="ascii")


def refusals(group: Path) -> int:
    """How often the kernel has refused to start something in the group."""
    words = (group / "pids.events").read_text(encoding="ascii").split()
    return int(words[words.index("max") + 1])


def _make(count: int) -> Path:
    reasons = []
    for parent in _parents():
        group = parent / f"vmrun-bench-{uuid.uuid4().hex[:12]}"
        try:
            group.mkdir()
        except OSError as error:
            reasons.append(str(error))
            continue
        try:
            (group / "pids.max").write_text(str(count), encoding="ascii")
        except OSError as error:
            reasons.append(str(error))
            group.rmdir()
        else:
            return group
    raise NoGroup("; ".join(reasons) or "no control groups for processes")


def _parents() -> Iterator[Path]:
    """Where there may be room for a group of one's own, in either version of the kernel's interface."""
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, names, path = line.split(":", 2)
        if "pids" in names.split(","):
            yield GROUPS / "pids" / path.strip("/")
        elif not names:
            own = GROUPS / path.strip("/")
            # A group with processes has no others below it that have limits, but others beside it do.
            yield from (own, own.parent) if own != GROUPS else (own,)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        # Those below come first: a system may have made groups of its own.
        folders = [Path(folder) for folder, _, _ in os.walk(group, topdown=False)]
        members = {int(word) for one in folders for word in _words(one / _PROCS)}
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            for one in folders:
                one.rmdir()
        if not group.exists():
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{group} still has {len(members)} processes")
        time.sleep(0.02)  # noqa: TID251  until the kernel has ended them


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
