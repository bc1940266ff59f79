"""What a bad task does, and what its neighbours look at. Imported by workers of every system: standard library only.

Every case ends by itself within a minute or so, so that nothing is left of it where a system does not end it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Position of the bad task among the others.
BAD = 5
#: Seconds that a good task takes, so that some run beside the bad one whatever the system.
GOOD_SECONDS = 0.02
#: Seconds after which what would be endless ends.
ENDLESS = 90.0
#: Bytes that the case `memory` asks for, and that it may have beyond what its process has.
WANTED, ALLOWED = 1_000_000_000, 250_000_000
#: Bytes that a task may have in a system that can be told.
TASK_MEMORY = 500_000_000
#: Bytes of output of the case `output`.
OUTPUT_BYTES = 200_000_000
THREADS = 100_000
#: Where the case `disk` finds a small file system.
SMALL_DISK = "BENCH_SMALL_DISK"
#: What the case `state` leaves behind.
SPOILED = "BENCH_SPOILED"

nap = time.sleep  # noqa: TID251  it is the tasks that sleep


class Awkward(Exception):
    """Pickles, and does not come back."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second


@dataclass(frozen=True)
class Case:
    """One way to be bad."""

    act: Callable[[], Any]
    #: For the table.
    title: str
    #: How vmrun must say that the task ended; `ok` where the task does nothing that is forbidden.
    kinds: tuple[str, ...]


def raise_error() -> None:
    raise ValueError("bad")


def exit_politely() -> None:
    sys.exit(3)


def exit_at_once() -> None:
    os._exit(3)


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def be_killed() -> None:
    script = f"sleep 0.1; kill -9 {os.getpid()}"
    subprocess.Popen(["sh", "-c", script], start_new_session=True)
    nap(ENDLESS / 2)


def use_memory() -> None:
    """Ask for more than is allowed. The limit is the process's own, so the machine is never short of memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        has = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + ALLOWED, before[1]))
    try:
        len(b"x" * WANTED)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def be_greedy() -> None:
    """Take twice what a task may have, and hold it for as long as a watcher may need to see it."""
    kept = [b"x" * (TASK_MEMORY // 10) for _ in range(20)]
    nap(5.0)
    del kept


def loop() -> None:
    end = time.monotonic() + ENDLESS
    while time.monotonic() < end:
        pass


def ignore_the_end() -> None:
    # Dask calls tasks from a thread, where signals cannot be set.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    loop()


def raise_awkward() -> None:
    raise Awkward("one", "two")


def return_lock() -> Any:
    return threading.Lock()


def leave_daemon() -> str:
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            nap(ENDLESS)
        os._exit(0)
    os.waitpid(child, 0)
    return "left a daemon"


def close_descriptors() -> str:
    os.closerange(0, 4096)
    return "closed"


def scribble() -> str:
    for name in os.listdir("/proc/self/fd"):
        try:
            os.set_blocking(int(name), False)
            os.write(int(name), b"junk" * 64)
        except OSError:
            continue
    return "scribbled"


def print_much() -> str:
    line = b"x" * 99_999 + b"\n"
    for _ in range(OUTPUT_BYTES // len(line)):
        os.write(1, line)
    return "printed"


def print_bytes() -> str:
    for fd in (1, 2):
        os.write(fd, bytes(range(256)) * 100 + b"\xff\xfe\x00\n")
    return "printed"


def change_state() -> str:
    os.chdir("/")
    os.umask(0)
    os.environ[SPOILED] = "yes"
    return "changed"


def leave_alarm() -> str:
    """A limit of its own for something, that it forgets to take back."""
    signal.setitimer(signal.ITIMER_REAL, GOOD_SECONDS * 2.5)
    return "left an alarm"


def end_the_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    nap(ENDLESS / 2)


def start_threads() -> str:
    """Start them, and let go of each by itself: thousands that wake at once are at each other's throat for a minute."""
    held: list[tuple[threading.Lock, threading.Thread]] = []
    try:
        for _ in range(THREADS):
            lock = threading.Lock()
            lock.acquire()
            thread = threading.Thread(target=lock.acquire, kwargs={"timeout": ENDLESS}, daemon=True)
            thread.start()
            held.append((lock, thread))
    finally:
        for lock, thread in held:
            lock.release()
            thread.join()
    return f"{len(held)} threads"


def fill_disk() -> None:
    """Write until there is no room, and leave it all there."""
    folder = os.environ.get(SMALL_DISK) or tempfile.gettempdir()
    with open(os.path.join(folder, "filler"), "wb", buffering=0) as file:
        while True:
            file.write(bytes(1_000_000))


CASES = {
    "raise": Case(raise_error, "raises an exception", ("raised",)),
    "exit": Case(exit_politely, "`sys.exit(3)`", ("exited",)),
    "os-exit": Case(exit_at_once, "`os._exit(3)`", ("exited",)),
    "segfault": Case(segfault, "segmentation fault", ("signalled",)),
    "abort": Case(abort, "`os.abort()`", ("signalled",)),
    "killed": Case(be_killed, "its process is killed from outside", ("signalled", "lost")),
    "memory": Case(use_memory, "asks for more memory than its limit", ("raised", "oom")),
    "greedy": Case(be_greedy, "takes 1 GB, where a task may have 500 MB", ("oom",)),
    "endless": Case(loop, "never ends", ("timeout",)),
    "stubborn": Case(ignore_the_end, "never ends, ignores SIGTERM", ("timeout",)),
    "exception": Case(raise_awkward, "raises what cannot be unpickled", ("raised",)),
    "result": Case(return_lock, "returns what cannot be pickled", ("unpicklable",)),
    "daemon": Case(leave_daemon, "leaves a daemon behind", ("ok",)),
    "closed": Case(close_descriptors, "closes every descriptor", ("ok", "lost")),
    "scribbled": Case(scribble, "writes into every descriptor", ("ok", "lost")),
    "output": Case(print_much, "prints 200 MB", ("ok",)),
    "binary": Case(print_bytes, "prints bytes that are no text", ("ok",)),
    "state": Case(change_state, "changes directory, umask and environment", ("ok",)),
    "alarm": Case(leave_alarm, "leaves an alarm behind", ("ok",)),
    "parent": Case(end_the_parent, "kills the process that started its own", ("lost",)),
    # `timeout` where a busy computer is not far with them by then.
    "threads": Case(start_threads, f"starts {THREADS:,} threads", ("signalled", "raised", "timeout")),
    "disk": Case(fill_disk, "fills the disk", ("raised",)),
}


def items(case: str, tasks: int) -> list[tuple[int, str]]:
    """Arguments of `work`: a bad task among good ones."""
    return [(number, case if number == BAD else "") for number in range(tasks)]


def work(item: tuple[int, str]) -> Any:
    """A task: the bad one, or one that says what it finds."""
    number, case = item
    if case:
        return CASES[case].act()
    nap(GOOD_SECONDS)
    print("task", number, flush=True)
    mask = os.umask(0o77)
    os.umask(mask)
    return number, os.getcwd() == "/" or mask == 0 or SPOILED in os.environ
