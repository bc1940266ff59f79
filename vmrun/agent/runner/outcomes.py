"""From what workers report, and from how they die, to one outcome per task, or another attempt.

A worker's death is blamed on the task that it was running and on no other: what it had finished is read from the
memory that it shared, what it had not started waits for another worker.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from vmrun.core.blocks import ResultBlock, Status, failure

from .batching import hold_of
from .chunks import Sizer, Work, WorkQueue
from .frames import Buffer, Frame, FrameWriter, Kind
from .guard import files_of, move_files
from .reports import cold
from .shared import BASE, BEGUN, CHUNK, MOVE, Shared
from .slots import Chunk, RunnerConfig, Slot
from .verdicts import CANCELLED, LOSSES_MAX, Death, alike, doomed, unreadable, verdict
from .worker import RETIRED

#: Bytes of output that travel together.
OUTPUT_BATCH = 1024 * 1024
#: Tasks in one block of failures that need no telling apart.
_SAME_MAX = 4096


class Outcomes:
    """Turns reports into outcomes for the agent and into work for the queue."""

    def __init__(self, config: RunnerConfig, agent: FrameWriter) -> None:
        self._config = config
        self._agent = agent
        self.queue = WorkQueue()
        self.sizers: defaultdict[str, Sizer] = defaultdict(Sizer)
        #: Tasks whose outcome was passed on.
        self.done = 0
        #: Seconds for which the last outcome may wait for the next ones, if there are to be any.
        self.hold = 0.0
        self._output: list[Buffer] = []
        self._output_size = 0

    # --- what workers send ---

    def results(self, slot: Slot, frame: Frame) -> None:
        """A worker's finished tasks, and at the end of a chunk those that it did not start."""
        head = frame.head
        chunk = self._chunk(slot, head["chunk"])
        if chunk is None:
            return
        size = head["moves"]
        self._pass_output(slot, chunk, frame.body[:size])
        first, count = head["first"], head["count"]
        work = chunk.work
        if count:
            slot.worked = True
            self.sizers[work.function].learn(count, head["seconds"])
            self.hold = hold_of(head["seconds"] / count)
        final = work.attempt - work.losses >= self._config.retries or not head["failed"]
        if slot.doom is None and final and first == chunk.next and first + count <= chunk.end:
            if count:
                self._report(work, first, count, frame.body[size:])
            chunk.next += count
        elif count:
            self._accept(slot, chunk, ResultBlock.decode(frame.body[size:]))
        if head["final"]:
            slot.chunks.remove(chunk)
            self._left(slot, chunk.rest(chunk.next))
            self._answered(slot)

    def large(self, slot: Slot, frame: Frame) -> None:
        """A result that went into a file."""
        head = frame.head
        chunk = self._chunk(slot, head["chunk"])
        task = head["task"]
        if chunk is None or task != chunk.next or task >= chunk.end or (slot.doom and slot.doom.task == task):
            with contextlib.suppress(OSError):
                os.unlink(head["path"])
            if chunk is not None and task == chunk.next < chunk.end:
                self._doomed(slot, chunk, task)
            return
        slot.worked = True
        chunk.next += 1
        self.done += 1
        self.flush_output()
        self._agent.push(Kind.large, {**_where(head), "freed": chunk.work.size(task, 1)})

    def files(self, slot: Slot, frame: Frame) -> None:
        """Files that a task left."""
        slot.left = frame.head["path"]
        self._agent.push(Kind.files, frame.head)

    def _chunk(self, slot: Slot, number: int) -> Chunk | None:
        return next((chunk for chunk in slot.chunks if chunk.number == number), None)

    def _answered(self, slot: Slot) -> None:
        if slot.chunks:
            return
        slot.stopping = slot.cancelled = False
        if slot.doom is not None:
            # It outlived the signal; what that did to it and to its children nobody knows.
            slot.signal(signal.SIGKILL)
        slot.outputs.empty()

    # --- what is read from a worker's memory ---

    def harvest(self, slot: Slot) -> None:
        """Take what a worker finished before the long task that it is in, or that it died in."""
        shared = slot.shared
        chunk = self._chunk(slot, shared.words[CHUNK])
        if chunk is None or shared.running()[0] <= chunk.next or shared.words[BASE] > chunk.next:
            return  # nothing new, or what comes before it was sent and is not read yet
        block, moves = _copy(shared), shared.moved()
        if slot.alive and not slot.still():
            return
        block.facts = _facts(slot, chunk)
        self._pass_output(slot, chunk, memoryview(moves))
        if not slot.alive and not shared.words[BEGUN]:
            # It ended right after a task; what it wrote in the end is that task's.
            self._last_works(slot, block.first + block.count - 1, chunk.work.attempt)
        self._accept(slot, chunk, block)

    def take_back(self, slot: Slot) -> None:
        """Queue again what waits behind the task that a stopped worker is known to be in."""
        task, _, number = slot.seen
        for chunk in reversed(slot.chunks):
            first = task + 1 if chunk.number == number else chunk.next
            if first < chunk.end:
                self._left(slot, chunk.rest(first))
                chunk.end = first

    def _left(self, slot: Slot, work: Work) -> None:
        """Tasks that a worker was given and did not start."""
        if slot.cancelled:
            self.cancelled(work)
        else:
            self.queue.add_first(work)

    def follow(self, slot: Slot, *, listen: bool) -> None:
        """Pass on what the task that a worker has been in for some time has written, if anybody can `listen`."""
        chunk = self._chunk(slot, slot.seen[2])
        if chunk is not None and slot.seen[0] == chunk.next:
            slot.outputs.follow((chunk.next, chunk.work.attempt), slot.still, self._sink if listen else None)
            self.flush_output()

    # --- outcomes ---

    def _accept(self, slot: Slot, chunk: Chunk, block: ResultBlock) -> None:
        """Pass on outcomes that are new; those that do not count become another attempt, or what the doom says."""
        low = max(chunk.next, block.first)
        high = min(chunk.end, block.first + block.count)
        work = chunk.work
        again = not slot.cancelled and work.attempt - work.losses < self._config.retries
        start = low
        for task in range(low, high):
            doomed = slot.doom is not None and slot.doom.task == task
            if not doomed and not (again and block.status[task - block.first]):
                continue
            self._report_part(work, block, start, task)
            start = task + 1
            if doomed:
                chunk.next = task
                self._doomed(slot, chunk, task)
            else:
                self._again(work, task)
        self._report_part(work, block, start, high)
        chunk.next = max(chunk.next, high)

    def _doomed(self, slot: Slot, chunk: Chunk, task: int) -> None:
        assert slot.doom is not None
        self._failed(slot, chunk, task, doomed(slot.doom, self._config.task_timeout))
        chunk.next = task + 1

    def _failed(self, slot: Slot, chunk: Chunk, task: int, outcome: tuple[Status, bytes]) -> None:
        """A task did not return: another attempt, or that is its outcome."""
        status, document = outcome
        work = chunk.work
        if not slot.cancelled and work.attempt - work.losses < self._config.retries:
            self._again(work, task)
            return
        block = alike(task, 1, status, document, _facts(slot, chunk))
        block.started[0], block.seconds[0] = _times(slot, chunk, task)
        self._report(work, task, 1, block.encode())

    def _again(self, work: Work, task: int, *, lost: bool = False) -> None:
        """Queue one task for another attempt, without keeping its neighbours' arguments."""
        block = work.block.slice(task, 1)
        numbers = None if block.numbers is None else array("q", block.numbers)
        alone = replace(block, payload=bytes(block.payload), numbers=numbers)
        self.queue.add(Work(work.function, alone, work.attempt + 1, work.losses + lost))

    def _report_part(self, work: Work, block: ResultBlock, first: int, end: int) -> None:
        if first < end:
            self._report(work, first, end - first, block.slice(first, end - first).encode())

    def _report(self, work: Work, first: int, count: int, data: Buffer) -> None:
        self.flush_output()
        self.done += count
        head = {"function": work.function, "freed": work.size(first, count)}
        self._agent.push(Kind.results, head, data)

    def cancelled(self, work: Work) -> None:
        """Tasks that will not be started."""
        self.refused(work, *doomed(CANCELLED, self._config.task_timeout))

    def refused(self, work: Work, status: Status, document: bytes) -> None:
        """Tasks that cannot be started, and why."""
        first = work.block.first
        while first < work.end:
            count = min(_SAME_MAX, work.end - first)
            block = alike(first, count, status, document, {"attempt": work.attempt})
            self._report(work, first, count, block.encode())
            first += count

    # --- deaths ---

    def died(self, slot: Slot, death: Death) -> None:
        """A worker ended; all that it had sent was handled before."""
        slot.alive, slot.peak = False, death.peak_bytes
        settled = slot.broken and self._unread(slot)
        self.harvest(slot)
        chunk = slot.current()
        if chunk is not None and not settled:
            words = slot.shared.words
            began = words[CHUNK] == chunk.number and words[BEGUN] != 0
            retired = slot.worked and death.code == RETIRED
            if slot.doom is not None or began or (slot.ready and chunk.next == chunk.first and not retired):
                self._bury(slot, chunk, death, began=began)
            # Otherwise it finished something and ended between two tasks: nobody's fault, and no endless loop.
        self._leave_all(slot)

    def abandoned(self, slot: Slot) -> None:
        """A worker that was killed does not end: its task is lost, what waits behind it is not."""
        self.harvest(slot)
        slot.alive = False
        chunk, words = slot.current(), slot.shared.words
        if chunk is not None and words[CHUNK] == chunk.number and words[BEGUN]:
            message = "its process was killed and does not end: it waits in the kernel, for a disk or a network drive"
            block = alike(chunk.next, 1, Status.lost, failure(Status.lost, message), _facts(slot, chunk))
            block.started[0], block.seconds[0] = _times(slot, chunk, chunk.next)
            self._report(chunk.work, chunk.next, 1, block.encode())
            chunk.next += 1
        self._leave_all(slot)

    def _leave_all(self, slot: Slot) -> None:
        for chunk in reversed(slot.chunks):
            self._left(slot, chunk.rest(chunk.next))
        slot.chunks.clear()
        self.flush_output()

    def unborn(self, slot: Slot) -> None:
        """A worker that never was: what it was given waits for another."""
        for chunk in reversed(slot.chunks):
            self._left(slot, chunk.rest(chunk.next))
        slot.chunks.clear()

    def _unread(self, slot: Slot) -> bool:
        """Settle the tasks whose outcomes a worker sent behind foreign bytes, unread; whether there are any.

        The task that wrote those bytes is one of the first chunk that has such tasks. Which one nobody can tell, so
        each of them runs again by itself, and it will be found. What came after them is innocent, and just runs again.
        """
        words = slot.shared.words
        for chunk in slot.chunks:
            if chunk.number > words[CHUNK]:
                break
            end = min(chunk.end, words[BASE]) if chunk.number == words[CHUNK] else chunk.end
            if end <= chunk.next:
                continue
            for task in range(chunk.next, end):
                if slot.doom is not None and slot.doom.task == task:
                    self._failed(slot, chunk, task, doomed(slot.doom, self._config.task_timeout))
                elif slot.cancelled:
                    self._failed(slot, chunk, task, doomed(CANCELLED, self._config.task_timeout))
                elif chunk.work.losses < LOSSES_MAX:
                    self._again(chunk.work, task, lost=True)
                else:
                    self._failed(slot, chunk, task, unreadable(""))
            chunk.next = end
            return True
        return False

    def _bury(self, slot: Slot, chunk: Chunk, death: Death, *, began: bool) -> None:
        """Settle the task that the worker died in, or that keeps it from starting."""
        work, task, doom = chunk.work, chunk.next, slot.doom
        last = self._last_works(slot, task, work.attempt)
        lost = not began or slot.broken or death.code == -signal.SIGKILL
        if doom is not None and doom.task == task:
            self._failed(slot, chunk, task, doomed(doom, self._config.task_timeout, last))
        elif slot.cancelled and lost:
            self._failed(slot, chunk, task, doomed(CANCELLED, self._config.task_timeout, last))
        elif doom is not None or (lost and work.losses < LOSSES_MAX):
            # With a doom: it had finished the task that it was killed for, just in time, and was in an innocent one.
            self._again(work, task, lost=True)
        elif slot.broken:
            self._failed(slot, chunk, task, unreadable(last))
        else:
            self._failed(slot, chunk, task, verdict(death, last, began=began, limit=self._config.memory))
        chunk.next = task + 1

    def _last_works(self, slot: Slot, task: int, attempt: int) -> str:
        """Pass on what a dead worker's last task wrote and left; the end of its stderr."""
        last = slot.outputs.finish((task, attempt), self._sink)
        path = move_files(slot.place, task, attempt)
        if not path and slot.left != (target := files_of(slot.place, task, attempt)) and os.path.isdir(target):
            # It had moved them itself, and did not get to say so.
            path = target
        if path:
            self._agent.push(Kind.files, {"task": task, "attempt": attempt, "path": path})
        return last

    # --- output ---

    def _sink(self, record: bytes, data: Buffer) -> None:
        self._output.append(record)
        self._output.append(data)
        self._output_size += len(data)
        if self._output_size > OUTPUT_BATCH:
            self.flush_output()

    def _pass_output(self, slot: Slot, chunk: Chunk, moves: memoryview) -> None:
        for task, *ends in _moves(moves):
            if task >= chunk.next:
                slot.outputs.pass_on((task, chunk.work.attempt), (ends[0], ends[1]), self._sink)

    def flush_output(self) -> None:
        """Send collected output; before the outcome of the task that wrote it."""
        if self._output:
            self._agent.push(Kind.output, {}, b"".join(self._output))
            self._output.clear()
            self._output_size = 0


