"""The template: a process that loads the job's shared object, once, and that workers are forked from.

So all workers see one copy of it, also of plain Python objects, and the runner itself runs no code of the user's. A
worker is forked twice: the process between it and the template ends at once, whereby the runner, which adopts orphans,
becomes the worker's parent, learns of its death, and is never without the template's word about who it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn

from vmrun.core.blocks import PYTHON, Status

from . import failures
from .functions import JobFinder
from .guard import THREADS, Place
from .outputs import Outputs
from .shared import Shared
from .slots import Ends, RunnerConfig, Slot, become_worker, make_slot, settle_child
from .usage import anonymous

#: Workers that are asked for and not there yet, at most.
BIRTHS_MAX = 16
#: Bytes of one message at most; between the two, messages are JSON texts.
_MESSAGE = 64 * 1024
#: Seconds between looks at whether the process in between has ended.
_PAUSE = 0.0005
_FAILED = 121
#: When memory runs out, a worker is less of a loss than what all are forked from, and the rest of the machine more.
_OOM_SCORE = b"400"


@dataclass(slots=True)
class News:
    """What the template said."""

    #: Workers that are there now.
    born: list[Slot] = field(default_factory=list)
    #: Workers that cannot be had, and why.
    unborn: list[tuple[Slot, str]] = field(default_factory=list)
    #: Threads that loading left behind, beside which no fork is safe; then the template is of no use.
    threads: int = 0
    #: Why the object cannot be loaded: what becomes of every task.
    failure: tuple[Status, bytes] | None = None
    #: What it says is not to be believed: user code wrote into its socket.
    broken: bool = False


class Template:
    """The runner's side. Raises OSError when there can be no such process."""

    def __init__(self, config: RunnerConfig, place: Place, limits: tuple[int, int]) -> None:
        self._config = config
        self._limits = limits
        #: The object is loaded, and workers may be asked for.
        self.ready = False
        self._unborn: dict[int, Slot] = {}
        #: Bytes of its memory that workers have from it.
        self._inherited = 0
        self._report = os.memfd_create("vmrun-report", os.MFD_CLOEXEC)
        self._log = os.memfd_create("vmrun-template", os.MFD_CLOEXEC)
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        runner = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become_template(config, place, (theirs, self._report, self._log), runner, limits)
        theirs.close()

    def spawn(self, place: Place) -> Slot | None:
        """Ask for a worker; None when enough are on their way. Raises OSError."""
        if len(self._unborn) >= BIRTHS_MAX:
            return None
        memory = os.memfd_create("vmrun-worker", os.MFD_CLOEXEC)
        ours, theirs = socket.socketpair()
        outputs: Outputs | None = None
        try:
            shared = Shared(memory)
            outputs = Outputs(place.directory, place.serial, self._config.output_cap)
            out, err = (stream.fd for stream in outputs.streams)
            message = json.dumps(dataclasses.asdict(place)).encode()
            socket.send_fds(self.channel, [message], [theirs.fileno(), memory, out, err])
        except OSError as error:
            ours.close()
            if outputs is not None:
                outputs.close()
            if isinstance(error, BlockingIOError):
                return None
            raise
        finally:
            theirs.close()
            os.close(memory)
        slot = self._unborn[place.serial] = make_slot(place, -place.serial, ours, (shared, outputs), self._inherited)
        return slot

    def news(self) -> News:
        """All that it has said since the last time."""
        news = News()
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self.channel.recv(_MESSAGE):
                try:
                    self._take(json.loads(data), news)
                except (ValueError, LookupError, TypeError, AttributeError):
                    news.broken = True
        return news

    def _take(self, message: dict[str, Any], news: News) -> None:
        if "born" in message:
            slot, pid = self._unborn[int(message["born"])], int(message["pid"])
            if pid <= 1:
                raise ValueError(f"no process has the number {pid}")
            del self._unborn[slot.place.serial]
            slot.pid = pid
            news.born.append(slot)
        elif "unborn" in message:
            news.unborn.append((self._unborn.pop(int(message["unborn"])), str(message["reason"])))
        elif "failed" in message:
            news.failure = Status(message["failed"]), os.pread(self._report, os.fstat(self._report).st_size, 0)
        elif "threads" in message:
            news.threads = int(message["threads"])
        else:
            self.ready = bool(message["ready"])
            self._inherited = anonymous(self.pid)

    def last_words(self) -> str:
        """The end of what it wrote."""
        size = os.fstat(self._log).st_size
        return os.pread(self._log, 4096, max(0, size - 4096)).decode(errors="replace")

    def kill(self) -> None:
        """End it; the workers that were forked from it stay."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> list[Slot]:
        """Let go of everything; the process has ended. The workers that will never come."""
        self.channel.close()
        os.close(self._report)
        os.close(self._log)
        left = list(self._unborn.values())
        self._unborn.clear()
        return left


# --- in the process itself ---


def _become_template(
    config: RunnerConfig,
    place: Place,
    ends: tuple[socket.socket, int, int],
    runner: int,
    limits: tuple[int, int],
) -> NoReturn:
    """In the child: load, say so, and fork whoever is asked for. Never returns."""
    channel, report, log = ends
    try:
        _redirect(log)
        settle_child(runner, limits, {channel.fileno(), report}, config.niceness, _OOM_SCORE)
        faulthandler.enable(2, all_threads=False)
        defaults = _prepare(config, place)
        status, document = _load(config)
        # Whatever that has done to it: children are waited for here.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if document:
            os.write(report, document)
            channel.send(json.dumps({"failed": int(status)}).encode())
            os._exit(_FAILED)
        threads = _threads()
        if threads > 1:
            channel.send(json.dumps({"threads": threads - 1}).encode())
            os._exit(_FAILED)
        os.close(report)
        gc.collect()
        # What is here now is not walked through, and so not copied, in each worker.
        gc.freeze()
        channel.send(b'{"ready":true}')
        while _serve(config, channel, defaults, runner, limits):
            pass
    except BaseException:  # noqa: BLE001  nothing may get past here into the runner's own loop
        import traceback

        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode(errors="replace"))
        os._exit(_FAILED)
    os._exit(0)


def _redirect(log: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    # Each writes at the end, whoever else has the same file.
    end = os.open(f"/proc/self/fd/{log}", os.O_WRONLY | os.O_APPEND)
    os.dup2(end, 1)
    os.dup2(end, 2)


def _prepare(config: RunnerConfig, place: Place) -> list[str]:
    """The surroundings in which a task would find itself; names of the variables that are only this process's."""
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    defaults = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(defaults, str(place.threads)))
    os.environ["VMRUN_JOB"] = place.job
    os.chdir(config.code_path or config.directory)
    if config.code_path and config.code_path not in sys.path:
        sys.path.insert(0, config.code_path)
    return defaults


