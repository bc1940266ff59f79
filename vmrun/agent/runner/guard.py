"""A worker's process, held against what user code does to it.

Descriptors 0-2, the streams of `sys`, working directory, umask and environment are as before when the next task
starts, and so are signals, timers and limits; what a task wrote and which files it left are known exactly. Not
restored, and documented as such: mutable globals, monkeypatches and threads of earlier tasks. Processes that a task
started end with it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import functools
import io
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TextIO

from . import system
from .processes import children, end_descendants, has_children, is_running
from .undoing import Undoing

#: The worker's own descriptors are moved up here, out of the way of code that closes or reuses low ones.
_HIGH, _MARGIN = 960, 32
#: A task that took less than this many nanoseconds cannot have created a file.
FILES_FASTEST = 1000
#: Nor one that took less than this many a process.
FORK_FASTEST = 30_000
#: Where modules of Python's own and of joblib keep the number of a process that serves for as long as this one lives.
_HELPERS = (
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid"),
    ("loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)
_TASK = b"VMRUN_TASK"
_clock = time.monotonic
_seek, _stat, _fchdir, _umask = os.lseek, os.stat, os.fchdir, os.umask
#: Functions by which a task may change the process, or hand on what it has; that they were called is noticed at once.
_NOTICED = ("chdir", "fchdir", "umask", "putenv", "unsetenv", "system", "execv", "execve")
#: A sprinting task that took less than this many seconds did nothing that has to be looked at: those that call one of
#: the functions above, or write to `sys.stdout`, are made to last. A system call made past all these may fit in.
SILENT = 3e-6
#: Why a sprint is to be interrupted: enough outcomes are kept; a task did something to the process.
FULL, RESTLESS = 1, 2
#: Libraries that would start a thread per core in each worker; they get their share of the cores instead.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker works."""

    job: str
    #: The worker's number among its siblings; a replaced worker passes it on.
    slot: int
    #: Counts the processes of the engine; never passed on.
    serial: int
    #: The engine's directory.
    directory: str
    code_path: str
    #: Threads of libraries in each worker, and whether the user asked for that many.
    threads: int = 1
    threads_asked: bool = False
    #: Whether it is to end after one task.
    fresh: bool = False
    #: Bytes that all tasks together may take; 0: not known.
    memory: int = 0
    #: The core that it waits for work on; -1: any.
    core: int = -1

    @property
    def output(self) -> str:
        """The directory that tasks write their files to."""
        return os.path.join(self.directory, "output", str(self.serial))


def raise_and_close(fd: int) -> int:
    """`fd` under a high number that no program started from here inherits; negative ones stay as they are."""
    if fd < 0:
        return fd
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limit = _HIGH if soft == resource.RLIM_INFINITY else min(_HIGH, soft - _MARGIN)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(3, limit))
    os.close(fd)
    return high


