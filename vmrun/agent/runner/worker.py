"""A worker: one forked process that calls the user's function, task by task.

It runs chunks that the runner sends, keeps outcomes in the shared memory and sends them every `FLUSH` seconds, or when
they are many bytes, or when the chunk ends. The path of a task that does nothing is kept to about 3 µs, of which the
repairs of the process are less than 2 µs.
"""

from __future__ import annotations

import os
import pickle
import resource
import socket
import sys
import time
import traceback
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from vmrun.core.blocks import ResultBlock, Status, TaskBlock

from . import failures, frames
from .byvalue import ByValue
from .frames import Kind
from .functions import JOB_MODULE, Call, Ended, Functions
from .guard import FILES_FASTEST, Guard, Place
from .shared import BASE, BEGUN, DONE, MOVE, MOVES, PAYLOAD_FLUSH, PAYLOAD_LARGE, STOP, Shared

#: Seconds after which outcomes are sent though the chunk goes on.
FLUSH = 0.03
#: Exit code of a worker that found its own descriptors or state damaged; no task is blamed for it.
RETIRED = 120
#: In place of a status: the result went into a file.
_LARGE = -1
_NONE = pickle.dumps(None, 5)
_SECOND = 1_000_000_000
#: Bytes before the pickle in the file of a large result: header and columns, padded.
_ROOM = 1024


@dataclass(slots=True)
class Running:
    """The chunk at hand."""

    number: int
    block: TaskBlock
    payload: memoryview
    attempt: int
    #: Add to monotonic seconds to get seconds since the epoch.
    epoch: float


