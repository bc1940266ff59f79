"""joblib with its default backend, loky."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import joblib

from systems import FAILED, MISSING, OK, Outcome, System


class Joblib(System):
    """`joblib.Parallel(n_jobs=N)`; its workers stay between calls."""

    def start(self, workers: int, **options: Any) -> None:
        self._workers = workers
        self.map(abs, list(range(workers * 4)), 1)

    def version(self) -> str:
        return f"joblib {joblib.__version__}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        parallel = joblib.Parallel(n_jobs=self._workers, batch_size=chunk or "auto")
        return list(parallel(joblib.delayed(function)(one) for one in arguments))

    def map_shared(self, function: Callable[[Any, Any], Any], shared: Any, arguments: list[Any]) -> list[Any]:
        # Arrays of a megabyte and more are dumped to a file once and mapped by the workers.
        parallel = joblib.Parallel(n_jobs=self._workers)
        return list(parallel(joblib.delayed(function)(shared, one) for one in arguments))

    def each(self, function: Callable[[Any], Any], arguments: list[Any], limit: float) -> list[Outcome]:
        """One call for all: there is no other way to ask."""
        outcomes: list[Outcome] = [(MISSING, "")] * len(arguments)

        def run() -> None:
            try:
                outcomes[:] = [(OK, value) for value in self.map(function, arguments, 1)]
            except BaseException as error:  # noqa: BLE001  whatever it raises is every task's outcome
                outcomes[:] = [(FAILED, f"the whole call: {type(error).__name__}: {error}")] * len(arguments)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(limit)
        return list(outcomes)

    def stop(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)
