"""vmrun's engine alone: tasks handed to it in this process, no store and no agent around it.

The only module of the benchmarks that knows how arguments and results are laid out in the engine's blocks. What a
client does to arguments and results is done here within the measured time: they are pickled, and unpickled.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle

import vmrun
from systems import FAILED, MISSING, OK, Outcome, System, Unsupported
from systems.dispatching import cpu_seconds, dispatch
from vmrun.agent.engine import Engine, EngineSpec, FunctionDefinition, LargeResult, Results, RunnerDied
from vmrun.core.blocks import PYTHON, Form, ResultBlock, Status, TaskBlock, lengths_of, read_failure
from vmrun.core.clock import SystemClock
from vmrun.core.parcels import apart

#: Tasks and bytes of a block.
BLOCK_TASKS, BLOCK_BYTES = 16 * 1024, 8 * 1024 * 1024

#: Takes the number of a block's first task, counted from the first of a run, and the block.
Note = Callable[[int, ResultBlock], None]


def encode(first: int, arguments: list[Any]) -> TaskBlock:
    """A block of tasks with these arguments, made as a submission makes it: integers as numbers, all else pickled."""
    if list(map(type, arguments)).count(int) == len(arguments):
        with contextlib.suppress(struct.error):
            numbers = array("q", struct.pack(f"{len(arguments)}q", *arguments))
            return TaskBlock(first, array("Q"), b"", numbers=numbers)
    payloads = [cloudpickle.dumps(one, 5) for one in arguments]
    return TaskBlock(first, lengths_of(payloads), b"".join(payloads))


def decode(block: ResultBlock) -> list[Outcome]:
    """The outcome of each task of a block, in order."""
    if (plain := block.plain()) is not None:
        return [(OK, value) for value in plain]
    return [_outcome(status, payload, block.form(task)) for task, status, payload in block.items()]


def fill(values: list[Any], first: int, block: ResultBlock) -> None:
    """Put the results of a block where they belong. Raises RuntimeError where a task has none."""
    plain = block.plain()
    if plain is None:
        plain = (_value(*_outcome(status, payload, block.form(task))) for task, status, payload in block.items())
    values[first : first + block.count] = plain


def _value(state: str, value: Any) -> Any:
    if state != OK:
        raise RuntimeError(value)
    return value


def _outcome(status: Status, payload: Any, form: int) -> Outcome:
    if status is Status.ok and form == Form.parcel:
        return OK, apart(payload).load()
    if status is Status.ok:
        return OK, pickle.loads(payload)
    document = read_failure(payload)
    return FAILED, f"{document['kind']}: {document['message']}"


def into(outcomes: list[Outcome]) -> Note:
    """What puts the outcomes of blocks there."""

    def note(first: int, block: ResultBlock) -> None:
        outcomes[first : first + block.count] = decode(block)

    return note


def pieces(arguments: list[Any]) -> Iterator[list[Any]]:
    """Arguments in groups that make blocks of a fair size."""
    large = bool(arguments) and hasattr(arguments[0], "nbytes")
    size = max(1, BLOCK_BYTES // arguments[0].nbytes) if large else BLOCK_TASKS
    return (arguments[at : at + size] for at in range(0, len(arguments), size))


class VmrunEngine(System):
    """One engine, as an agent has it."""

    def start(self, workers: int, **options: Any) -> None:
        place = tempfile.mkdtemp(prefix="engine-")
        env = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS", "VMRUN_TEST_RUN")}
        spec = EngineSpec(
            python=sys.executable,
            app_path=str(Path(vmrun.__file__).parent.parent),
            directory=f"{place}/engine",
            workers=workers,
            job="benchmark",
            env=env,
            **options,
        )
        self._engine = Engine(spec, SystemClock())
        self._defined: dict[Callable[..., Any], str] = {}
        self._next = 0
        self.map(abs, list(range(workers * 4)), 0)

    def version(self) -> str:
        return f"vmrun {vmrun.__version__}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        values: list[Any] = [None] * len(arguments)
        self._run(function, arguments, None, lambda first, block: fill(values, first, block))
        return values

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        raise Unsupported("shared objects are handed over by a job: see vmrun, whole")

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        outcomes: list[Outcome] = [(MISSING, "")] * len(arguments)
        self._run(function, arguments, limit, into(outcomes))
        return outcomes

    def _run(self, function: Callable[[Any], Any], arguments: list[Any], limit: float | None, note: Note) -> None:
        engine, name, first = self._engine, self._name(function), self._next
        self._next += len(arguments)
        waiting, fed, left = pieces(arguments), first, len(arguments)
        deadline = time.monotonic() + (limit or 3600.0)
        while left and time.monotonic() < deadline:
            while engine.wants() and (piece := next(waiting, None)) is not None:
                engine.feed(encode(fed, piece), name)
                fed += len(piece)
            for event in engine.poll(0.5):
                left -= self._take(event, first, note)

    def _take(self, event: object, first: int, note: Note) -> int:
        """Note what came; the number of tasks that it settles."""
        if isinstance(event, RunnerDied):
            raise RuntimeError(event.reason)  # noqa: TRY004  it is not about types
        if isinstance(event, LargeResult):
            block = ResultBlock.decode(Path(event.path).read_bytes())
            os.unlink(event.path)
        elif isinstance(event, Results):
            block = event.block
        else:
            return 0
        note(block.first - first, block)
        return block.count

    def _name(self, function: Callable[..., Any]) -> str:
        if function not in self._defined:
            self._defined[function] = f"f{len(self._defined)}"
            definition = FunctionDefinition("pickle", python=PYTHON, data=cloudpickle.dumps(function))
            self._engine.define(self._defined[function], definition)
        return self._defined[function]

    def stop(self) -> None:
        self._engine.close()

    def many_workers(self, tasks: int, seconds: float) -> dict[str, Any]:
        """Sleeping tasks on all workers: when they started, and the processor time of this process and the runner.

        This process does here what an agent does with its engine: it feeds, polls and unpacks.
        """
        from workloads import nap

        engine, name, first = self._engine, self._name(nap), self._next
        self._next += tasks
        outcomes: list[Outcome] = [(MISSING, "")] * tasks
        note = into(outcomes)
        samples = [(time.monotonic(), self._cpu())]
        engine.feed(encode(first, [seconds] * tasks), name)
        left = tasks
        while left:
            for event in engine.poll(0.1):
                left -= self._take(event, first, note)
            if time.monotonic() - samples[-1][0] > 0.05:
                samples.append((time.monotonic(), self._cpu()))
        samples.append((time.monotonic(), self._cpu()))
        timings = [value for state, value in outcomes if state == OK]
        assert len(timings) == tasks, "tasks failed"
        return dispatch(timings, samples)

    def _cpu(self) -> float:
        """Processor seconds so far of this process and of the runner."""
        return cpu_seconds(os.getpid()) + cpu_seconds(self._engine._process.pid)  # noqa: SLF001  it is nowhere else told
