"""Dask's `LocalCluster`: one process with one thread per worker, no dashboard, on the loopback address."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import dask
import distributed

from systems import Outcome, System, batches, collect, run_many


class Dask(System):
    """Futures of a client. Pure results are not remembered, so that every run computes."""

    def start(self, workers: int, **options: Any) -> None:
        dask.config.set({"distributed.comm.timeouts.connect": "30s"})
        self._cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=os.environ["TMPDIR"],
            silence_logs="CRITICAL",
        )
        self._client = distributed.Client(self._cluster)
        self._client.gather(self._client.map(abs, range(workers * 4), pure=False))

    def version(self) -> str:
        return f"Dask {distributed.__version__}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        if chunk <= 1:
            return self._client.gather(self._client.map(function, arguments, pure=False, batch_size=10_000))
        whole = functools.partial(run_many, function)
        parts = self._client.gather(self._client.map(whole, batches(arguments, chunk), pure=False))
        return list(itertools.chain.from_iterable(parts))

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        handle = self._client.scatter(shared, broadcast=True)
        return self._client.gather([self._client.submit(function, handle, one, pure=False) for one in arguments])

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return self._client.submit(function, argument, pure=False).result()

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        futures = self._client.map(function, arguments, pure=False)
        return collect([functools.partial(_wait, future) for future in futures], limit)

    def stop(self) -> None:
        self._client.close(timeout=5)
        self._cluster.close(timeout=10)


def _wait(future: Any, limit: float) -> Any:
    return future.result(timeout=limit)
