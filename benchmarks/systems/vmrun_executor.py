"""`vmrun.Executor` on a machine of its own: one open job, call by call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import vmrun
from systems import Outcome, System, collect


class VmrunExecutor(System):
    """A `concurrent.futures.Executor`."""

    def start(self, workers: int, **options: Any) -> None:
        self._pool = vmrun.Executor(**{"on": "local", "workers": workers, **options})
        self.call(abs, -1)

    def version(self) -> str:
        return f"vmrun {vmrun.__version__}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        return list(self._pool.map(function, arguments))

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return self._pool.submit(function, argument).result()

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        futures = [self._pool.submit(function, one) for one in arguments]
        return collect([functools.partial(_wait, future) for future in futures], limit)

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _wait(future: Any, limit: float) -> Any:
    return future.result(timeout=limit)
