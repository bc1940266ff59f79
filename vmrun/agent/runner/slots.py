"""The runner's side of one worker process: how it is forked, what it was given, how it is killed."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NoReturn

from vmrun.core.blocks import Status

from . import system
from .chunks import Work
from .frames import REPLY_MAX, FrameReader, FrameWriter, Kind
from .guard import Guard, Place, raise_and_close, reset_signals
from .outputs import Outputs
from .shared import CHUNK, STOP, Shared
from .usage import anonymous
from .worker import RETIRED, Worker

#: Of all processes, workers are what the kernel should kill first when memory runs out.
_OOM_SCORE = b"500"


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """What the agent tells the runner when it starts it."""

    directory: str
    workers: int
    job: str
    code_path: str
    app_path: str
    task_timeout: float | None
    kill_grace: float
    retries: int
    output_cap: int
    #: Threads of each worker's libraries (0: its share of the cores), and whether the user said so.
    threads: int = 0
    threads_asked: bool = False
    #: Bytes that one task may take (0: no limit), and all together (0: not known).
    task_memory: int = 0
    memory: int = 0
    #: Bytes that should stay free beyond those.
    memory_spare: int = 0
    #: Processes and threads of all tasks together; 0: as many as the machine can do with.
    crowd_max: int = 0
    #: Seconds after SIGKILL at which a worker that is still there is given up.
    abandon_after: float = 60.0
    #: Whether each task gets a new worker.
    fresh: bool = False
    #: What user code runs at; the runner itself may be favoured.
    niceness: int = 0
    #: The parcel of the job's shared object; "" if it has none.
    shared: str = ""
    #: The file whose functions the job calls; "" if it calls none by name.
    source: str = ""


@dataclass(slots=True)
class Chunk:
    """Tasks that a worker was given and has not accounted for."""

    number: int
    work: Work
    #: Number of the first task whose outcome is not known yet.
    next: int
    #: Number after the last task that the worker still answers for; the others were taken back.
    end: int

    @property
    def first(self) -> int:
        """Number of the first task."""
        return self.work.block.first

    def rest(self, first: int) -> Work:
        """The tasks from number `first` on that the worker answers for."""
        work = self.work
        return Work(work.function, work.block.slice(first, max(0, self.end - first)), work.attempt, work.losses)


@dataclass(frozen=True, slots=True)
class Doom:
    """A worker is being killed because of a task."""

    kind: Status
    #: The task; its outcome is `kind`, whatever it still does.
    task: int
    #: Monotonic time at which patience ends.
    kill_at: float
    #: What happened; a timeout says that itself.
    message: str = ""


@dataclass(slots=True)
class Slot:
    """One worker process."""

    place: Place
    #: Negative as long as the process is not there yet.
    pid: int
    channel: socket.socket
    reader: FrameReader
    writer: FrameWriter
    shared: Shared
    outputs: Outputs
    #: Bytes of memory that the process had at birth, from its parent.
    inherited: int = 0
    #: In the order in which the worker gets them; it runs the first, or is about to.
    chunks: deque[Chunk] = field(default_factory=deque)
    #: Functions that it was told of.
    known: set[str] = field(default_factory=set)
    sent: int = 0
    #: Monotonic time at which it was given tasks last.
    given: float = 0.0
    alive: bool = True
    #: Most resident bytes that it had; known when it has ended.
    peak: int = 0
    #: The worker said that it is up.
    ready: bool = False
    #: It finished a task.
    worked: bool = False
    #: No further chunk: it is being ended, or its socket cannot be trusted.
    doom: Doom | None = None
    broken: bool = False
    #: `STOP` was set for all its chunks, and it has not answered for them all.
    stopping: bool = False
    #: What it has is cancelled, but for what it finishes before it can be told.
    cancelled: bool = False
    #: At the last look: the task, when it began (0: none), the chunk.
    seen: tuple[int, int, int] = (-1, 0, 0)
    #: At the last look it was in the same task as at the look before.
    steady: bool = False
    #: The directory of files that it told of last.
    left: str = ""
    #: SIGKILL was sent by the runner itself, and the monotonic time when it first was.
    killed: bool = False
    killed_at: float = 0.0

    def send(self, work: Work) -> None:
        """Give the worker tasks."""
        self.sent += 1
        self.given = time.monotonic()
        block = work.block
        self.chunks.append(Chunk(self.sent, work, block.first, work.end))
        head = {"chunk": self.sent, "function": work.function, "attempt": work.attempt}
        self.writer.push(Kind.chunk, head, *block.start(), block.payload)

    def current(self) -> Chunk | None:
        """The chunk that the worker is in, or will begin next, as far as its reports tell."""
        return next((chunk for chunk in self.chunks if chunk.next < chunk.end), None)

    def stop(self) -> None:
        """Have the worker start no further task of what it was given."""
        self.shared.words[STOP] = self.sent
        self.stopping = True

    def look(self) -> None:
        """See what the worker does now, and whether it did the same at the last look."""
        task, begun = self.shared.running()
        seen = task, begun, self.shared.words[CHUNK]
        self.steady = bool(begun) and seen == self.seen
        self.seen = seen

    def running(self, chunk: Chunk) -> bool:
        """Whether, at the last two looks, a task of `chunk` was running; it is `seen[0]`."""
        return self.steady and self.seen[2] == chunk.number

    def still(self) -> bool:
        """Whether the worker is in the very task that the last look saw."""
        return (*self.shared.running(), self.shared.words[CHUNK]) == self.seen

    @property
    def at_hand(self) -> int:
        """Tasks that it was given and whose outcomes it has not sent."""
        return sum(chunk.end - chunk.next for chunk in self.chunks)

    @property
    def alone(self) -> bool:
        """Whether nothing waits behind the task that it is in."""
        return len(self.chunks) == 1 and self.chunks[0].end - self.chunks[0].next <= 1

    @property
    def free(self) -> bool:
        """Whether tasks may be given to it."""
        return self.doom is None and not self.broken and not self.stopping

    def signal(self, number: int) -> None:
        """Signal the worker and what it started, as far as that stayed in its process group."""
        if number == signal.SIGKILL and not self.killed:
            self.killed, self.killed_at = True, time.monotonic()
        if self.pid <= 0:
            # It is not there yet; if it was killed, it is at its birth.
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # Right after the fork the group does not exist yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        """Let go of everything; the process has ended."""
        self.channel.close()
        self.outputs.close()


@dataclass(frozen=True, slots=True)
class Ends:
    """What a worker process has of what it shares with the runner."""

    channel: socket.socket
    shared: Shared
    #: Files for its output.
    out: int
    err: int


def spawn(config: RunnerConfig, place: Place, limits: tuple[int, int]) -> Slot:
    """Fork a worker. `limits` are the descriptor limits that user code is to have."""
    ours, theirs = socket.socketpair()
    shared = Shared()
    outputs = Outputs(place.directory, place.serial, config.output_cap)
    runner = os.getpid()
    pid = os.fork()
    if pid == 0:
        out, err = (stream.fd for stream in outputs.streams)
        become_worker(config, place, Ends(theirs, shared, out, err), runner, limits)
    theirs.close()
    return make_slot(place, pid, ours, (shared, outputs), anonymous(runner))


def make_slot(place: Place, pid: int, channel: socket.socket, memory: tuple[Shared, Outputs], inherited: int) -> Slot:
    """The runner's side of a worker; `channel` is its own end, `inherited` as in `Slot`."""
    channel.setblocking(False)
    reader, writer = FrameReader(channel, REPLY_MAX), FrameWriter(channel)
    return Slot(place, pid, channel, reader, writer, *memory, inherited)


