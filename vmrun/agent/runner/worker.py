"""A worker: one forked process that calls the user's function, task by task.

It runs chunks that the runner sends, keeps outcomes in the shared memory and sends them every `FLUSH` seconds, or when
they are many bytes, or when the chunk ends. After each task the process is held against what the task did to it,
which takes some 3 µs. Functions whose tasks take microseconds, and were seen to leave the process alone, sprint: the
process is looked at once for up to `SPRINT_TASKS` tasks, or after the one that changed something.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NoReturn

from vmrun.core.blocks import Form, TaskBlock

from . import frames
from .byvalue import ByValue
from .frames import Kind
from .functions import JOB_MODULE, Call, Functions, as_it_is
from .guard import FILES_FASTEST, FORK_FASTEST, RESTLESS, SILENT, Guard, Place
from .home_core import HomeCore
from .keeper import LARGE, Keeper
from .meter import MEASURED, Meter
from .reports import Reports, Running
from .shared import BEGAN, BEGUN, DONE, EPOCH, PAYLOAD_FLUSH, SPRINT, STOP, Shared

#: Seconds after which outcomes are sent though the chunk goes on.
FLUSH = 0.4
#: Exit code of a worker that found its own state damaged, or used up, after a task; no task is blamed for it.
RETIRED = 120
#: Tasks of a sprint at most, and seconds after which it ends.
SPRINT_TASKS, SPRINT_TIME = 1024, 0.001
#: After so many tasks in a chunk of which all but a tenth took less than so many nanoseconds each, the next ones may
#: sprint; until sprints take longer so many times in a row. That much is allowed for being interrupted by others.
_TRIED, _QUICK, _STRIKES = 16, 20_000, 3
_SECOND = 1_000_000_000
#: What a sprint of them has in the column of forms.
_INTEGERS = bytes([Form.integer]) * SPRINT_TASKS


class Worker:
    """Everything that runs in a worker process."""

    def __init__(self, channel: socket.socket, shared: Shared, place: Place, guard: Guard, app_path: str) -> None:
        self._channel = channel
        self._home = HomeCore(channel.fileno(), place.core)
        self._shared = shared
        self._place = place
        self._guard = guard
        by_value = ByValue(place.code_path, place.job, JOB_MODULE)
        self._functions = Functions(place, app_path, by_value, guard.defaults)
        self._keeper = Keeper(shared, by_value, os.path.join(place.directory, "spool"), guard.unrest, self._leave)
        self._meter = Meter(shared, guard)
        self._reports = Reports(channel, shared, guard, self._keeper, self._meter, place.slot)
        #: Whether a function's tasks may sprint; not in here: too few were seen.
        self._sprinters: dict[str, bool] = {}
        #: Sprints in a row that took too long.
        self._strikes = 0
        #: Whether the last outcome of a sprint was an integer; else it is expected to be None.
        self._integers = False
        self._forked = False
        #: Whether this process can go on after the tasks that it has run.
        self._fit = not place.fresh
        os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        self._forked = True
        self._channel.close()
        # Where nobody asks after each task whether this is still the worker, the next thing that is done must fail.
        self._shared.ended.release()
        self._shared.values.release()
        # Its own number was announced before the fork; nothing else of the sprint is its business.
        self._guard.sprint = -1

    def _leave(self, error: BaseException | None) -> None:
        """A child that user code forked has no business in here, whatever it returned or raised to get here."""
        if self._forked:
            code = error.code if isinstance(error, SystemExit) else int(error is not None)
            os._exit(code if isinstance(code, int) else int(code is not None))

    def serve(self) -> NoReturn:
        """Run chunks until the runner is gone."""
        try:
            frames.send(self._channel, Kind.hello, {"pid": os.getpid()})
            while True:
                self._home.wait()
                frame = frames.receive(self._channel)
                if frame.kind is Kind.define:
                    self._functions.define(frame.head, frame.body)
                elif frame.kind is Kind.chunk:
                    self._work(frame.head, TaskBlock.decode(frame.body))
        except EOFError:
            os._exit(0)
        except BaseException:  # noqa: BLE001  the process's outermost frame
            self._leave(None)
            self._shared.words[BEGUN] = 0
            self._guard.complain(traceback.format_exc())
            os._exit(RETIRED)

    def _work(self, head: dict[str, Any], block: TaskBlock) -> None:
        epoch = time.time() - time.monotonic()  # noqa: TID251  a worker has no one to hand it a clock
        running = Running(head["chunk"], head["function"], block, head["attempt"], epoch, block.first)
        self._reports.open(running)
        if self._shared.words[STOP] < running.number:
            self._run(running, self._call(running))
        self._reports.send(running, final=True)

    def _call(self, running: Running) -> Call:
        """How to call the function; one that cannot be loaded fails each of its tasks."""
        block = running.block
        # A crash in here is the first task's.
        self._guard.announce(block.first)
        self._shared.words[BEGUN] = time.monotonic_ns()
        try:
            call = self._functions.call(running.function, block.call, block.python)
            self._guard.keep_children()
            self._guard.undoing.keep()
            return call
        except BaseException as error:  # noqa: BLE001  the user's own imports run here
            self._leave(error)
            problem, trace = error, error.__traceback__

            def fail(argument: Any) -> NoReturn:
                del argument
                raise problem.with_traceback(trace)

            return Call(as_it_is, fail)

    def _run(self, running: Running, call: Call) -> None:
        """Call the tasks one after the other, until the chunk ends or is stopped."""
        numbers = running.block.numbers
        items: Iterator[Any] = _payloads(running.block) if numbers is None else iter(numbers)
        load = call.load if numbers is None else as_it_is
        if self._sprinters.get(running.function):
            while self._sprint(running, call.apply if load is as_it_is else call, items):
                pass
        self._walk(running, Call(load, call.apply), items)

    # --- task by task ---

    def _walk(self, running: Running, call: Call, items: Iterator[Any]) -> None:
        """Call the tasks with a look at the process after each of them."""
        words, clock, begin = self._shared.words, time.monotonic_ns, self._meter.begin
        guard, keep, failed, record = self._guard, self._keeper.keep, self._keeper.failed, self._recorder(running)
        reports = self._reports
        chunk, number, (load, apply) = running.number, running.next, call
        first, last, quick, clean = number, running.end - 1, 0, True
        deadline = reports.flushed + int(FLUSH * _SECOND)
        for item in items:
            if words[STOP] >= chunk:
                break
            guard.announce(number)
            row, spent = words[DONE], begin()
            words[BEGUN] = begun = loaded = clock()
            try:
                argument = load(item)
                loaded = clock()
                value = apply(argument)
            except BaseException as error:  # noqa: BLE001  whatever the user's code raises is its outcome
                ended = clock()
                status = failed(row, error)
            else:
                ended = clock()
                if self._forked:
                    self._leave(None)
                status = keep(row, value)
            argument = value = None
            quick += ended - begun < _QUICK
            used = record(row, status, (begun, loaded, ended), spent)
            clean = not self._left_traces(running, number, ended - begun) and clean
            # What the last one gives goes with the end of the chunk.
            if status == LARGE or (number < last and (ended > deadline or used > PAYLOAD_FLUSH)):
                reports.send(running, large=row if status == LARGE else None)
                deadline = reports.flushed + int(FLUSH * _SECOND)
            if not self._fit:
                self._retire(running)
            number += 1
        self._judge(running.function, number - first, quick, clean=clean)

    def _left_traces(self, running: Running, number: int, took: int) -> bool:
        """Note what the task wrote, undo what it changed; whether there was anything."""
        guard, found = self._guard, False
        if guard.undoing.due:
            self._fit = guard.undoing.undo() and self._fit
            found = True
        if took >= FORK_FASTEST and guard.left_children():
            self._fit = guard.end_children() and self._fit
            found = True
        if guard.moved(self._reports.ends):
            self._reports.wrote(number)
            found = True
        if self._keeper.starved:
            guard.drop_files()
            self._keeper.starved = False
        if took > FILES_FASTEST and guard.wrote_files():
            self._reports.left_files(number, running.attempt)
            found = True
        return guard.repair() or found

    def _retire(self, running: Running) -> NoReturn:
        """End this process, which a task has left in a state that it cannot be brought back from."""
        self._reports.send(running)
        os._exit(RETIRED)

    def _recorder(self, running: Running) -> Callable[[int, int, tuple[int, int, int], float], int]:
        """Returns what completes a task's row and answers with the bytes of all outcomes that are kept.

        A closure, because looking everything up again for each task would cost a third of the time.
        """
        shared, measure, clock = self._shared, self._meter.measure, time.monotonic_ns
        words, started, seconds, statuses = shared.words, shared.started, shared.seconds, shared.status
        tell, origin, epoch = shared.memory.tell, shared.origin, running.epoch

        def record(row: int, status: int, times: tuple[int, int, int], spent: float) -> int:
            begun, loaded, ended = times
            started[row] = epoch + begun / _SECOND
            seconds[row] = (ended - begun) / _SECOND
            if ended - begun > MEASURED:
                measure(row, spent, loaded - begun, clock() - ended)
            if status != LARGE:
                statuses[row] = status
                words[BEGUN] = 0
                words[DONE] = row + 1
            return tell() - origin

        return record

    def _judge(self, function: str, count: int, quick: int, *, clean: bool) -> None:
        """Learn from tasks, so many of which were quick, whether the next ones of their function may sprint."""
        unrest = self._guard.unrest
        if clean and unrest[0] != RESTLESS and quick >= max(_TRIED, 0.9 * count):
            self._sprinters.setdefault(function, True)
        unrest[0] = 0

    # --- many at once ---

    def _sprint(self, running: Running, call: Call | Callable[[Any], Any], items: Iterator[Any]) -> bool:
        """Call up to SPRINT_TASKS tasks with one look at the process after them; whether to go on like that.

        What is likely is prepared for all of them, what is looked up is looked up once: for a task that does nothing,
        each look costs a few percent.
        """
        guard, clock, ends, values = self._guard, time.monotonic, self._shared.ended, self._shared.values
        if self._shared.words[STOP] >= running.number:
            return False
        begun = ended = self._start_sprint(running)
        limit, silent, status = begun + SPRINT_TIME, SILENT, 0
        first, end = self._expect(running)
        row, integers = first, self._integers
        for row, item in enumerate(islice(items, end - first), first):
            try:
                value = call(item)
            except BaseException as error:  # noqa: BLE001  whatever the user's code raises is its outcome
                ended = self._fail(row, error)
                break
            # In a child that the task forked, the first of these that is met fails.
            if integers and type(value) is int:
                try:
                    values[row] = value
                    ends[row] = ended = clock()
                except ValueError:  # it has more than 64 bits
                    status, ended = self._keep(running, row, value, begun)
            elif value is None and not integers:
                ends[row] = ended = clock()
            else:
                status, ended = self._keep(running, row, value, begun)
                value = None
            if ended - begun > silent:
                if ended > limit or status == LARGE or guard.stirred(self._reports.ends):
                    break
                ended = clock()
            begun = ended
        self._shared.words[DONE] = done = row + (ends[row] != 0)
        self._shared.forms[done:end] = bytes(end - done)
        return self._end_sprint(running, ended - limit + SPRINT_TIME, large=status == LARGE)

    def _expect(self, running: Running) -> tuple[int, int]:
        """Rows for the tasks of a sprint, with the form that the last outcome had: the next are likely to have it."""
        first, left = self._shared.words[DONE], running.end - running.next
        end = first + min(SPRINT_TASKS, left)
        if self._integers:
            self._shared.forms[first:end] = _INTEGERS[: end - first]
        return first, end

    def _keep(self, running: Running, row: int, value: Any, begun: float) -> tuple[int, float]:
        """Keep an outcome of another form than was expected; its status, and when that was done."""
        shared = self._shared
        shared.values[row] = shared.forms[row] = 0
        status = self._keeper.keep(row, value)
        self._integers = shared.forms[row] == Form.integer
        ended = time.monotonic()
        if status == LARGE or self._guard.unrest[0]:
            # The sprint is to end with it: it counts as one that is looked at.
            ended = max(ended, begun + 2 * SILENT)
        if status == LARGE:
            shared.started[row], shared.seconds[row] = running.epoch + begun, ended - begun
        else:
            shared.status[row], shared.ended[row] = status, ended
        return status, ended

    def _fail(self, row: int, error: BaseException) -> float:
        """Keep a task's exception as its outcome; when that was done."""
        shared, status = self._shared, self._keeper.failed(row, error)
        shared.forms[row], shared.status[row] = 0, status
        shared.ended[row] = ended = time.monotonic()
        return ended

    def _start_sprint(self, running: Running) -> float:
        """Prepare the shared memory; monotonic seconds."""
        shared, words = self._shared, self._shared.words
        self._guard.announce(running.next)
        self._guard.sprint = running.next - words[DONE]
        begun = time.monotonic()
        if not words[SPRINT]:
            shared.reals_of_words[BEGAN], shared.reals_of_words[EPOCH] = begun, running.epoch
            words[SPRINT] = 1
        words[BEGUN] = int(begun * _SECOND)
        return begun

    def _end_sprint(self, running: Running, took: float, *, large: bool) -> bool:
        """Look at the process; whether to go on sprinting."""
        words, function, guard = self._shared.words, running.function, self._guard
        done = words[DONE]
        count = done + large + guard.sprint - running.next
        running.next += count
        if not large:
            words[BEGUN] = 0
        guard.sprint = -1
        if self._left_traces(running, running.next - 1, FORK_FASTEST) or guard.unrest[0] == RESTLESS:
            # Never again: what one of its tasks does may be noticed a task too late.
            self._sprinters[function] = False
        elif took * _SECOND <= max(count, 1) * _QUICK:
            self._strikes = 0
        else:
            self._strikes += 1
            if self._strikes >= _STRIKES:
                self._strikes = 0
                del self._sprinters[function]
        guard.unrest[0] = 0
        more = running.next < running.end
        go_on = more and self._sprinters.get(function, False)
        late = time.monotonic_ns() - self._reports.flushed > FLUSH * _SECOND or self._keeper.used > PAYLOAD_FLUSH
        # Rows of sprints and others do not mix.
        if large or (more and (late or not go_on)):
            self._reports.send(running, large=done if large else None)
        if not self._fit:
            self._retire(running)
        return go_on


def _payloads(block: TaskBlock) -> Iterator[memoryview]:
    payload, end = memoryview(block.payload), 0
    for length in block.lengths:
        start, end = end, end + length
        yield payload[start:end]
