"""Finding processes and ending them: descendants that adopted nobody's rules, and the marked ones of a dead runner."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

#: Seconds after which processes that do not die (they wait in the kernel) are left alone.
PATIENCE = 5.0
_PAUSE = 0.005
_RECENT = 1.0
_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def end_descendants(spared: Collection[int] = (), part: Callable[[int], object] | None = None) -> list[int]:
    """Kill and reap all descendants of this process, which must be a subreaper for that to be all.

    Children in `spared`, and what is below them, stay. `part` is called with each child that ended, and reaps it.
    Returns the children that would not die.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        kill_below(os.getpid(), spared)
        left = _reap(spared, part or _wait)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_PAUSE)  # noqa: TID251  the runner has no one to hand it a clock


def kill_below(root: int, spared: Collection[int] = ()) -> None:
    """Kill the children of a process and all that is below them, but for those in `spared`."""
    for child in children(root):
        if child not in spared:
            kill((child, *descendants(child)))


def kill(pids: Iterable[int]) -> None:
    """Kill processes, as far as they are there and may be killed."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _reap(spared: Collection[int], part: Callable[[int], object]) -> list[int]:
    """Part with children that ended; those that are left, and not spared."""
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return []
        if info is None:
            return [child for child in children(os.getpid()) if child not in spared]
        part(info.si_pid)


def _wait(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def has_children() -> bool:
    """Whether this process has any, ended ones included. For a subreaper that is: any descendants. Half a µs."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children(pid: int) -> list[int]:
    """Its children, whichever of its threads made them; ended ones included."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except FileNotFoundError:
        # It, or one of its threads, has just ended; or the kernel was built without these files.
        return found if _LISTS_CHILDREN else _by_parent().get(pid, [])
    except (ProcessLookupError, PermissionError):
        return found
    return found


def descendants(root: int) -> list[int]:
    """All processes below one, parents before their children."""
    parents = None if _LISTS_CHILDREN else _by_parent()
    found: list[int] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        below = children(pid) if parents is None else parents.pop(pid, [])
        found += below
        waiting += below
    return found


def _by_parent() -> dict[int, list[int]]:
    below: defaultdict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                # pid (name) state ppid …; the name may hold anything, parentheses too.
                below[int(file.read().rpartition(b")")[2].split()[1])].append(int(name))
    return below


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
    """Processes that the kernel has killed for lack of memory: of this one's control group, else of the machine.

    0 where it does not say.
    """
    for path in (*_group_events(), "/proc/vmstat"):
        with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    return 0


def _group_events() -> list[str]:
    """The files that count for this process's control group, whichever its version."""
    found = []
    with contextlib.suppress(OSError, ValueError), open("/proc/self/cgroup", encoding="ascii") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            if path != "/" and names == "":
                found.append(f"/sys/fs/cgroup{path}/memory.events")
            elif path != "/" and "memory" in names.split(","):
                found.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    return found


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
            self._before, self._now = max(self._before, self._now), self._count()

    def killed(self) -> bool:
        """Whether there was such a kill recently that accounts for no death yet."""
        return self._count() > self._before

    def account(self) -> bool:
        """Whether there was, and take it for the death that is asked about: one kill, one death."""
        found = self.killed()
        self._before += found
        return found
