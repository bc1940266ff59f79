"""Ray on this machine alone: no dashboard, no usage statistics, on the loopback address."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import ray

from systems import Outcome, System, batches, collect, run_many

#: Bytes of Ray's object store: room for the largest workload and its copies.
STORE_BYTES = 3_000_000_000


class Ray(System):
    """Remote functions."""

    def start(self, workers: int, **options: Any) -> None:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            configure_logging=True,
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=os.path.join(os.environ["TMPDIR"], "ray"),
        )
        ray.get([ray.remote(noop).remote(number) for number in range(workers * 4)])

    def version(self) -> str:
        return f"Ray {ray.__version__}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        if chunk <= 1:
            remote = ray.remote(function)
            return ray.get([remote.remote(one) for one in arguments])
        remote = _chunked(function)
        parts = ray.get([remote.remote(batch) for batch in batches(arguments, chunk)])
        return list(itertools.chain.from_iterable(parts))

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        handle, remote = ray.put(shared), ray.remote(function)
        return ray.get([remote.remote(handle, one) for one in arguments])

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return ray.get(ray.remote(function).remote(argument))

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        # Without this a task whose worker dies runs three times more.
        remote = ray.remote(max_retries=0)(function)
        return collect([functools.partial(_wait, remote.remote(one)) for one in arguments], limit)

    def stop(self) -> None:
        ray.shutdown()


def noop(number: int) -> int:
    return number


def _chunked(function: Callable[[Any], Any]) -> Any:
    def run(batch: list[Any]) -> list[Any]:
        return run_many(function, batch)

    return ray.remote(run)


def _wait(reference: Any, limit: float) -> Any:
    try:
        return ray.get(reference, timeout=limit)
    except ray.exceptions.GetTimeoutError:
        raise TimeoutError from None
