"""Finding processes and ending them: descendants that adopted nobody's rules, and the marked ones of a dead runner."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable

#: Seconds after which processes that do not die (they wait in the kernel) are left alone.
PATIENCE = 5.0
_PAUSE = 0.005
_RECENT = 1.0


def end_descendants() -> None:
    """Kill and reap all descendants of this process, which must be a subreaper for that to be all."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        below = _descendants(os.getpid())
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_PAUSE)  # noqa: TID251  the runner has no one to hand it a clock


def _descendants(root: int) -> list[int]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                # pid (name) state ppid …; the name may hold anything, parentheses too.
                children[int(file.read().rpartition(b")")[2].split()[1])].append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += below
    return found


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended; one that ended and was not reaped has."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def marked(mark: str) -> list[int]:
    """Processes that were started with `mark` (NAME=value) in their environment, this one left out."""
    wanted = mark.encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(name))
    return found


def out_of_memory_kills() -> int:
    """Processes that the kernel has killed for lack of memory since it started; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat", "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


class MemoryWatch:
    """Knows whether the kernel has killed for lack of memory in the last seconds.

    The count rises before the victim is gone, so it is compared with what it was at least `_RECENT` seconds ago.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, count: Callable[[], int] = out_of_memory_kills
    ) -> None:
        self._monotonic = monotonic
        self._count = count
        self._before = self._now = count()
        self._looked = monotonic()

    def look(self) -> None:
        """To be called now and then."""
        now = self._monotonic()
        if now - self._looked >= _RECENT:
            self._looked = now
            self._before, self._now = self._now, self._count()

    def killed(self) -> bool:
        """Whether there was such a kill recently."""
        return self._count() > self._before
