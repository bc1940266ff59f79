"""The runner's one loop: frames from the agent and from workers, deaths, and the clock. It never waits for anyone."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import Any

from vmrun.core.blocks import Status, TaskBlock, failure

from . import failures, frames, system
from .chunks import Work
from .dispatch import TICK, Dispatch
from .frames import FrameError, FrameReader, FrameWriter, Kind
from .guard import Place
from .outcomes import LOSSES_MAX, Death, Outcomes, verdict
from .processes import MemoryWatch, children, descendants, end_descendants, kill
from .slots import RunnerConfig, Slot, spawn
from .template import Template
from .warden import Warden

#: Bytes for the agent above which workers are not read from, and below which they are again.
CONGESTED, RELIEVED = 16 * 1024 * 1024, 4 * 1024 * 1024
#: Bytes read from one socket before the others get their turn.
_BUDGET = 4 * 1024 * 1024
#: Workers in a row that may end before they are up; and when somebody kills them, which need not go on for ever.
STARTS_MAX, STARTS_KILLED_MAX = 3, 20
#: Seconds between reports of the load, and between attempts to fork after a failure.
_LOAD_EVERY, _FORK_AGAIN = 0.5, 0.5
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
        self._dispatch = Dispatch(config, self._outcomes, self._hire)
        self._slots: dict[int, Slot] = {}
        self._serial = 0
        self._selector = selectors.DefaultSelector()
        self._masks: dict[socket.socket, int] = {}
        self._watch(channel, selectors.EVENT_READ, None)
        self._limits = _raise_limits()
        self._ending = False
        self._congested = False
        self._starts_failed = 0
        self._fork_after = 0.0
        self._looked = time.monotonic()
        self._load: tuple[int, ...] = (0, 0, 0, 0)
        self._load_sent = (self._looked, self._load)
        self._memory = MemoryWatch()
        self._warden = Warden(config)
        #: Workers that were killed, and wait in the kernel.
        self._stuck: set[int] = set()
        self._fatal = ""
        #: Holds the shared object; None for a job without one, and when workers load it themselves.
        self._template: Template | None = None
        self._templates_lost = 0
        #: Why no task can be started.
        self._refusal: tuple[Status, bytes] | None = None

    def run(self) -> int:
        """Serve until the agent stops it, or is gone; the exit code."""
        wakeup = self._listen_to_signals()
        if self._config.shared:
            self._make_template()
        elif self._hire() is None:
            self._fatal = self._fatal or "cannot fork"
        while not self._ending and not self._fatal:
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is wakeup:
                    _drain(wakeup)
                elif key.fileobj is self._channel:
                    self._from_agent()
                elif self._template is not None and key.fileobj is self._template.channel:
                    self._from_template(self._template)
                elif key.data is not None:
                    self._from_worker(key.data)
            self._reap()
            self._tick()
            self._refuse()
            self._dispatch.fill(list(self._slots.values()))
            self._send()
        return self._end()

    # --- the agent ---

    def _from_agent(self) -> None:
        try:
            received = self._reader.read(_BUDGET)
        except FrameError as error:
            self._fatal = f"the agent sent what is not a frame: {error}"
            return
        for frame in received:
            if frame.kind is Kind.define:
                self._dispatch.define(frame)
            elif frame.kind is Kind.tasks:
                self._outcomes.queue.add(Work(frame.head["function"], TaskBlock.decode(frame.body)))
            elif frame.kind is Kind.cancel:
                self._dispatch.cancel(self._slots.values())
            elif frame.kind is Kind.stop:
                self._ending = True
        self._ending = self._ending or self._reader.closed

    def _send(self) -> None:
        """Get rid of what is to be sent, and listen to those who may now send."""
        self._outcomes.flush_output()
        try:
            self._writer.flush()
        except OSError:
            self._ending = True
        self._congested = self._writer.pending > (RELIEVED if self._congested else CONGESTED)
        wanted = selectors.EVENT_WRITE if self._writer.pending else 0
        self._watch(self._channel, selectors.EVENT_READ | wanted, None)
        for slot in self._slots.values():
            with contextlib.suppress(OSError):  # its death is about to be noticed
                slot.writer.flush()
            wanted = selectors.EVENT_WRITE if slot.writer.pending else 0
            if not self._congested:
                wanted |= selectors.EVENT_READ
            self._watch(slot.channel, 0 if slot.reader.closed or slot.broken else wanted, slot)

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
        self._masks[channel] = events

    # --- workers ---

    def _hire(self) -> Slot | None:
        """One more worker, unless there are enough, or it cannot be had now."""
        if len(self._slots) >= self._config.workers or self._fatal or time.monotonic() < self._fork_after:
            return None
        template = self._template
        if template is not None and not template.ready:
            return None
        taken = {slot.place.slot for slot in self._slots.values()}
        number = next(at for at in range(self._config.workers) if at not in taken)
        place = self._place(number)
        try:
            slot = spawn(self._config, place, self._limits) if template is None else template.spawn(place)
        except OSError as error:
            self._start_failed(f"cannot make a worker process: {error}")
            return None
        if slot is None:
            return None
        self._slots[slot.pid] = slot
        return slot

    def _place(self, number: int) -> Place:
        """Where the next process works, as worker `number`."""
        self._serial += 1
        config = self._config
        return Place(
            job=config.job,
            slot=number,
            serial=self._serial,
            directory=config.directory,
            code_path=config.code_path,
            threads=config.threads or max(1, len(os.sched_getaffinity(0)) // config.workers),
            threads_asked=config.threads_asked,
            fresh=config.fresh,
        )

    def _start_failed(self, reason: str, limit: int = STARTS_MAX) -> None:
        self._fork_after = time.monotonic() + _FORK_AGAIN
        self._starts_failed += 1
        if self._starts_failed >= limit and not any(slot.ready for slot in self._slots.values()):
            self._fatal = f"workers do not start: {reason}"

    def _from_worker(self, slot: Slot) -> None:
        if slot.pid <= 0 and self._template is not None:
            self._from_template(self._template)
        if slot.alive:
            self._handle(slot, _BUDGET)

    def _handle(self, slot: Slot, budget: int) -> None:
        try:
            for frame in slot.reader.read(budget):
                if frame.kind is Kind.hello:
                    slot.ready = True
                    self._starts_failed = 0
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
            template = self._template
            if template is not None and info.si_pid not in self._slots:
                # Perhaps a worker, of which the template has said so meanwhile.
                self._from_template(template)
            slot = self._slots.get(info.si_pid)
            if slot is not None:
                # While the worker is not reaped, nobody else can have its process group's number.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(slot.pid, signal.SIGKILL)
            _, status, usage = os.wait4(info.si_pid, 0)
            if slot is not None:
                self._died(slot, status, usage)
            elif template is not None and info.si_pid == template.pid and template is self._template:
                self._template_died(
                    template, Death(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, self._memory.account())
                )
            self._stuck.discard(info.si_pid)
            orphans = True
        if orphans:
            self._end_orphans()

    def _end_orphans(self) -> None:
        """End what is left of workers that ended: it is below this process now.

        What workers start is below them, as long as they live.
        """
        below = children(os.getpid())
        spared = set()
        if self._template is not None:
            # Who is here now was born; the template has said so before.
            self._from_template(self._template)
            spared = {self._template.pid} if self._template is not None else set()
        for child in below:
            if child not in self._slots and child not in spared:
                kill((child, *descendants(child)))

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
        largest = peak >= self._warden.largest(slot for slot in self._slots.values() if slot.pid > 0) * _SOME
        starved = code == -signal.SIGKILL and not slot.killed and largest and self._memory.account()
        self._outcomes.died(slot, Death(code, peak, starved))
        self._let_go(slot)
        if not slot.ready and not self._ending and slot.doom is None:
            last = slot.outputs.streams[1].last(1, 2000).decode(errors="replace")
            limit = STARTS_KILLED_MAX if code == -signal.SIGKILL else STARTS_MAX
            self._start_failed(f"exit status {code}. {last}", limit)
        slot.close()

    def _abandon(self, now: float) -> None:
        """Do without workers that cannot be killed; others take their places."""
        for slot in list(self._slots.values()):
            if slot.killed and slot.pid > 0 and now - slot.killed_at > self._config.abandon_after:
                self._outcomes.abandoned(slot)
                self._stuck.add(slot.pid)
                del self._slots[slot.pid]
                self._let_go(slot)
                slot.close()

    def _let_go(self, slot: Slot) -> None:
        self._warden.forget(slot.pid)
        self._watch(slot.channel, 0, None)
        self._masks.pop(slot.channel, None)

    # --- the template ---

    def _refuse(self) -> None:
        """Fail all tasks that wait, if none can be started."""
        if self._refusal is not None:
            for work in self._outcomes.queue.take_all():
                self._outcomes.refused(work, *self._refusal)

    def _make_template(self) -> None:
        try:
            self._template = Template(self._config, self._place(-1), self._limits)
        except OSError as error:
            self._fatal = f"cannot make a process for the shared data: {error}"
        else:
            self._watch(self._template.channel, selectors.EVENT_READ, None)

    def _from_template(self, template: Template) -> None:
        news = template.news()
        for slot in news.born:
            del self._slots[-slot.place.serial]
            self._slots[slot.pid] = slot
            if slot.killed:
                slot.signal(signal.SIGKILL)
        for slot, reason in news.unborn:
            self._bury_unborn(slot)
            self._start_failed(reason)
        if news.threads:
            sys.stderr.write(f"loading the shared data left {news.threads} threads: each worker loads it for itself\n")
            self._drop_template(template)
        elif news.failure is not None:
            self._refusal = news.failure
        elif news.broken:
            message = "what loading the shared data left running wrote to vmrun's own descriptors"
            self._refusal = Status.lost, failure(Status.lost, message)
            template.kill()

    def _template_died(self, template: Template, death: Death) -> None:
        """It is tried again where nobody knows that the load is to blame, and not for ever."""
        was_ready, last = template.ready, template.last_words()
        self._drop_template(template)
        if self._ending or self._refusal is not None:
            return
        self._templates_lost += 1
        lost = was_ready or (death.code == -signal.SIGKILL and not death.out_of_memory)
        if lost and self._templates_lost <= LOSSES_MAX:
            self._make_template()
            return
        status, document = verdict(death, last)
        self._refusal = status, failures.prefixed(document, "the process that loads the shared data: ")

    def _drop_template(self, template: Template) -> None:
        self._watch(template.channel, 0, None)
        self._masks.pop(template.channel, None)
        self._template = None
        for slot in template.close():
            self._bury_unborn(slot)

    def _bury_unborn(self, slot: Slot) -> None:
        """A worker that will never come: what it was given waits for another."""
        slot.alive = False
        self._outcomes.unborn(slot)
        del self._slots[slot.pid]
        self._let_go(slot)
        slot.close()

    # --- time ---

    def _busy(self) -> bool:
        return any(slot.chunks for slot in self._slots.values())

    def _patience(self) -> float | None:
        """Seconds until something is due though nothing happens."""
        if self._busy():
            return max(0.0, self._looked + TICK - time.monotonic())
        if self._outcomes.queue.tasks or self._load_sent[1] != self._load:
            return _LOAD_EVERY
        return None

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._looked >= TICK:
            self._looked = now
            self._memory.look()
            self._abandon(now)
            slots = list(self._slots.values())
            self._warden.look([slot for slot in slots if slot.pid > 0])
            self._dispatch.watch(slots, room=len(slots) < self._config.workers, follow=not self._congested)
        running = sum(1 for slot in self._slots.values() if slot.chunks)
        self._load = (running, self._outcomes.queue.tasks, self._outcomes.done, len(self._stuck))
        sent, before = self._load_sent
        if self._load != before and now - sent >= _LOAD_EVERY:
            self._load_sent = (now, self._load)
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
