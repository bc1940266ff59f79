"""Lithops on its localhost backend and storage."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import lithops
from workloads import noop

from systems import FAILED, MISSING, OK, Outcome, System


class Lithops(System):
    """`lithops.FunctionExecutor`; telemetry is off unless configured, and is not."""

    def start(self, workers: int, **options: Any) -> None:
        config = {
            "lithops": {"backend": "localhost", "storage": "localhost", "log_level": "CRITICAL"},
            "localhost": {"worker_processes": workers},
        }
        self._executor = lithops.FunctionExecutor(config=config, log_level="CRITICAL")
        self.call(noop, 0)

    def version(self) -> str:
        return f"Lithops {lithops.__version__}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        futures = self._executor.map(function, [(one,) for one in arguments])
        return self._results(futures)

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        # What a partial function holds is stored once and loaded by every task.
        return self.map(functools.partial(function, shared), arguments, 1)

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return self._executor.get_result(self._executor.call_async(function, (argument,)), show_progressbar=False)

    def _results(self, futures: Any) -> list[Any]:
        found = self._executor.get_result(futures, show_progressbar=False)
        return found if isinstance(found, list) else [found]

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        futures = self._executor.map(function, [(one,) for one in arguments])
        waited = True
        try:
            self._executor.wait(
                futures, throw_except=False, show_progressbar=False, timeout=max(1, int(limit)), wait_dur_sec=0.2
            )
        except TimeoutError:
            waited = False
        deadline = time.monotonic() + (5.0 if waited else 1.0)
        return [_outcome(future, deadline) for future in futures]

    def stop(self) -> None:
        self._executor.__exit__(None, None, None)


def _outcome(future: Any, deadline: float) -> Outcome:
    if _unknown(future):
        return MISSING, ""
    if future.error:
        return FAILED, "failed"
    if time.monotonic() > deadline:
        return MISSING, ""
    try:
        value = future.result(throw_except=False)
    except BaseException as error:  # noqa: BLE001  whatever it raises is the task's outcome
        return FAILED, f"{type(error).__name__}: {error}"
    if _unknown(future):
        return MISSING, ""
    return (FAILED, "failed") if future.error else (OK, value)


def _unknown(future: Any) -> bool:
    # There is no other way to ask: `done` is true of what was given up, too.
    return future._call_status is None or future._state == future.State.Unknown  # noqa: SLF001
