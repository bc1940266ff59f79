"""What processes take of a machine, read from the kernel: memory, processes and threads. Nothing is decided here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .processes import descendants

_PAGE = os.sysconf("SC_PAGE_SIZE")
GROUPS = "/sys/fs/cgroup"
#: By name of the hierarchy in /proc/self/cgroup: limit, usage, what of the usage the kernel can drop.
_MEMORY = {
    "": ("memory.max", "memory.current", b"inactive_file "),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", b"total_inactive_file "),
}


class Probe:
    """One worker's memory; a look at it takes a microsecond. `base`: bytes that it had from its parent at birth."""

    def __init__(self, pid: int, base: int) -> None:
        self.pid = pid
        self._base = base
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        #: Processes below it, and the monotonic times at which to look for them, and at its memory, again.
        self.below: list[int] = []
        self.search_at = 0.0
        self.due = 0.0

    def own(self) -> int:
        """Bytes that the worker has beyond what it was born with; 0 if it is gone."""
        try:
            return max(0, _anonymous(os.pread(self._fd, 256, 0)) - self._base)
        except OSError:
            return 0

    def total(self) -> int:
        """Bytes of the worker and all below it; what they share counts more than once."""
        return self.own() + sum(anonymous(pid) for pid in self.below)

    def exact(self) -> int:
        """The same, with each page counted once; takes milliseconds per gigabyte where there are processes below."""
        return sum(map(proportional, (self.pid, *self.below))) if self.below else self.own()

    def search(self) -> None:
        """Find the processes below it."""
        self.below = descendants(self.pid)

    def crowd(self) -> int:
        """Processes and threads: the worker's, and of all below it."""
        self.search()
        return sum(map(threads, (self.pid, *self.below)))

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def anonymous(pid: int | str) -> int:
    """Bytes of a process that are in no file and in no memory made to be shared; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return _anonymous(file.read(256))
    except OSError:
        return 0


def _anonymous(statm: bytes) -> int:
    words = statm.split(None, 3)
    return (int(words[1]) - int(words[2])) * _PAGE if len(words) > 2 else 0


def proportional(pid: int) -> int:
    """As `anonymous`, but a page that several processes have since a fork counts in part; swapped ones count."""
    parts = _table(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"SwapPss:"))
    return sum(parts.values()) if b"Pss_Anon:" in parts else anonymous(pid)


def threads(pid: int) -> int:
    """Threads of a process, of which it has at least one; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return int(file.read(4096).rpartition(b")")[2].split(None, 18)[17])
    except (OSError, IndexError, ValueError):
        return 0


def _table(path: str, names: tuple[bytes, ...]) -> dict[bytes, int]:
    """Bytes by name, of the lines that begin with one of `names`, in a file of kilobytes."""
    found = {}
    with contextlib.suppress(OSError, ValueError, IndexError), open(path, "rb") as file:
        for line in file:
            if line.startswith(names):
                name, value, *_ = line.split()
                found[name] = int(value) * 1024
    return found


@dataclass(frozen=True, slots=True)
class _Group:
    limit: int
    usage: str
    stat: str
    droppable: bytes

    def left(self) -> int:
        """Bytes that processes in the group may still take."""
        used = int(_text(self.usage) or 0)
        with contextlib.suppress(OSError, ValueError), open(self.stat, "rb") as file:
            for line in file:
                if line.startswith(self.droppable):
                    used -= int(line.split()[1])
        return max(0, self.limit - used)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Processes and threads of the machine, or of a control group, which has a limit for them."""

    #: For messages.
    name: str
    limit: int
    #: The file that says how many there are; "": the machine's own.
    usage: str = ""

    def taken(self) -> int:
        """How many there are; a look takes five microseconds."""
        if self.usage:
            return int(_text(self.usage) or 0)
        return int((_text("/proc/loadavg") or "0/0 0").partition("/")[2].split()[0])


class Machine:
    """The machine, or that part of it that control groups leave to this process.

    `root`: where the groups are; `own`: the file that says which ones this process is in.
    """

    def __init__(self, root: str = GROUPS, own: str = "/proc/self/cgroup") -> None:
        memory = _table("/proc/meminfo", (b"MemTotal:",))
        self._groups = list(_memory_groups(root, own, memory.get(b"MemTotal:", 1 << 62)))
        names = ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max")
        most = min([int(text) for text in map(_text, names) if text.isdigit()], default=32768)
        #: What bounds the processes and threads that there can be.
        self.crowds = [Crowd("the machine", most), *_crowd_groups(root, own, most)]

    def available(self) -> int:
        """Bytes of memory, swap included, that processes may take before the kernel ends some."""
        memory = _table("/proc/meminfo", (b"MemAvailable:", b"SwapFree:"))
        left = [group.left() for group in self._groups]
        return min([sum(memory.values()), *left]) if b"MemAvailable:" in memory else min(left, default=1 << 62)

    @staticmethod
    def cores() -> int:
        """Cores that this process may use."""
        return len(os.sched_getaffinity(0))

    def crowd_max(self) -> int:
        """As many processes and threads as there can be."""
        return min(crowd.limit for crowd in self.crowds)


def _memory_groups(root: str, own: str, total: int) -> Iterator[_Group]:
    """The control groups that bound this process's memory below the machine's own."""
    for controller, folder in _own_groups(root, own, _MEMORY):
        limit, usage, droppable = _MEMORY[controller]
        text = _text(f"{folder}/{limit}")
        if text.isdigit() and int(text) < total:
            yield _Group(int(text), f"{folder}/{usage}", f"{folder}/memory.stat", droppable)


def _crowd_groups(root: str, own: str, most: int) -> Iterator[Crowd]:
    """The control groups that bound processes and threads below the machine's own limit."""
    for _, folder in _own_groups(root, own, ("", "pids")):
        text = _text(f"{folder}/pids.max")
        if text.isdigit() and int(text) < most:
            yield Crowd("its control group", int(text), f"{folder}/pids.current")


def _own_groups(root: str, own: str, controllers: Collection[str]) -> Iterator[tuple[str, str]]:
    """The groups of this process and those above: the hierarchy's name ("": the second version's), the directory."""
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for controller in {*names.split(",")}.intersection(controllers):
            hierarchy = f"{root}/{controller}".rstrip("/")
            while True:
                yield controller, f"{hierarchy}{path.rstrip('/')}"
                if path in ("", "/"):
                    break
                path = os.path.dirname(path)


def _text(path: str) -> str:
    # A file object costs five times the system calls, and the runner looks several times a second.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 16).decode("ascii", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)
