"""`vmrun.Executor`: a true `concurrent.futures.Executor` whose workers are the cores of a rented VM.

It is one open job: a thread of the client adds batches of calls to the job's journal and reads the outcomes from
its shards.
"""

from __future__ import annotations

import atexit
import itertools
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import cloudpickle

from .chunked import call_each
from .core.blocks import TaskBlock, lengths_of
from .core.errors import JobCancelled, JobFailed, StoreUnavailable, UsageError, VmrunError
from .core.ledger import JobLedger, ShardLedger
from .core.model import FunctionSpec
from .core.outcomes import Outcome, OutcomeReader
from .watch.results import value_of

if TYPE_CHECKING:
    from .client import Client

P = ParamSpec("P")
T = TypeVar("T")

#: Calls, and bytes of their arguments, that one entry of the journal takes at most.
BATCH_CALLS, BATCH_BYTES = 10_000, 8 * 1024 * 1024
#: Functions whose pickles are remembered.
FUNCTIONS_MAX = 256
#: Shards that are looked at in one round.
LOOKS_MAX = 32
#: Seconds between looks at whether the job or its VM has ended.
CHECK_EVERY = 2.0


@dataclass(slots=True)
class _Call:
    future: Future[Any]
    function: FunctionSpec
    payload: bytes


@dataclass(slots=True)
class _Batch:
    """Calls that went out in one entry."""

    ledger: ShardLedger
    reader: OutcomeReader
    futures: dict[int, Future[Any]]