class Worker:
    """Everything that runs in a worker process."""

    def __init__(self, channel: socket.socket, shared: Shared, place: Place, guard: Guard, app_path: str) -> None:
        import cloudpickle

        self._channel = channel
        self._shared = shared
        self._place = place
        self._guard = guard
        self._by_value = ByValue(place.code_path, place.job, JOB_MODULE)
        self._functions = Functions(place, app_path, self._by_value, guard.defaults)
        self._dumps: Callable[[Any], bytes] = cloudpickle.dumps
        self._make_pickler: Any = cloudpickle.Pickler
        self._pickler: Any = cloudpickle.Pickler(shared.memory, protocol=5)
        # Past cloudpickle's own `dump`, which only rewords an error, at twice the time for a small result. The class is
        # named because without it Python 3.12 and later crash.
        self._dump: Callable[[Any], None] = pickle.Pickler.dump.__get__(self._pickler, self._make_pickler)
        self._spilled = ("", 0)
        self._ends = (0, 0)
        #: Bytes of the outcomes whose rows are complete.
        self._used = 0
        self._flushed = 0
        self._usage = 0.0
        self._forked = False
        os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        self._forked = True
        self._channel.close()

    def serve(self) -> NoReturn:
        """Run chunks until the runner is gone."""
        try:
            frames.send(self._channel, Kind.hello, {"pid": os.getpid()})
            while True:
                frame = frames.receive(self._channel)
                if frame.kind is Kind.define:
                    self._functions.define(frame.head, frame.body)
                elif frame.kind is Kind.chunk:
                    self._work(frame.head, TaskBlock.decode(frame.body))
        except EOFError:
            os._exit(0)
        except BaseException:  # noqa: BLE001  the process's outermost frame
            self._shared.words[BEGUN] = 0
            self._guard.complain(traceback.format_exc())
            os._exit(RETIRED)

    def _work(self, head: dict[str, Any], block: TaskBlock) -> None:
        epoch = time.time() - time.monotonic()  # noqa: TID251  a worker has no one to hand it a clock
        running = Running(head["chunk"], block, memoryview(block.payload), head["attempt"], epoch)
        self._shared.restart(block.first, running.number)
        self._used = 0
        self._ends = self._guard.settle()
        self._guard.forget_peak()
        self._usage = _cpu_seconds()
        self._flushed = time.monotonic_ns()
        if self._shared.words[STOP] < running.number:
            self._run(running, self._caller(head["function"], block))
        self._send(running, final=True)

    def _caller(self, function: str, block: TaskBlock) -> Call:
        """How to call the function; one that cannot be loaded fails each of its tasks."""
        # A crash in here is the first task's.
        self._guard.announce(block.first)
        self._shared.words[BEGUN] = time.monotonic_ns()
        try:
            return self._functions.call(function, block.call, block.python)
        except BaseException as error:  # noqa: BLE001  the user's own imports run here
            self._leave_if_forked(error)
            problem, trace = error, error.__traceback__

            def fail(payload: memoryview) -> NoReturn:
                del payload
                raise problem.with_traceback(trace)

            return fail

    def _run(self, running: Running, call: Call) -> None:
        """Call the tasks one after the other, until the chunk ends or is stopped."""
        words, clock = self._shared.words, time.monotonic_ns
        guard, keep, record = self._guard, self._keep, self._recorder(running)
        announce, moved, repair = guard.announce, guard.moved, guard.repair
        chunk, payload, number, end = running.number, running.payload, running.block.first, 0
        deadline = self._flushed + int(FLUSH * _SECOND)
        for length in running.block.lengths:
            if words[STOP] >= chunk:
                break
            start, end = end, end + length
            announce(number)
            words[BEGUN] = begun = clock()
            try:
                value = call(payload[start:end])
            except BaseException as error:  # noqa: BLE001  whatever the user's code raises is its outcome
                ended = clock()
                status = self._failed(error)
            else:
                ended = clock()
                status = keep(value)
                value = None
            used = record(status, begun, ended)
            if moved(self._ends):
                self._wrote(number)
            if ended - begun > FILES_FASTEST and guard.wrote_files():
                self._left_files(number, running.attempt)
            repair()
            if status == _LARGE or ended > deadline or used > PAYLOAD_FLUSH:
                self._send(running)
                if status == _LARGE:
                    self._send_large(running, number, begun, ended)
                deadline = self._flushed + int(FLUSH * _SECOND)
            number += 1

    def _failed(self, error: BaseException) -> int:
        """Keep a failure as the task's outcome."""
        self._leave_if_forked(error)
        if isinstance(error, Ended):
            status, document = error.status, error.payload
        else:
            status, document = failures.describe(error, self._dumps)
        self._shared.memory.write(document)
        return status

    def _leave_if_forked(self, error: BaseException) -> None:
        """A child that user code forked has no business in here, whatever it raised to get here."""
        if self._forked:
            code = error.code if isinstance(error, SystemExit) else 1
            os._exit(code if isinstance(code, int) else int(code is not None))

    def _keep(self, value: Any) -> int:
        """Pickle a result into the shared memory, or into a file if it is large; the status."""
        memory = self._shared.memory
        if self._forked:
            os._exit(0)
        if value is None:
            memory.write(_NONE)
            return 0
        if len(sys.modules) != self._by_value.count:
            self._by_value.scan()
        start = memory.tell()
        try:
            self._dump(value)
        except BaseException as error:  # noqa: BLE001  the value's own code runs in here
            memory.seek(start)
            return self._keep_otherwise(value, error)
        finally:
            self._pickler.clear_memo()
            if self._pickler.globals_ref:
                self._pickler.globals_ref.clear()
        if memory.tell() - start > PAYLOAD_LARGE:
            memory.seek(start)
            return self._keep_otherwise(value, ValueError())
        return 0

    def _keep_otherwise(self, value: Any, error: BaseException) -> int:
        """Into a file, if all that is wrong is the size (the memory answers that with a ValueError)."""
        self._leave_if_forked(error)
        if isinstance(error, ValueError):
            try:
                self._spill(value)
                return _LARGE
            except BaseException as second:  # noqa: BLE001  as above
                error = second
        self._shared.memory.write(failures.unpicklable(value, error, self._dumps))
        return Status.unpicklable

    def _recorder(self, running: Running) -> Callable[[int, int, int], int]:
        """Returns what completes a task's row and answers with the bytes of all outcomes that are kept.

        A closure, because looking everything up again for each task would cost a third of the time.
        """
        shared = self._shared
        words, tell, origin = shared.words, shared.memory.tell, shared.origin
        lengths, started, seconds, statuses = shared.lengths, shared.started, shared.seconds, shared.status
        epoch = running.epoch

        def record(status: int, begun: int, ended: int) -> int:
            used = tell() - origin
            if status != _LARGE:
                row = words[DONE]
                lengths[row] = used - self._used
                started[row] = epoch + begun / _SECOND
                seconds[row] = (ended - begun) / _SECOND
                statuses[row] = status
                self._used = used
                words[BEGUN] = 0
                words[DONE] = row + 1
            return used

        return record

    def _wrote(self, number: int) -> None:
        """Note where the task's output ends."""
        self._ends = self._guard.settle()
        words, moves = self._shared.words, self._shared.moves
        at = words[MOVES] * MOVE
        moves[at], moves[at + 1], moves[at + 2] = number, *self._ends
        words[MOVES] += 1

    def _left_files(self, number: int, attempt: int) -> None:
        """Tell the runner of the files that the task left."""
        path = self._guard.take_files(number, attempt)
        if path:
            frames.send(self._channel, Kind.files, {"task": number, "attempt": attempt, "path": path})

    def _send(self, running: Running, *, final: bool = False) -> None:
        """Send all outcomes that are kept; `final` says that no more of this chunk will come."""
        shared = self._shared
        shared.words[BEGUN] = 0
        block = shared.results()
        block.facts = self._facts(running)
        moves = shared.moved()
        now = time.monotonic_ns()
        head = {
            "chunk": running.number,
            "first": block.first,
            "count": block.count,
            "failed": any(block.status),
            "seconds": (now - self._flushed) / _SECOND,
            "moves": len(moves),
            "final": final,
        }
        frames.send(self._channel, Kind.results, head, moves, block.encode())
        shared.restart(block.first + block.count, running.number)
        self._used = 0
        self._flushed = time.monotonic_ns()

    def _facts(self, running: Running) -> dict[str, Any]:
        """What the tasks of a block share."""
        before, self._usage = self._usage, _cpu_seconds()
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "worker": self._place.slot,
            "pid": os.getpid(),
            "attempt": running.attempt,
            "cpu_seconds": round(self._usage - before, 6),
            "peak_bytes": max(own.ru_maxrss, children.ru_maxrss) * 1024,
        }

    def _spill(self, value: Any) -> None:
        """Pickle a result into a file, behind room for the columns of its block."""
        number = self._shared.words[BASE] + self._shared.words[DONE]
        path = os.path.join(self._place.directory, "spool", f"{number}-{self._place.serial}.result")
        try:
            with open(path, "wb", buffering=1024 * 1024) as file:
                file.write(bytes(_ROOM))
                self._make_pickler(file, protocol=5).dump(value)
                self._spilled = path, file.tell() - _ROOM
        except BaseException:
            os.unlink(path)
            raise

    def _send_large(self, running: Running, number: int, begun: int, ended: int) -> None:
        """Complete the file of a large result and tell the runner of it."""
        path, size = self._spilled
        started = array("d", [running.epoch + begun / _SECOND])
        seconds = array("f", [(ended - begun) / _SECOND])
        facts = self._facts(running)
        block = ResultBlock(number, b"\0", array("Q", [size]), b"", started, seconds, facts=facts)
        start = block.encode()
        block.facts["pad"] = "." * (_ROOM - len(start) - len(',"pad":""'))
        with open(path, "r+b") as file:
            file.write(block.encode())
        head = {"chunk": running.number, "task": number, "path": path, "size": _ROOM + size, "attempt": running.attempt}
        frames.send(self._channel, Kind.large, head)
        self._shared.restart(number + 1, running.number)
        self._used = 0
        self._flushed = time.monotonic_ns()


def _cpu_seconds() -> float:
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
