"""The runner's one loop: frames from the agent and from workers, deaths, and the clock. It never waits for anyone."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import Any

from vmrun.core.blocks import TaskBlock

from . import frames, system
from .batching import Batching
from .chunks import Work
from .dispatch import Dispatch
from .frames import FrameError, FrameReader, FrameWriter, Kind
from .hiring import Hiring
from .outcomes import Outcomes
from .processes import MemoryWatch, end_descendants
from .slots import RunnerConfig, Slot
from .verdicts import Death
from .warden import SOON, Warden

#: Bytes for the agent above which workers are not read from, and below which they are again.
CONGESTED, RELIEVED = 16 * 1024 * 1024, 4 * 1024 * 1024
#: Bytes read from one socket before the others get their turn.
_BUDGET = 4 * 1024 * 1024
#: Seconds between reports of the load, and between looks at whether tasks that wait can be started.
_LOAD_EVERY = 0.5
#: Seconds from a change of the load to the report of it, at least: what comes and goes at once is none.
_LOAD_SETTLES = 0.1
#: What the others may have grown to since the largest of all was killed, as a part of it.
_SOME = 0.5
#: Seconds to get the last words to the agent.
_LAST_WORDS = 2.0


class Runner:
    """Everything that the runner process does after it was configured."""

    def __init__(self, config: RunnerConfig, channel: socket.socket) -> None:
        self._config = config
        channel.setblocking(False)
        self._channel = channel
        self._reader, self._writer = FrameReader(channel), FrameWriter(channel)
        self._outcomes = Outcomes(config, self._writer)
        self._selector = selectors.DefaultSelector()
        self._masks: dict[socket.socket, int] = {}
        self._watch(channel, selectors.EVENT_READ, None)
        self._hiring = Hiring(config, self._outcomes, self._watch, _raise_limits())
        self._slots = self._hiring.slots
        self._dispatch = Dispatch(config, self._outcomes, self._hiring.hire)
        self._ending = False
        self._congested = False
        #: Workers that spoke in this turn, or can take more bytes; and whether all are to be seen to, not only those.
        self._heard: list[Slot] = []
        self._everyone = True
        self._batching = Batching()
        #: Monotonic times of the next look at anything and at what each worker does, should one be at work by then.
        self._look_at = self._watch_at = time.monotonic()
        self._load: tuple[int, ...] = (0, 0, 0, 0)
        #: What the agent was told and when, and when it is to be told of a change, in monotonic time.
        self._load_sent, self._load_due = (self._look_at, self._load), math.inf
        self._memory = MemoryWatch()
        self._warden = Warden(config)
        #: Workers that were killed, and wait in the kernel.
        self._stuck: set[int] = set()
        self._foreign = ""

    def run(self) -> int:
        """Serve until the agent stops it, or is gone; the exit code."""
        wakeup = self._listen_to_signals()
        self._hiring.begin()
        while not self._ending and not self._fatal:
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is wakeup:
                    _drain(wakeup)
                elif key.fileobj is self._channel:
                    self._from_agent()
                elif key.data is None:
                    self._hiring.listen()
                    self._everyone = True
                else:
                    self._from_worker(key.data)
            self._reap()
            self._tick()
            self._hiring.refuse()
            given = self._dispatch.fill(self._slots.values(), None if self._everyone else self._heard)
            self._report_load()
            self._send(given)
        return self._end()

    @property
    def _fatal(self) -> str:
        return self._foreign or self._hiring.fatal

    # --- the agent ---

    def _from_agent(self) -> None:
        try:
            received = list(self._reader.read(_BUDGET))
        except FrameError as error:
            self._foreign = f"the agent sent what is not a frame: {error}"
            return
        for frame in received:
            if frame.kind is Kind.define:
                self._dispatch.define(frame)
            elif frame.kind is Kind.tasks:
                self._outcomes.queue.add(Work(frame.head["function"], TaskBlock.decode(frame.body)))
            elif frame.kind is Kind.cancel:
                self._dispatch.cancel(self._slots.values())
                self._look_at = self._watch_at = time.monotonic()
            elif frame.kind is Kind.stop:
                self._ending = True
        self._ending = self._ending or self._reader.closed

    def _send(self, given: list[Slot]) -> None:
        """Get rid of what is to be sent, and listen to those who may now send."""
        self._outcomes.flush_output()
        # There may be many workers, and each turn of the loop is mostly about one or two of them.
        slots = list(self._slots.values()) if self._everyone else self._heard + given
        # Workers first: whoever is woken takes a core, and on these there is work to do.
        for slot in slots:
            if slot.writer.pending:
                with contextlib.suppress(OSError):  # its death is about to be noticed
                    slot.writer.flush()
        # With nobody at work nothing else may come for long.
        hold = self._outcomes.hold if self._busy() else 0.0
        if not self._batching.holds(self._writer.pending, hold, time.monotonic()):
            try:
                self._writer.flush()
            except OSError:
                self._ending = True
        congested = self._writer.pending > (RELIEVED if self._congested else CONGESTED)
        if congested != self._congested:
            self._congested, slots = congested, list(self._slots.values())
        wanted = selectors.EVENT_WRITE if self._writer.pending and not self._batching.waits else 0
        self._watch(self._channel, selectors.EVENT_READ | wanted, None)
        reading = 0 if self._congested else selectors.EVENT_READ
        for slot in slots:
            wanted = reading | selectors.EVENT_WRITE if slot.writer.pending else reading
            self._watch(slot.channel, 0 if slot.reader.closed or slot.broken else wanted, slot)
        self._heard.clear()
        self._everyone = False

    def _watch(self, channel: socket.socket, events: int, slot: Slot | None) -> None:
        before = self._masks.get(channel, 0)
        if events == before:
            return
        if not before:
            self._selector.register(channel, events, slot)
        elif not events:
            self._selector.unregister(channel)
        else:
            self._selector.modify(channel, events, slot)
        if events:
            self._masks[channel] = events
        else:
            self._masks.pop(channel, None)

    # --- workers ---

    def _from_worker(self, slot: Slot) -> None:
        if slot.pid <= 0:
            self._hiring.listen()
            self._everyone = True
        if slot.alive:
            self._heard.append(slot)
            self._handle(slot, _BUDGET)

    def _handle(self, slot: Slot, budget: int) -> None:
        try:
            for frame in slot.reader.read(budget):
                if frame.kind is Kind.hello:
                    self._hiring.up(slot)
                elif frame.kind is Kind.results:
                    self._outcomes.results(slot, frame)
                elif frame.kind is Kind.large:
                    self._outcomes.large(slot, frame)
                elif frame.kind is Kind.files:
                    self._outcomes.files(slot, frame)
        except (FrameError, ValueError, LookupError, TypeError):
            # User code wrote into the socket; whatever else comes from there is not to be believed.
            sys.stderr.write(traceback.format_exc())
            slot.broken = True
            slot.signal(signal.SIGKILL)

    def _reap(self) -> None:
        """Settle the processes that ended: workers, and orphans that came to this process."""
        orphans = False
        while (info := self._ended()) is not None:
            self._everyone = True
            if info.si_pid not in self._slots:
                # Perhaps a worker, of which the template has said so meanwhile.
                self._hiring.listen()
            slot = self._slots.get(info.si_pid)
            if slot is not None:
                # While the worker is not reaped, nobody else can have its process group's number.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(slot.pid, signal.SIGKILL)
            _, status, usage = os.wait4(info.si_pid, 0)
            if slot is not None:
                self._died(slot, status, usage)
            elif self._hiring.is_template(info.si_pid):
                death = Death(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, self._memory.account())
                self._hiring.template_ended(death, ending=self._ending)
            self._stuck.discard(info.si_pid)
            orphans = True
        if orphans:
            self._hiring.end_orphans()

    @staticmethod
    def _ended() -> Any:
        """A child that ended and is not reaped, or None."""
        try:
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None

    def _died(self, slot: Slot, status: int, usage: Any) -> None:
        if not slot.broken:
            self._handle(slot, sys.maxsize)
        code = os.waitstatus_to_exitcode(status)
        del self._slots[slot.pid]
        peak = usage.ru_maxrss * 1024
        # The kernel ends whoever has most; who was small was ended by somebody else.
        largest = peak >= self._warden.largest(self._hiring.live) * _SOME
        starved = code == -signal.SIGKILL and not slot.killed and largest and self._memory.account()
        self._outcomes.died(slot, Death(code, peak, starved))
        self._let_go(slot)
        if not slot.ready and not self._ending and slot.doom is None:
            last = slot.outputs.streams[1].last(1, 2000).decode(errors="replace")
            self._hiring.failed(f"exit status {code}. {last}", killed=code == -signal.SIGKILL)
        slot.close()

    def _abandon(self, now: float) -> None:
        """Do without workers that cannot be killed; others take their places."""
        for slot in self._hiring.live:
            if slot.killed and now - slot.killed_at > self._config.abandon_after:
                self._outcomes.abandoned(slot)
                self._stuck.add(slot.pid)
                del self._slots[slot.pid]
                self._let_go(slot)
                slot.close()

    def _let_go(self, slot: Slot) -> None:
        self._warden.forget(slot.pid)
        self._watch(slot.channel, 0, None)

    # --- time ---

    def _busy(self) -> bool:
        return any(slot.chunks for slot in self._slots.values())

    def _patience(self) -> float | None:
        """Seconds until something is due though nothing happens."""
        if self._busy():
            return max(0.0, min(self._look_at, self._batching.due) - time.monotonic())
        if self._outcomes.queue.tasks or self._load_sent[1] != self._load:
            return _LOAD_EVERY
        return None

    def _tick(self) -> None:
        now = time.monotonic()
        if not self._busy():
            # There is nothing to see. When work comes, it is to be handed out before anyone looks.
            self._look_at = max(self._look_at, now + SOON)
        elif now >= self._look_at:
            self._look(now)

    def _look(self, now: float) -> None:
        self._everyone = True
        self._memory.look()
        self._abandon(now)
        self._warden.look(self._hiring.live)
        if now >= self._watch_at:
            slots = list(self._slots.values())
            self._dispatch.watch(slots, room=len(slots) < self._config.workers, follow=not self._congested)
            self._watch_at = now + self._dispatch.pace(slots)
        self._look_at = min(self._watch_at, max(now + SOON, self._warden.due()))

    def _report_load(self) -> None:
        now = time.monotonic()
        if now < self._load_due < math.inf:
            return
        running = sum(1 for slot in self._slots.values() if slot.chunks)
        self._load = (running, self._outcomes.queue.tasks, self._outcomes.done, len(self._stuck))
        sent, before = self._load_sent
        if self._load == before:
            self._load_due = math.inf
        elif self._load_due == math.inf:
            # Not at once: the agent would be woken, and take a core, while the first chunks go out.
            self._load_due = max(now + _LOAD_SETTLES, sent + _LOAD_EVERY)
        elif now >= self._load_due:
            self._load_sent, self._load_due = (now, self._load), math.inf
            self._writer.push(Kind.load, dict(zip(("running", "queued", "done", "stuck"), self._load, strict=True)))

    # --- the end ---

    def _listen_to_signals(self) -> socket.socket:
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wakeup = theirs
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._watch(ours, selectors.EVENT_READ, None)
        return ours

    def _on_term(self, _number: int, _frame: Any) -> None:
        self._ending = True

    def _end(self) -> int:
        """Kill everything; tell the agent why, if it is not by its own wish."""
        self._ending = True
        for slot in self._slots.values():
            slot.signal(signal.SIGKILL)
        end_descendants()
        if self._fatal:
            self._channel.settimeout(_LAST_WORDS)
            with contextlib.suppress(OSError):
                self._writer.flush()
                frames.send(self._channel, Kind.fatal, {"reason": self._fatal})
            return 1
        return 0


def _drain(channel: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while channel.recv(4096):
            pass


def _raise_limits() -> tuple[int, int]:
    """Let this process have as many descriptors as it may; what it had before, for the workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


def main(arguments: list[str]) -> int:
    """Serve the agent at the other end of the socket whose descriptor is the only argument; the exit code."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    try:
        first = frames.receive(channel)
    except (EOFError, OSError):
        return 0
    # User code has no use for what this process was called with.
    sys.argv[:] = [""]
    system.adopt_orphans()
    runner = Runner(RunnerConfig(**first.head), channel)
    gc.collect()
    # What is here already is not walked through, and so not copied, in each worker.
    gc.freeze()
    return runner.run()
