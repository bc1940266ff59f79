"""`vmrun.HybridExecutor`: several executors as one, so that machines one has and machines one rents share the calls."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from .chunked import call_each
from .core.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Member:
    executor: FuturesExecutor
    share: float
    #: Calls that it was given and has not ended.
    waiting: int = 0


class HybridExecutor(FuturesExecutor):
    """Gives each call to the executor that has the fewest waiting, measured by its share.

    So calls that are submitted at once are split by the shares, and later ones go where others ended. The futures are
    the executors' own. They are shut down with this one; a call stays with the executor that it was given to.
    """

    def __init__(self, *executors: FuturesExecutor, shares: Sequence[float] | None = None) -> None:
        """`shares` is a positive number for each executor, by default the same: how much of the calls it gets.

        Raises UsageError without executors, for one that is there twice, or for shares that do not fit them.
        """
        if not executors or len(set(map(id, executors))) < len(executors):
            raise UsageError(
                "vmrun.HybridExecutor: expected executors, each once",
                hint='such as vmrun.HybridExecutor(vmrun.Executor(on="ssh"), vmrun.Executor(on="ec2"))',
            )
        given = [1.0] * len(executors) if shares is None else [float(share) for share in shares]
        if len(given) != len(executors) or not all(0 < share < float("inf") for share in given):
            raise UsageError(
                f"vmrun.HybridExecutor: shares: expected {len(executors)} positive numbers, found {shares!r:.80}",
                hint="one for each executor, in their order: shares=(1, 3)",
            )
        self._members = [_Member(executor, share) for executor, share in zip(executors, given, strict=True)]
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn(*args, **kwargs)` on one of the executors. Raises what that one raises."""
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            member = min(self._members, key=lambda each: (each.waiting + 1) / each.share)
            member.waiting += 1
        try:
            future = member.executor.submit(fn, *args, **kwargs)
        except BaseException:
            self._ended(member)
            raise
        future.add_done_callback(lambda _: self._ended(member))
        return future

    def _ended(self, member: _Member) -> None:
        with self._lock:
            member.waiting -= 1

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As `concurrent.futures`: all results, in the order of the inputs, wherever they were worked on."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
        parts: Iterator[list[T]] = super().map(call_each, itertools.repeat(fn), chunks, timeout=timeout)
        return itertools.chain.from_iterable(parts)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, finish (or cancel) those there are, give all machines back."""
        with self._lock:
            self._closed = True
        # All begin to end before one is waited for.
        for member in self._members:
            member.executor.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            for member in self._members:
                member.executor.shutdown(wait=True)