def _where(head: dict[str, Any]) -> dict[str, Any]:
    return {name: head[name] for name in ("task", "path", "size")}


def _copy(shared: Shared) -> ResultBlock:
    block = shared.results()
    block.payload = bytes(block.payload)
    return block


def _moves(data: memoryview) -> Iterator[tuple[int, ...]]:
    numbers = data.cast("q") if len(data) else ()
    for at in range(0, len(numbers), MOVE):
        yield tuple(numbers[at : at + MOVE])


def _facts(slot: Slot, chunk: Chunk) -> dict[str, Any]:
    """What is known of tasks whose worker did not get to tell."""
    facts = {"worker": slot.place.slot, "pid": slot.pid, "attempt": chunk.work.attempt}
    return {**facts, **cold(chunk.number, chunk.first), **({"peak_bytes": slot.peak} if slot.peak else {})}


def _times(slot: Slot, chunk: Chunk, task: int) -> tuple[float, float]:
    """When the task began that a worker is or was in (seconds since the epoch), and the seconds since; 0 if unknown."""
    number, begun = slot.shared.running()
    if not begun or number != task or slot.shared.words[CHUNK] != chunk.number:
        return 0.0, 0.0
    seconds = (time.monotonic_ns() - begun) / 1e9
    return time.time() - seconds, seconds  # noqa: TID251  the runner has no one to hand it a clock
