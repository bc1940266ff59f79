"""Processes of this computer: who they are, who descends from whom, how to start and to end them (Linux).

A process is known by its number and its start time, because numbers are used again. Loaded by the guardian.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

from vmrun.core.clock import Clock

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)
#: Seconds between two looks at processes that are being killed.
_KILL_PAUSE = 0.005


class Process(NamedTuple):
    """One living process."""

    pid: int
    #: Clock ticks since boot.
    start: int


class _Stat(NamedTuple):
    process: Process
    parent: int


def _stat(pid: int) -> _Stat | None:
    """A process as /proc tells it; None when it is gone or a mere zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A zombie with more than one thread lost only its main thread.
    if fields[0] in b"ZX" and int(fields[17]) <= 1:
        return None
    return _Stat(Process(pid, int(fields[19])), int(fields[1]))


def find(pid: int) -> Process | None:
    """The living process with this number."""
    found = _stat(pid)
    return found.process if found else None


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def to_record(process: Process) -> dict[str, object]:
    """What to write down so that the process is recognised later, also after a reboot."""
    return {"pid": process.pid, "start": process.start, "boot": _boot()}


def from_record(record: Mapping[str, object] | None) -> Process | None:
    """The living process that was written down; None when it is no more."""
    if record is None or record.get("boot") != _boot():
        return None
    pid, start = record.get("pid"), record.get("start")
    found = find(pid) if isinstance(pid, int) and pid > 0 else None
    return found if found is not None and found.start == start else None


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int) -> list[Process]:
    """Every living process that descends from `root`, which is not among them."""
    children: dict[int, list[Process]] = {}
    for pid in _all_pids():
        if found := _stat(pid):
            children.setdefault(found.parent, []).append(found.process)
    result, todo = [], [root]
    while todo:
        below = children.pop(todo.pop(), [])
        result += below
        todo += [process.pid for process in below]
    return result


def marked(marks: Mapping[str, str]) -> list[Process]:
    """Every living process, but this one, that was started with these environment variables."""
    wanted = {os.fsencode(f"{key}={value}") for key, value in marks.items()}
    result = []
    for pid in _all_pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = set(file.read().split(b"\0"))
        except OSError:
            continue  # gone, or another user's
        if pid != os.getpid() and wanted <= environment and (process := find(pid)):
            result.append(process)
    return result


def kill_all(which: Callable[[], Iterable[Process]], clock: Clock, seconds: float) -> bool:
    """Kill what `which` names until it names nobody; False if some are left after `seconds`."""
    deadline = clock.monotonic() + seconds
    while True:
        alive = list(which())
        if not alive:
            return True
        for process in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if find(process.pid) == process:
                    os.kill(process.pid, signal.SIGKILL)
        reap()
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(_KILL_PAUSE)


def reap() -> dict[int, int]:
    """Collect every ended child; exit codes by process number, negative for signals.

    Only for programs that own all their children.
    """
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (result := os.waitpid(-1, os.WNOHANG))[0]:
            ended[result[0]] = os.waitstatus_to_exitcode(result[1])
    return ended


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent dies, so that none gets away by becoming a daemon."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, signum: signal.Signals) -> bool:
    """Have the kernel send `signum` to this process when its parent dies; False if it is dead already."""
    _prctl(_PR_SET_PDEATHSIG, signum)
    return os.getppid() == parent


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Bell:
    """Wakes a waiting program when one of some signals arrives; takes over their handlers."""

    def __init__(self, *signals: signal.Signals) -> None:
        self._heard: set[int] = set()
        self._ear, mouth = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
        for signum in signals:
            signal.signal(signum, self._note)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self._heard.add(signum)

    def heard(self, signum: signal.Signals) -> bool:
        """Whether the signal ever arrived."""
        return signum in self._heard

    def wait(self, seconds: float, *others: int) -> None:
        """Wait for a signal, for input on one of `others`, or until `seconds` have passed."""
        ready, _, _ = select.select([self._ear, *others], [], [], max(0.0, seconds))
        if self._ear in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._ear, 4096)


def spawn(argv: Sequence[str], environment: Mapping[str, str], output: int) -> int:
    """Start a program in a session of its own, killed when this process dies; its process number.

    Standard output and error go to `output`, the working directory is this one's. Returns when the program
    runs; raises OSError when it cannot be run. For programs with a single thread.
    """
    told, tell = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(argv, environment, output, tell, parent)
    os.close(tell)
    with os.fdopen(told, "rb") as file:
        failure = file.read(64)
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)), argv[0])
    return pid


def _become(argv: Sequence[str], environment: Mapping[str, str], output: int, tell: int, parent: int) -> NoReturn:
    """The child's half of `spawn`."""
    try:
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signum, signal.SIG_DFL)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        if die_with_parent(parent, signal.SIGKILL):
            os.execvpe(argv[0], list(argv), dict(environment))  # noqa: S606 - an argv list, no shell
    except OSError as error:
        os.write(tell, str(error.errno).encode())
    finally:
        os._exit(127)
