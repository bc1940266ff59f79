"""Processes with nothing around them: each takes the next number from a shared counter. What the machine itself allows.

No system that hands tasks out can do better, so what this one falls short of the ideal is the machine's and its
neighbours' part of it. It survives no failure, and everything is known to all before it starts.
"""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from systems import System


class Bare(System):
    """Forked processes, one pipe each."""

    def start(self, workers: int, **options: Any) -> None:
        context = multiprocessing.get_context("fork")
        self._next = context.Value("q", 0)
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=self._serve, args=(theirs,), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    def map(self, function: Callable[[Any], Any], arguments: list[Any], chunk: int) -> list[Any]:
        self._next.value = 0
        for pipe in self._pipes:
            pipe.send((function, arguments))
        results: list[Any] = [None] * len(arguments)
        for pipe in self._pipes:
            for number, result in pipe.recv():
                results[number] = result
        return results

    def _serve(self, pipe: Connection) -> None:
        while (work := pipe.recv()) is not None:
            function, arguments = work
            done = []
            while (number := self._take()) < len(arguments):
                done.append((number, function(arguments[number])))
            pipe.send(done)

    def _take(self) -> int:
        with self._next.get_lock():
            self._next.value += 1
            return int(self._next.value) - 1

    def stop(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()
