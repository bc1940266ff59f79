"""The agent's handle on the engine: starts the runner, feeds it tasks, hands out what happens.

One engine serves one job. What user code does, it does in processes below the runner; nothing of theirs is opened
here: results pass through as bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import socket
import struct
import subprocess
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vmrun.core.blocks import ResultBlock, Status, TaskBlock, failure
from vmrun.core.clock import Clock, system_rng
from vmrun.core.errors import UsageError
from vmrun.core.ids import new_id

from .groups import make_group
from .runner import launch
from .runner.chunks import OVERHEAD, Work, WorkQueue
from .runner.frames import REPLY_MAX, Frame, FrameReader, FrameWriter, Kind
from .runner.outputs import STDOUT, records
from .sweep import end_engine

#: What the runner holds at most: bytes of arguments and tasks; always enough to keep all workers at work.
AHEAD_BYTES, AHEAD_TASKS = 64 * 1024 * 1024, 512 * 1024
#: What waits here before `wants` says no.
BACKLOG_BYTES, BACKLOG_TASKS = 16 * 1024 * 1024, 128 * 1024
#: Tasks and bytes of one frame, and bytes that may wait for the socket.
_PIECE_TASKS, _PIECE_BYTES, _SEND_BYTES = 16 * 1024, 1024 * 1024, 4 * 1024 * 1024
#: Bytes read in one poll.
_READ_BYTES = 8 * 1024 * 1024
#: Seconds that the runner gets to end by itself.
_CLOSE_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine is made from. Paths are absolute."""

    #: The job's interpreter.
    python: str
    #: Holds vmrun, and cloudpickle if the interpreter's environment may lack it; appended to the module path.
    app_path: str
    #: The engine's own directory; made anew, removed by `close`.
    directory: str
    workers: int
    job: str
    #: Threads that libraries in each worker start; 0: the worker's share of the cores. `threads_asked`: the user said
    #: so; then it holds for programs that are tasks of their own, too.
    threads: int = 0
    threads_asked: bool = False
    #: Bytes of memory that one task may take; 0: no limit of its own.
    task_memory: int = 0
    #: Bytes of the machine's memory that all tasks together may take; 0: not known.
    memory: int = 0
    #: Bytes that are to stay free beyond those; below, a task that takes more than its share is ended.
    memory_spare: int = 0
    #: Processes and threads that all tasks together may have; 0: as many as the machine can do with.
    crowd_max: int = 0
    #: Seconds after SIGKILL at which a process that is still there is given up.
    abandon_after: float = 60.0
    #: Whether each task gets a new process.
    fresh: bool = False
    #: The job's code: first on the module path, and the directory that tasks start in.
    code_path: str = ""
    #: Variables for user code, beyond a few of the agent's own (see `launch.INHERITED`).
    env: Mapping[str, str] = field(default_factory=dict)
    #: Seconds that one task may take.
    task_timeout: float | None = None
    #: Seconds between SIGTERM and SIGKILL.
    kill_grace: float = 10.0
    #: Further attempts for a task that fails.
    retries: int = 0
    #: Unix user for runner and workers; "" for this process's.
    user: str = ""
    #: Bytes that are kept of what one task writes to stdout, and to stderr: its beginning and its end.
    output_cap: int = 64 * 1024 * 1024
    #: The parcel of the object that all workers share (`core.parcels`), loaded once before there are any; "": none.
    shared: str = ""
    #: The file whose functions the job calls by name, if there is one: the shared object may be of its classes.
    source: str = ""


#: Fields of the spec that the runner is told.
_FOR_RUNNER = (
    *("workers", "threads", "threads_asked", "task_memory", "memory", "memory_spare", "crowd_max"),
    *("abandon_after", "fresh"),
    *("job", "code_path", "app_path"),
    *("task_timeout", "kill_grace", "retries", "output_cap"),
    *("shared", "source"),
)


@dataclass(frozen=True, slots=True)
class FunctionDefinition:
    """What tasks call."""

    kind: Literal["pickle", "source", "command"]
    role: Literal["map", "reduce"] = "map"
    #: Python `major.minor` that pickled `data`; "" if it does not matter.
    python: str = ""
    #: kind `pickle`
    data: bytes = b""
    #: kind `source`: the file, and the name in it
    path: str = ""
    name: str = ""
    #: kind `command`; `{python}` in front stands for the job's interpreter
    argv: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """Outcomes of neighbouring tasks."""

    block: ResultBlock
    function: str


