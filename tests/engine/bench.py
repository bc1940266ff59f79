"""A real engine on a bench: runner, workers and all, with what comes out of it collected."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cloudpickle

import vmrun
from vmrun.agent.engine import (
    Engine,
    EngineSpec,
    Event,
    Files,
    FunctionDefinition,
    LargeResult,
    Output,
    Results,
    RunnerDied,
)
from vmrun.agent.runner.frames import REPLY_MAX, FrameReader, Kind
from vmrun.core import parcels
from vmrun.core.blocks import PYTHON, Form, ResultBlock, Status, TaskBlock, lengths_of, read_failure
from vmrun.core.clock import SystemClock

#: The directory that holds vmrun, as an agent would name it.
APP = str(Path(vmrun.__file__).parent.parent)
#: Seconds within which anything here has to happen, on a machine with other things to do.
PATIENCE = 90.0
#: For what runs as user code, and for waiting on conditions; the builtin itself, so that workers need not import this.
nap = time.sleep  # noqa: TID251


def wait_until(condition: Callable[[], Any], what: str = "") -> Any:
    """The first true answer of `condition`; fails after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what or condition}"
        nap(0.005)
    return answer


def is_alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has reaped does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def block(first: int, values: Iterable[object], call: str = "one", python: str = PYTHON) -> TaskBlock:
    """Tasks with these arguments."""
    payloads = [pickle.dumps(value) if type(value) is int else cloudpickle.dumps(value) for value in values]
    return TaskBlock(first, lengths_of(payloads), b"".join(payloads), call, python)


class Bench:
    """One engine, its functions, and everything that it said."""

    def __init__(self, directory: Path, **options: Any) -> None:
        env = {"VMRUN_TEST_RUN": os.environ["VMRUN_TEST_RUN"], **options.pop("env", {})}
        spec = {
            "python": sys.executable,
            "app_path": APP,
            "directory": str(directory / "engine"),
            "workers": 2,
            "job": "testjob",
            "kill_grace": 0.3,
            "env": env,
            **options,
        }
        self.directory = Path(spec["directory"])
        self.engine = Engine(EngineSpec(**spec), SystemClock())
        self.events: list[Event] = []
        self.statuses: dict[int, Status] = {}
        #: Values of tasks that succeeded, failure documents of the others.
        self.outcomes: dict[int, Any] = {}
        self.facts: dict[int, dict[str, Any]] = {}
        self.seconds: dict[int, float] = {}
        self.output: defaultdict[tuple[int, int, str], bytes] = defaultdict(bytes)
        self.files: dict[tuple[int, int], Path] = {}
        self.large: dict[int, Path] = {}
        #: Tasks whose results have their buffers beside the pickle.
        self.parcels: set[int] = set()
        self.died = ""

    def define(self, function: Callable[..., Any], name: str = "f", **options: Any) -> None:
        data = cloudpickle.dumps(function)
        self.engine.define(name, FunctionDefinition("pickle", **{"python": PYTHON, "data": data, **options}))

    def source(self, path: Path, name: str, **options: Any) -> None:
        self.engine.define(name, FunctionDefinition("source", path=str(path), name=name, **options))

    def command(self, *argv: str) -> None:
        self.engine.define("command", FunctionDefinition("command", argv=argv))

    def feed(self, values: Iterable[object], name: str = "f", first: int = 0) -> None:
        self.engine.feed(block(first, values), name)

    def run(self, function: Callable[..., Any], values: Iterable[object]) -> dict[int, Any]:
        """Outcomes of calling `function` on each of `values`."""
        self.define(function)
        self.feed(values)
        self.finish()
        return self.outcomes

    def finish(self) -> None:
        """Take events until all that was fed has its outcome."""
        self.until(lambda: self.engine.idle() or self.died)
        assert not self.died, self.died

    def until(self, condition: Callable[[], Any]) -> Any:
        """Take events until `condition` holds."""

        def step() -> Any:
            for event in self.engine.poll(0.02):
                self.take(event)
            return condition()

        return wait_until(step)

    def on_the_way(self) -> int:
        """Tasks whose outcomes the runner has sent, and nobody has taken yet; no more of them than a socket holds."""
        try:
            data = self.engine._channel.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        there, here = socket.socketpair()
        with there, here:
            here.setblocking(False)
            there.sendall(data)
            frames = list(FrameReader(here, REPLY_MAX).read(len(data)))
        return sum(ResultBlock.decode(frame.body).count for frame in frames if frame.kind is Kind.results)

    def take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Results):
            self._results(event.block)
        elif isinstance(event, LargeResult):
            self.large[event.task] = Path(event.path)
            self._results(ResultBlock.decode(Path(event.path).read_bytes()))
        elif isinstance(event, Output):
            self.output[event.task, event.attempt, event.stream] += event.data
        elif isinstance(event, Files):
            self.files[event.task, event.attempt] = Path(event.path)
        elif isinstance(event, RunnerDied):
            self.died = event.reason

    def _results(self, results: ResultBlock) -> None:
        for (task, status, payload), seconds in zip(results.items(), results.timed().seconds, strict=True):
            assert task not in self.outcomes, f"task {task} has two outcomes"
            self.statuses[task] = status
            self.outcomes[task] = self._value(results, task, payload) if status is Status.ok else read_failure(payload)
            self.facts[task] = results.facts
            self.seconds[task] = seconds

    def _value(self, results: ResultBlock, task: int, payload: Any) -> Any:
        if results.form(task) == Form.parcel:
            self.parcels.add(task)
            return parcels.apart(payload).load()
        return pickle.loads(payload)

    def printed(self, task: int, stream: str = "stdout", attempt: int = 0) -> str:
        return self.output[task, attempt, stream].decode()

    def close(self) -> None:
        self.engine.close()