class Guard:
    """Takes over the process it is made in; `out` and `err` are the files for its output, opened for appending."""

    def __init__(self, place: Place, out: int, err: int, done: Callable[[], int]) -> None:
        """`done` tells how many rows are complete while tasks sprint."""
        self._place = place
        self._files = place.output
        #: Not 0: the worker should look at what it has.
        self.unrest = [0]
        #: The number of the task in row 0 while tasks sprint, else -1. They are not announced one by one.
        self.sprint = -1
        self._done = done
        self._null = raise_and_close(os.open(os.devnull, os.O_RDWR))
        self._out, self._err = raise_and_close(out), raise_and_close(err)
        self.settle()
        self._stdout, self._stderr = self._stream(1), self._stream(2)
        self._stdin: TextIO = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  lives as long as the process
        self._install_streams()
        faulthandler.enable(self._err, all_threads=False)
        system.buffer_lines()
        self._home = raise_and_close(os.open(place.code_path or place.directory, os.O_RDONLY | os.O_DIRECTORY))
        self._mask = os.umask(0o022)
        os.umask(self._mask)
        self._fresh()
        self._references = raise_and_close(_open_references())
        self._environ = os.environ
        self._take_environment()
        os.fchdir(self._home)
        for name in _NOTICED:
            setattr(os, name, self._noticed(getattr(os, name)))
        self.undoing = Undoing(self._noticed)
        # Programs that are started get the environment of C.
        os.register_at_fork(before=self._notice)
        if hasattr(subprocess, "_fork_exec"):
            subprocess._fork_exec = self._noticed(subprocess._fork_exec)  # noqa: SLF001

    def _noticed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which is known to have been called whenever it was."""
        notice = self._notice

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            notice()
            return function(*args, **kwargs)

        return call

    def _stream(self, fd: int) -> TextIO:
        """Text that is written through at once: nothing is lost in a crash, nothing of one task appears in the next."""
        raw: Any = _Raw(fd, self._notice)
        return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)

    def complain(self, text: str) -> None:
        """Write to the worker's stderr, whatever became of the streams."""
        with contextlib.suppress(OSError):
            os.write(self._err, text.encode(errors="replace"))

    def forget_peak(self) -> None:
        """Have the peak of memory that the system reports start anew; best effort."""
        with contextlib.suppress(OSError):
            if self._references >= 0:
                os.pwrite(self._references, b"5", 0)

    def _take_environment(self) -> None:
        os.environ["VMRUN_JOB"] = self._place.job
        os.environ["VMRUN_WORKER"] = str(self._place.slot)
        os.environ["VMRUN_OUTPUT"] = self._place.output
        os.environ["VMRUN_TASK"] = ""
        defaults = {name for name in THREADS if name not in os.environ}
        os.environ.update(dict.fromkeys(defaults, str(self._place.threads)))
        #: Variables that are only a default for tasks; a program that is a task of its own has all cores.
        self.defaults = set() if self._place.threads_asked else defaults
        #: Child processes that are not a task's.
        self._spared: set[int] = set()
        self._slot = system.EnvironmentSlot(_TASK)
        self._tell = self._slot.set
        # The mapping behind os.environ is compared after each task, which takes a fraction of going through os.environ.
        self._variables: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
        self._variables[_TASK] = _Current(self.number)
        self._saved = dict(self._variables)

    def announce(self, task: int) -> None:
        """Tell task `task` its number."""
        self._tell(b"%d" % task)

    def number(self) -> bytes:
        """The number of the running task, as text; it is in the environment of C from then on."""
        if self.sprint >= 0:
            self.announce(self.sprint + self._done())
        return self._slot.get()

    def moved(self, ends: tuple[int, int]) -> bool:
        """Whether descriptors 1 and 2 are anything else than our files, ending at `ends`."""
        try:
            return (_seek(1, 0, 2), _seek(2, 0, 2)) != ends
        except OSError:
            return True

    def settle(self) -> tuple[int, int]:
        """Put descriptors 0-2 back if they were changed; (end of stdout, end of stderr) in bytes. Raises OSError."""
        for low, high in ((0, self._null), (1, self._out), (2, self._err)):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(low), os.fstat(high)):
                    continue
            os.dup2(high, low)
        return os.lseek(self._out, 0, os.SEEK_END), os.lseek(self._err, 0, os.SEEK_END)

    def stirred(self, ends: tuple[int, int]) -> bool:
        """Whether a sprinting task did something: wrote to output (it ended at `ends` before) or files, or more."""
        return self.unrest[0] != 0 or self.moved(ends) or self.wrote_files()

    def _notice(self) -> None:
        """A task does something to the process; if it sprints, it lasts long enough to be looked at."""
        self.unrest[0] = RESTLESS
        if self.sprint >= 0:
            self.number()
            end = _clock() + SILENT
            while _clock() < end:
                pass

    def repair(self) -> bool:
        """Undo what a task did to the process; whether that was more than to change directory or umask.

        Raises OSError when the process is beyond repair.
        """
        _fchdir(self._home)
        _umask(self._mask)
        changed = False
        if self._variables != self._saved or os.environ is not self._environ:
            self._restore_environment()
            changed = True
        out, err, source = self._stdout, self._stderr, self._stdin
        if (
            sys.stdout is not out
            or sys.stderr is not err
            or sys.stdin is not source
            or out.closed
            or err.closed
            or source.closed
        ):
            self._restore_streams()
            changed = True
        return changed

    def _restore_environment(self) -> None:
        os.environ = self._environ  # noqa: B003  the very mapping that a task replaced
        for name in set(self._variables) - set(self._saved):
            del os.environ[os.fsdecode(name)]
        for name, value in self._saved.items():
            if self._variables.get(name) != value:
                os.environ[os.fsdecode(name)] = os.fsdecode(value)
        self._variables[_TASK] = self._saved[_TASK]
        self._slot.install()

    def _restore_streams(self) -> None:
        if self._stdout.closed:
            self._stdout = self._stream(1)
        if self._stderr.closed:
            self._stderr = self._stream(2)
        if self._stdin.closed:
            self._stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  as above
        self._install_streams()

    def _install_streams(self) -> None:
        for name, stream in (("stdin", self._stdin), ("stdout", self._stdout), ("stderr", self._stderr)):
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def keep_children(self) -> None:
        """What the function's modules started while they were loaded serves all tasks; it stays."""
        if has_children():
            self._spared.update(children(os.getpid()))

    def left_children(self) -> bool:
        """Whether there are processes that a task started, ended ones included."""
        if not has_children():
            return False
        # Those of a fork server are its children.
        return not self._spared.issuperset(_pooled()) or not self._own_children().issuperset(children(os.getpid()))

    def _own_children(self) -> set[int]:
        return self._spared | {_known(*helper) for helper in _HELPERS}

    def end_children(self) -> bool:
        """End the processes that a task left behind; this process is their next of kin, however they hid.

        False if that takes this process's own end: a pool of multiprocessing's that was left open waits for ever for
        processes that were killed, and a later task would wait with it.
        """
        if any(is_running(pid) for pid in _pooled() if pid not in self._spared):
            return False
        return not end_descendants(self._own_children(), _part)

    def wrote_files(self) -> bool:
        """Whether something changed in the output directory since it was fresh."""
        try:
            return _stat(self._files).st_mtime != 0
        except OSError:
            return True

    def take_files(self, task: int, attempt: int) -> str:
        """Move the output directory away if it holds anything; where to, or "". The next task has an empty one."""
        path = move_files(self._place, task, attempt)
        self._fresh()
        return path

    def drop_files(self) -> None:
        """Remove what the task wrote to the output directory, so that others have the space."""
        shutil.rmtree(self._place.output, ignore_errors=True)
        self._fresh()

    def _fresh(self) -> None:
        """An empty output directory, whose age shows the first change, however coarse the file system's clock."""
        os.makedirs(self._place.output, exist_ok=True)
        os.utime(self._place.output, (0, 0))


