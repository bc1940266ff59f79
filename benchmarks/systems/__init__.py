"""The systems that are compared, each behind the same few calls. One of them is imported by each driver.

These modules run under the interpreter of the system's own environment: they import the standard library, that
system, and `workloads`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

#: Module and class of each system.
SYSTEMS = {
    "bare": ("bare", "Bare"),
    "executor": ("stdlib", "Executor"),
    "pool": ("stdlib", "Pool"),
    "joblib": ("with_joblib", "Joblib"),
    "dask": ("with_dask", "Dask"),
    "ray": ("with_ray", "Ray"),
    "lithops": ("with_lithops", "Lithops"),
    "vmrun-engine": ("vmrun_engine", "VmrunEngine"),
    "vmrun-job": ("vmrun_job", "VmrunJob"),
    "vmrun-executor": ("vmrun_executor", "VmrunExecutor"),
}
#: (state, value or text): `ok` and the value, `failed` and why, `missing` for what never came.
Outcome = tuple[str, Any]
OK, FAILED, MISSING = "ok", "failed", "missing"


class Unsupported(Exception):
    """The system cannot do what was asked; the message says why."""


class System:
    """One system on this machine. `map` and `each` may be called again and again between `start` and `stop`."""

    def start(self, workers: int, **options: Any) -> None:
        """Be ready to run, with this many worker processes."""
        raise NotImplementedError

    def version(self) -> str:
        """Version of the system."""
        raise NotImplementedError

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        """Results in order. `chunk` tasks travel together; 0 leaves that to the system."""
        raise NotImplementedError

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        """Results of `function(shared, argument)`, the object handed over in the best way that the system has."""
        raise Unsupported("nothing but sending it along with each task")

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """One call and its result."""
        return self.map(function, [argument], 1)[0]

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        """What becomes of each task within `limit` seconds, whatever becomes of the others."""
        raise NotImplementedError

    def stop(self) -> None:
        """Leave no process."""
        raise NotImplementedError


def open_system(name: str) -> System:
    """The system called `name`, not started. Raises KeyError, ImportError."""
    module, kind = SYSTEMS[name]
    system: System = getattr(importlib.import_module(f"systems.{module}"), kind)()
    return system


def run_many(function: Callable[[Any], Any], batch: Sequence[Any]) -> list[Any]:
    """A hand-made chunk, for systems that have none of their own."""
    return [function(one) for one in batch]


def batches(arguments: list[Any], chunk: int) -> list[list[Any]]:
    """Arguments cut into hand-made chunks."""
    return [arguments[at : at + chunk] for at in range(0, len(arguments), chunk)]


def collect(waits: Iterable[Callable[[float], Any]], limit: float) -> list[Outcome]:
    """The outcome of each call of `waits`, which get the seconds that are left and raise TimeoutError after them."""
    deadline = time.monotonic() + limit
    outcomes: list[Outcome] = []
    for wait in waits:
        try:
            outcomes.append((OK, wait(max(0.01, deadline - time.monotonic()))))
        except TimeoutError:
            outcomes.append((MISSING, ""))
        except BaseException as error:  # noqa: BLE001  whatever the system raises for a task is its outcome
            outcomes.append((FAILED, f"{type(error).__name__}: {error}"))
    return outcomes
