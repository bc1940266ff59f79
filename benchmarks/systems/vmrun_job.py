"""vmrun as its users have it: `vmrun.submit` until every result is in hand, on a directory store."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vmrun
from systems import FAILED, MISSING, OK, Outcome, System, Unsupported
from systems.dispatching import cpu_seconds, dispatch


class VmrunJob(System):
    """A job for each call. With `keep_warm` the jobs after the first find a machine; without, each makes its own."""

    def start(self, workers: int, **options: Any) -> None:
        self._options: dict[str, Any] = {"on": "local", "workers": workers, **options}
        self._client = vmrun.Client()
        if options.get("keep_warm"):
            self.map(abs, list(range(workers)), 0)

    def version(self) -> str:
        return f"vmrun {vmrun.__version__}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        return list(vmrun.submit(function, arguments, client=self._client, **self._options).results())

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        if not hasattr(vmrun, "shared"):
            raise Unsupported("this version of vmrun has no shared=")

        def read(argument: Any) -> Any:
            import vmrun

            return function(vmrun.shared(), argument)

        options = {**self._options, "shared": shared}
        return list(vmrun.submit(read, arguments, client=self._client, **options).results())

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        handle = vmrun.submit(function, arguments, client=self._client, **self._options)
        try:
            handle.wait(timeout=limit)
        except TimeoutError:
            handle.cancel()
            return [(MISSING, "")] * len(arguments)
        found = handle.collect()
        outcomes: list[Outcome] = [(OK, value) for value in found.values]
        for failure in found.failures:
            outcomes[failure.task] = (FAILED, f"{failure.kind}: {failure.message}")
        self.kept_output = sum(len(chunk.data) for chunk in handle.logs())
        return outcomes

    def stop(self) -> None:
        self._client.reap(all_=True)

    def committed(self, name: str, count: int) -> dict[str, Any]:
        """Seconds from the first task's start until the job `name` is declared done, all results in the store."""
        from workloads import load

        one = load(name, count)
        handle = vmrun.submit(one.function, one.arguments, client=self._client, detach=False, **self._options)
        view = handle.wait(timeout=300)
        from vmrun.watch.results import ResultReader

        began = min(outcome.started for outcome in ResultReader(self._client.desk, view.id).outcomes())
        assert one.check(list(handle.results())), "results are wrong"
        return {"seconds": view.ended - began}

    def plain_writes(self, size: int, count: int) -> dict[str, Any]:
        """Seconds that this process needs to write `count` objects of `size` bytes to the same store."""
        data = os.urandom(size)
        place = f"benchmark/{os.getpid()}-{time.monotonic_ns()}"
        began = time.perf_counter()
        for number in range(count):
            self._client.blobs.write(f"{place}/{number}", [data])
        seconds = time.perf_counter() - began
        for number in range(count):
            self._client.blobs.delete(f"{place}/{number}")
        return {"seconds": seconds, "bytes": size * count}

    def many_workers(self, tasks: int, seconds: float) -> dict[str, Any]:
        """Sleeping tasks on all workers: when they started, and the processor time of the agent and its runner."""
        from workloads import nap

        handle = vmrun.submit(nap, [seconds] * tasks, client=self._client, **self._options)
        samples: list[tuple[float, float]] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                samples.append((time.monotonic(), sum(map(cpu_seconds, self._agent()))))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        timings = list(handle.results())
        ended.set()
        thread.join()
        return dispatch(timings, samples)

    def _agent(self) -> list[int]:
        """The agent of this deployment's machine, and its runner."""
        home, found = os.environ["HOME"].encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().split(b"\0")
                if b"vmrun.agent" in command and any(home in word for word in command):
                    agent = folder.name
                    children = (folder / "task" / agent / "children").read_text().split()
                    found += [int(agent), *map(int, children)]
        return found