def _load(config: RunnerConfig) -> tuple[Status, bytes]:
    """Load the object for this process and those forked from it; a failure document, or nothing."""
    import cloudpickle

    from vmrun import sharing

    try:
        parcel = sharing.open_parcel(config.shared)
        if config.source:
            # Not at once: what stands at the top of the file is each worker's own, unless the object is of its classes.
            sys.meta_path.append(JobFinder(config.source))
        if parcel.python != PYTHON:
            return Status.unpicklable, failures.foreign_python("the shared data", parcel.python)
        sharing.hold(parcel.load())
    except BaseException as error:  # noqa: BLE001  whatever the object's own code raises is every task's outcome
        with contextlib.suppress(Exception):
            error.add_note("(raised while the job's shared data was loaded)")
        status, document = failures.describe(error, cloudpickle.dumps)
        return status, failures.prefixed(document, "the shared data cannot be loaded: ")
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    return Status.ok, b""


def _threads() -> int:
    """Threads of this process, without those of libraries that end theirs before a fork and start them anew."""
    for _ in range(2):
        count = len(os.listdir("/proc/self/task"))
        if count == 1:
            break
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return count


def _serve(
    config: RunnerConfig, channel: socket.socket, defaults: list[str], runner: int, limits: tuple[int, int]
) -> bool:
    """Fork one worker; False when the runner is gone."""
    message, fds, _, _ = socket.recv_fds(channel, _MESSAGE, 4)
    if not message:
        return False
    place = Place(**json.loads(message))
    reason = ""
    try:
        between = os.fork()
        if between == 0:
            _fork_again(config, place, (channel, fds, defaults), runner, limits)
        code = os.waitstatus_to_exitcode(os.waitpid(between, 0)[1])
        if code:
            reason = f"cannot make a worker process: {os.strerror(code) if code > 0 else failures.signal_name(-code)}"
    except OSError as error:
        reason = f"cannot make a worker process: {error}"
    for fd in fds:
        os.close(fd)
    if reason:
        channel.send(json.dumps({"unborn": place.serial, "reason": reason}).encode())
    return True


def _fork_again(
    config: RunnerConfig,
    place: Place,
    ends: tuple[socket.socket, list[int], list[str]],
    runner: int,
    limits: tuple[int, int],
) -> NoReturn:
    """In the process in between: fork the worker, tell the runner its number, and get out of the way."""
    channel, fds, defaults = ends
    own = os.getpid()
    try:
        worker = os.fork()
    except OSError as error:
        os._exit(error.errno or 1)
    if worker:
        # Before the runner becomes its parent, and so before it can learn of its death.
        channel.send(json.dumps({"born": place.serial, "pid": worker}).encode())
        os._exit(0)
    while os.getppid() == own:
        time.sleep(_PAUSE)  # noqa: TID251  the runner has no one to hand it a clock
    channel.close()
    for name in defaults:
        os.environ.pop(name, None)
    _reseed()
    theirs, memory, out, err = fds
    ends_of_worker = Ends(socket.socket(fileno=theirs), Shared(memory), out, err)
    os.close(memory)
    # What the load has opened stays open: the object may need it.
    become_worker(config, place, ends_of_worker, runner, limits, close_others=False)


def _reseed() -> None:
    """Not all workers shall draw the same numbers; `random` sees to that itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        with contextlib.suppress(Exception):
            numpy_random.seed()