def _known(module: str, holder: str, name: str) -> int:
    """The process that a module keeps there, or 0."""
    pid = getattr(getattr(sys.modules.get(module), holder, None), name, None)
    return pid if isinstance(pid, int) else 0


def _pooled() -> list[int]:
    """Processes that multiprocessing started and has not seen the end of."""
    known = sys.modules.get("multiprocessing.process")
    return [] if known is None else [child.pid or 0 for child in list(known._children)]  # noqa: SLF001


def _part(pid: int) -> None:
    """Reap a child; one of multiprocessing's is left to that, so that it knows how it ended."""
    if pid in _pooled():
        sys.modules["multiprocessing.process"].active_children()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def files_of(place: Place, task: int, attempt: int) -> str:
    """Where the files go that a task left."""
    return os.path.join(place.directory, "files", f"{task}-{attempt}-{place.serial}")


def move_files(place: Place, task: int, attempt: int) -> str:
    """Move the output directory of `place` away if it holds anything; where to, or ""."""
    target = files_of(place, task, attempt)
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(os.lstat(place.output).st_mode):
            # What a task puts in the place of the directory is not it, wherever it leads.
            os.unlink(place.output)
        elif os.listdir(place.output):
            # Only who may write to a directory can move it.
            os.chmod(place.output, stat.S_IRWXU)
            os.rename(place.output, target)
            return target
    return ""


def reset_signals() -> None:
    """Give user code the signal handling that a fresh Python program has."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _open_references() -> int:
    """The file that resets this process's peak of memory, or -1."""
    try:
        return os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return -1


class _Raw(io.FileIO):
    """A descriptor for output; that something was written is known at once."""

    def __init__(self, fd: int, notice: Callable[[], None]) -> None:
        super().__init__(fd, "w", closefd=False)
        self._notice = notice

    def write(self, data: Any) -> int:
        self._notice()
        return super().write(data)


class _Current(bytes):
    """The running task's number, as a value of `os.environ` and of `os.environb` that need not be set for each task."""

    _number: Callable[[], bytes]

    def __new__(cls, number: Callable[[], bytes]) -> Self:
        self = super().__new__(cls)
        self._number = number
        return self

    def __bytes__(self) -> bytes:
        return self._number()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._number().decode(encoding, errors)