@dataclass(frozen=True, slots=True)
class LargeResult:
    """A successful outcome that is a file: an encoded block of one task. Whoever takes the event owns the file."""

    task: int
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what a task wrote; all of a task's pieces come before its outcome."""

    task: int
    attempt: int
    #: `stdout` or `stderr`.
    stream: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Files:
    """A directory that holds what a task wrote to `$VMRUN_OUTPUT`; also of attempts that failed.

    Whoever takes the event owns the directory.
    """

    task: int
    attempt: int
    path: str


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the engine is: busy workers, tasks that wait, tasks whose outcome was reported."""

    running: int
    queued: int
    done: int
    #: Workers that were killed and did not end: others have their places, and their memory is gone.
    stuck: int = 0


@dataclass(frozen=True, slots=True)
class RunnerDied:
    """The runner is gone and so are all its processes; nothing more will come from this engine."""

    reason: str
    #: Whether the runner gave that reason itself, or what it said was its end.
    told: bool = False


Event = Results | LargeResult | Output | Files | Load | RunnerDied


class Engine:
    """One runner and its workers. Only `wake` may be called from another thread."""

    def __init__(self, spec: EngineSpec, clock: Clock) -> None:
        """Start the runner. Raises UsageError when the interpreter or the user is not there, or workers are none."""
        if spec.workers < 1:
            raise UsageError(f"{spec.workers} workers cannot run a job", hint="ask for at least one with --workers")
        self._spec = spec
        self._clock = clock
        self._mark = new_id(clock, system_rng())
        self._group = make_group(self._mark, spec.memory, clock.now())
        ours, theirs = socket.socketpair()
        try:
            launch.make_directories(spec.directory, spec.user, self._mark)
            env = launch.environment(spec.env, spec.user, self._mark)
            paths = (spec.python, spec.app_path, spec.directory)
            self._process = launch.start(paths, spec.user, env, theirs.fileno())
            # It starts no process before it is configured: all that there will be is in the group.
            self._group.add(self._process.pid)
            self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
            launch.favour(self._process.pid, self._niceness)
        except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            ours.close()
            self._group.end(clock)
            launch.remove(spec.directory)
            raise UsageError(
                f"cannot start {spec.python} for the job: {error}",
                hint="check that this interpreter exists on the machine and that the job's user may run it",
            ) from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._channel = ours
        self._reader, self._writer = FrameReader(ours, REPLY_MAX), FrameWriter(ours)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(ours, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._queue = WorkQueue()
        self._events: deque[Event] = deque()
        self._functions: set[str] = set()
        #: Tasks and bytes that the runner has and has not answered for.
        self._ahead_tasks = self._ahead_bytes = 0
        self._done = 0
        self._seized = 0
        self._dead = False
        self._closed = False
        self._configure()

    def _configure(self) -> None:
        spec = self._spec
        head = {name: getattr(spec, name) for name in _FOR_RUNNER}
        head["directory"] = os.path.join(spec.directory, launch.RUN)
        head["niceness"] = self._niceness
        self._writer.push(Kind.configure, head)
        self._flush()

    def define(self, function: str, definition: FunctionDefinition) -> None:
        """Make `function` known. It stays known; defining it again changes nothing."""
        if function in self._functions:
            return
        self._functions.add(function)
        head = {**dataclasses.asdict(definition), "function": function}
        data = head.pop("data")
        self._writer.push(Kind.define, head, data)
        self._flush()

    def feed(self, block: TaskBlock, function: str) -> None:
        """Queue tasks; their numbers are unique in this engine. Never waits. Raises UsageError if not defined."""
        if function not in self._functions:
            raise UsageError(f"function {function!r} is not defined in this engine", hint="define it before feeding")
        self._queue.add(Work(function, block))
        self._pump()

    def wants(self) -> bool:
        """Whether more tasks are welcome now."""
        return not self._dead and self._queue.bytes < BACKLOG_BYTES and self._queue.tasks < BACKLOG_TASKS

    def idle(self) -> bool:
        """Whether the outcome of every task that was fed has been handed out by `poll`."""
        return not (self._queue.tasks or self._ahead_tasks or self._events)

    def poll(self, timeout: float) -> list[Event]:
        """What has happened; waits up to `timeout` seconds for something to happen, or for `wake`."""
        deadline = self._clock.monotonic() + timeout
        woken = False
        while not self._events and not self._dead and not woken:
            self._pump()
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._writer.pending else 0)
            if self._selector.get_key(self._channel).events != wanted:
                self._selector.modify(self._channel, wanted)
            left = deadline - self._clock.monotonic()
            for key, _ in self._selector.select(max(0.0, left)):
                if key.fileobj is self._channel:
                    self._receive()
                else:
                    woken = _drained(self._wake_read)
            if left <= 0:
                break
        self._pump()
        events = list(self._events)
        self._events.clear()
        return events

    def wake(self) -> None:
        """Have a `poll` that waits, or the next one, return at once. For any thread."""
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    def fileno(self) -> int:
        """Becomes readable when `poll` has something to do."""
        return self._selector.fileno()

    def cancel(self) -> None:
        """Have all tasks that run or wait end as `cancelled`; what is fed from now on runs."""
        for work in self._queue.take_all():
            self._events.append(Results(_cancelled(work), work.function))
        if not self._dead:
            self._writer.push(Kind.cancel, {})
            self._flush()

    def close(self) -> None:
        """Kill every process of the engine and remove its directory. Idempotent."""
        if self._closed:
            return
        self._closed = self._dead = True
        self._end()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
        launch.remove(self._spec.directory)

    # --- to the runner ---

    def _pump(self) -> None:
        """Hand over tasks as far as the runner may have more."""
        while self._queue.tasks and not self._dead and self._writer.pending < _SEND_BYTES and self._has_room():
            work = self._queue.take(_PIECE_TASKS, _PIECE_BYTES)
            block = work.block
            self._ahead_tasks += block.count
            self._ahead_bytes += len(block.payload) + OVERHEAD * block.count
            self._writer.push(Kind.tasks, {"function": work.function}, *block.start(), block.payload)
        self._flush()

    def _has_room(self) -> bool:
        if self._ahead_tasks <= self._spec.workers:
            return True
        return self._ahead_tasks < AHEAD_TASKS and self._ahead_bytes < AHEAD_BYTES

    def _flush(self) -> None:
        if not self._dead:
            with contextlib.suppress(OSError):  # reading will tell that it is gone
                self._writer.flush()

    # --- from the runner ---

    def _receive(self) -> None:
        try:
            for frame in self._reader.read(_READ_BYTES):
                self._take(frame)
        except (OSError, LookupError, TypeError, ValueError, struct.error) as error:
            # The runner is the job's user: whatever user code may have done to it must not end this process.
            self._died(f"what the runner sends cannot be read: {error}")
        if self._reader.closed:
            self._died("")

    def _take(self, frame: Frame) -> None:
        head = frame.head
        if frame.kind is Kind.results:
            block = ResultBlock.decode(frame.body)
            self._answered(block.count, head["freed"])
            self._events.append(Results(block, head["function"]))
        elif frame.kind is Kind.large:
            self._answered(1, head["freed"])
            path = self._seize("spool", head["path"])
            self._events.append(LargeResult(int(head["task"]), path, os.stat(path).st_size))
        elif frame.kind is Kind.output:
            for task, attempt, stream, data in records(frame.body):
                self._events.append(Output(task, attempt, "stdout" if stream == STDOUT else "stderr", bytes(data)))
        elif frame.kind is Kind.files:
            self._events.append(Files(int(head["task"]), int(head["attempt"]), self._seize("files", head["path"])))
        elif frame.kind is Kind.load:
            self._events.append(Load(head["running"], head["queued"] + self._queue.tasks, self._done, head["stuck"]))
        elif frame.kind is Kind.fatal:
            self._died(head["reason"])

    def _seize(self, part: str, path: str) -> str:
        self._seized += 1
        return launch.take(self._spec.directory, part, path, self._seized)

    def _answered(self, count: int, freed: int) -> None:
        self._done += count
        self._ahead_tasks -= count
        self._ahead_bytes -= freed + OVERHEAD * count

    def _died(self, reason: str) -> None:
        if self._dead:
            return
        self._dead, told = True, bool(reason)
        self._end()
        if not reason:
            code = self._process.returncode
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            said = launch.last_words(self._spec.directory)
            reason = f"the runner ended with {how}" + (f": {said}" if said else "")
        self._events.append(RunnerDied(reason, told))

    def _end(self) -> None:
        """Leave no process."""
        if self._channel.fileno() >= 0:
            self._selector.unregister(self._channel)
        # The runner takes this as the order to kill all that is below it, and ends.
        self._channel.close()
        try:
            self._process.wait(_CLOSE_PATIENCE)
        except subprocess.TimeoutExpired:
            # With all that is below it, before it can leave that to others.
            end_engine(self._mark, self._clock)
            self._process.wait()
        # After an orderly end there is nothing left. A runner that was killed leaves what its workers had started.
        end_engine(self._mark, self._clock)
        self._group.end(self._clock)


def _drained(channel: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        while channel.recv(4096):
            pass
    return True


def _cancelled(work: Work) -> ResultBlock:
    document = failure(Status.cancelled, "the job was cancelled")
    count = work.block.count
    zeros = [0.0] * count
    return ResultBlock(
        work.block.first,
        bytes([Status.cancelled]) * count,
        array("Q", [len(document)]) * count,
        document * count,
        array("d", zeros),
        array("f", zeros),
        facts={"attempt": 0},
    )
