"""What comes with Python: `concurrent.futures.ProcessPoolExecutor` and `multiprocessing.Pool`."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import multiprocessing.pool
import platform
from collections.abc import Callable
from typing import Any

from systems import FAILED, Outcome, System, collect

#: Set before the processes are forked, who then find it here; the best that can be done with these two by hand.
_shared: Any = None


def _with_shared(function: Callable[[Any, Any], Any], argument: Any) -> Any:
    return function(_shared, argument)


class Executor(System):
    """`concurrent.futures.ProcessPoolExecutor`."""

    def start(self, workers: int, **options: Any) -> None:
        self._workers = workers
        self._pool = concurrent.futures.ProcessPoolExecutor(workers)
        # Processes are made with the first calls.
        list(self._pool.map(abs, range(workers * 4)))

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        return list(self._pool.map(function, arguments, chunksize=chunk or 1))

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        global _shared  # noqa: PLW0603  see there
        _shared = shared
        try:
            with concurrent.futures.ProcessPoolExecutor(self._workers) as pool:
                return list(pool.map(functools.partial(_with_shared, function), arguments))
        finally:
            _shared = None

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return self._pool.submit(function, argument).result()

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        waits: list[Callable[[float], Any]] = []
        for one in arguments:
            try:
                waits.append(self._pool.submit(function, one).result)
            except concurrent.futures.BrokenExecutor as error:
                broken = str(error)
                waits.append(functools.partial(_refused, broken))
        return collect(waits, limit)

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _refused(reason: str, _limit: float) -> Any:
    raise RuntimeError(f"{FAILED} to submit: {reason}")


class Pool(System):
    """`multiprocessing.Pool`."""

    def start(self, workers: int, **options: Any) -> None:
        self._workers = workers
        self._pool = multiprocessing.Pool(workers)
        self._pool.map(abs, range(workers * 4), 1)

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        return self._pool.map(function, arguments, chunk or None)

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        global _shared  # noqa: PLW0603  see there
        _shared = shared
        try:
            with multiprocessing.Pool(self._workers) as pool:
                return pool.map(functools.partial(_with_shared, function), arguments, 1)
        finally:
            _shared = None

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return self._pool.apply(function, (argument,))

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        return collect([self._waiting(function, one) for one in arguments], limit)

    def _waiting(self, function: Callable[[Any], Any], argument: Any) -> Callable[[float], Any]:
        result = self._pool.apply_async(function, (argument,))

        def wait(limit: float) -> Any:
            try:
                return result.get(limit)
            except multiprocessing.TimeoutError:
                raise TimeoutError from None

        return wait

    def stop(self) -> None:
        self._pool.terminate()