class Executor(FuturesExecutor):
    """Calls functions on all cores of one VM; the local machine by default.

    `options` are those of a submission: `on`, `cpus`, `memory`, `workers`, `with_packages`, … The VM is brought up
    in the background at once, and given back by `shutdown` (or at the end of the `with` block).
    """

    def __init__(self, client: Client | None = None, **options: Any) -> None:
        if client is None:
            from .client import Client as OwnClient

            client = OwnClient()
        self._client = client
        self._clock = client.desk.clock
        self.job = client.submit_open(**options)
        self._poll_min, self._poll_max = client.polls(self.job)
        self._ledger = JobLedger(client.desk, self.job)
        self._queue: deque[_Call] = deque()
        self._batches: dict[int, _Batch] = {}
        self._functions: OrderedDict[int, tuple[Callable[..., Any], FunctionSpec]] = OrderedDict()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._closing = False
        self._broken: BaseException | None = None
        self._fleet = threading.Thread(target=self._bring_up, name="vmrun-fleet", daemon=True)
        self._pump = threading.Thread(target=self._run, name="vmrun-executor", daemon=True)
        self._fleet.start()
        self._pump.start()
        self._abandon = weakref.WeakMethod(self._at_exit)
        atexit.register(_call_weakly, self._abandon)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn(*args, **kwargs)`. The arguments are pickled before this returns."""
        future: Future[T] = Future()
        with self._lock:
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._broken is not None:
                raise self._broken
        try:
            call = _Call(future, self._function(fn), cloudpickle.dumps((args, kwargs), protocol=5))
        except VmrunError:
            raise
        except Exception as error:  # noqa: BLE001 - pickling runs the user's code; the future carries what it raised
            future.set_exception(error)
            return future
        self._queue.append(call)
        self._news.set()
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As `concurrent.futures`. No `chunksize` is needed for speed; a larger one makes that many calls one task."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
        parts: Iterator[list[T]] = super().map(call_each, itertools.repeat(fn), chunks, timeout=timeout)
        return itertools.chain.from_iterable(parts)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, finish (or cancel) those there are, give the VM back."""
        with self._lock:
            self._closing = True
            if cancel_futures:
                while self._queue:
                    self._queue.popleft().future.cancel()
        self._news.set()
        if wait:
            self._pump.join()
            self._fleet.join()

    def _function(self, fn: Callable[..., Any]) -> FunctionSpec:
        with self._lock:
            known = self._functions.get(id(fn))
        if known is not None and known[0] is fn:
            return known[1]
        data = cloudpickle.dumps(fn, protocol=5)
        spec = FunctionSpec("pickle", payload=self._client.put_payload(data))
        with self._lock:
            self._functions[id(fn)] = (fn, spec)
            while len(self._functions) > FUNCTIONS_MAX:
                self._functions.popitem(last=False)
        return spec

    def _bring_up(self) -> None:
        try:
            self._client.bring_up(self.job)
        except Exception as error:  # noqa: BLE001 - a thread's boundary: every waiting future gets the reason
            self._broken = error
            self._news.set()

    def _run(self) -> None:
        pause, checked = self._poll_min, self._clock.monotonic()
        try:
            while self._broken is None and not (self._closing and not self._queue and not self._batches):
                if not self._queue and not self._batches:
                    self._news.wait()
                self._news.clear()
                progress = self._send()
                progress = self._receive() or progress
                pause = self._poll_min if progress else min(self._poll_max, pause * 1.3)
                if self._clock.monotonic() - checked > CHECK_EVERY:
                    checked = self._clock.monotonic()
                    self._check()
                if self._batches and not self._queue:
                    self._news.wait(pause)
        except Exception as error:  # noqa: BLE001 - a thread's boundary: every waiting future gets the reason
            self._broken = error
        if self._broken is not None:
            self._fail(self._broken)
        self._end()

    def _send(self) -> bool:
        """Add the queued calls of one function to the job; whether there were any."""
        calls: list[_Call] = []
        size = 0
        while self._queue and len(calls) < BATCH_CALLS and size < BATCH_BYTES:
            if calls and self._queue[0].function is not calls[0].function:
                break
            call = self._queue.popleft()
            if call.future.set_running_or_notify_cancel():
                calls.append(call)
                size += len(call.payload)
        if not calls:
            return False
        payloads = [call.payload for call in calls]

        def block(first: int) -> bytes:
            return TaskBlock(first, lengths_of(payloads), b"".join(payloads), "call").encode()

        plan = self._ledger.add(len(calls), calls[0].function, block)
        if plan is None:
            raise JobCancelled(f"job {self.job} takes no more calls: it was cancelled or has ended")
        ledger = ShardLedger(self._client.desk, self.job, plan)
        reader = OutcomeReader(self._client.desk.store, self.job, ledger.prefix)
        futures = {plan.first + at: call.future for at, call in enumerate(calls)}
        self._batches[plan.shard] = _Batch(ledger, reader, futures)
        return True

    def _receive(self) -> bool:
        """Hand out outcomes that appeared; whether there were any."""
        progress = False
        for shard, batch in list(itertools.islice(self._batches.items(), LOOKS_MAX)):
            try:
                news = batch.ledger.refresh()
            except StoreUnavailable:
                return progress
            for entry, extents in news:
                batch.reader.remember(entry.n, entry.attachment)
                for extent in extents:
                    for outcome in batch.reader.outcomes(extent):
                        _resolve(batch.futures.pop(outcome.task), outcome)
                        progress = True
            if not batch.futures:
                del self._batches[shard]
        return progress

    def _check(self) -> None:
        fold = self._ledger.refresh()
        if fold.final is not None and self._batches:
            raise JobFailed(fold.final.error or f"job {self.job} was {fold.final.outcome}", hint=fold.final.hint)

    def _end(self) -> None:
        atexit.unregister(self._abandon)
        try:
            self._ledger.close()
            self._fleet.join()
            self._client.finish(self.job)
        except VmrunError as error:
            self._broken = self._broken or error

    def _fail(self, error: BaseException) -> None:
        """Nothing more will come: every future learns why."""
        while self._queue:
            future = self._queue.popleft().future
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        for batch in self._batches.values():
            for future in batch.futures.values():
                future.set_exception(error)
        self._batches.clear()

    def _at_exit(self) -> None:
        """The program ends without `shutdown`: nothing may stay behind that costs money."""
        self._broken = UsageError("the program ended", hint="use the executor in a `with` block")
        self._news.set()
        self._pump.join(timeout=30)


def _resolve(future: Future[Any], outcome: Outcome) -> None:
    try:
        result = value_of(outcome)
    except BaseException as error:  # noqa: BLE001 - the user's own exception, on its way to whoever waits for it
        future.set_exception(error)
    else:
        future.set_result(result)


def _call_weakly(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    target = method()
    if target is not None:
        target()