def become_worker(
    config: RunnerConfig, place: Place, ends: Ends, runner: int, limits: tuple[int, int], *, close_others: bool = True
) -> NoReturn:
    """In a child of the runner's: cut all other ties to it, then work. Never returns."""
    try:
        keep = {ends.channel.fileno(), ends.out, ends.err} if close_others else None
        settle_child(runner, limits, keep, config.niceness, _OOM_SCORE)
        # Whatever a task starts stays below this process, to be ended with the task; else with the worker.
        system.adopt_orphans()
        guard = Guard(place, ends.out, ends.err, ends.shared.done)
        fd = raise_and_close(ends.channel.detach())
        Worker(socket.socket(fileno=fd), ends.shared, place, guard, config.app_path).serve()
    except BaseException:  # noqa: BLE001  nothing may get past here into the runner's own loop
        import traceback

        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(RETIRED)


def settle_child(runner: int, limits: tuple[int, int], keep: set[int] | None, niceness: int, oom_score: bytes) -> None:
    """What every process that runs user code begins with; of the descriptors 0-2 and `keep` stay; None: all."""
    os.setsid()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    reset_signals()
    system.die_with(runner)
    if keep is not None:
        _close_others(keep)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    # A crash with hundreds of gigabytes in memory must not write them to disk first.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _volunteer(oom_score)


def _close_others(keep: set[int]) -> None:
    for name in os.listdir("/dev/fd"):
        fd = int(name)
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)


def _volunteer(score: bytes) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(score)
