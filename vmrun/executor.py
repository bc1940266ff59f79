"""`vmrun.Executor`: a true `concurrent.futures.Executor` whose workers are the cores of a rented VM.

It is one open job: a thread of the client adds batches of calls to the job's journal and reads the outcomes from
its shards.
"""

from __future__ import annotations

import atexit
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import cloudpickle

from .chunked import call_each
from .core.blocks import TaskBlock, lengths_of
from .core.errors import (
    CapacityError,
    JobCancelled,
    JobFailed,
    StoreUnavailable,
    UsageError,
    VmrunError,
    failed_as_a_whole,
)
from .core.folds import Extent
from .core.ledger import JobLedger, ShardLedger
from .core.model import FunctionSpec
from .core.outcomes import Outcome, OutcomeReader
from .core.records import Entry
from .fleet.lookout import Again, may_pass, pause_of
from .submit.functions import StoredFunctions
from .watch.results import value_of

if TYPE_CHECKING:
    from .client import Client

P = ParamSpec("P")
T = TypeVar("T")

#: Calls, and bytes of their arguments, that one entry of the journal takes at most.
BATCH_CALLS, BATCH_BYTES = 10_000, 8 * 1024 * 1024
#: The same where several VMs share the calls: an entry is one VM's.
BATCH_SHARED = 32
#: Shards that are looked at in one round; the others have their turn in the next ones.
LOOKS_MAX = 32
#: Seconds between looks at whether the job has ended, and at whether its VM is still there, at most.
CHECK_EVERY, REPLACE_EVERY = 2.0, 15.0
#: Seconds that the store may be silent before all calls are given up, and between attempts meanwhile.
STORE_PATIENCE, STORE_PAUSE = 900.0, 1.0
#: Seconds that a last look for committed outcomes may take before the other calls are given up.
LAST_LOOK = 5.0
#: Seconds that the end of the program waits for the VM to be given back.
EXIT_PATIENCE = 30.0


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
    #: What was read of the shard's journal and not handed out yet.
    news: deque[tuple[Entry, list[Extent]]] = field(default_factory=deque)


class Executor(FuturesExecutor):
    """Calls functions on all cores of one VM, or of several with `vms=N`; the local machine by default.

    `options` are those of a submission: `on`, `cpus`, `memory`, `workers`, `with_packages`, … The VM is brought up
    in the background at once, and given back by `shutdown` (or at the end of the `with` block). `shared` is an object
    that is loaded once on that VM and that calls get from `vmrun.shared()`.
    """

    def __init__(self, client: Client | None = None, *, shared: object = None, **options: Any) -> None:
        if client is None:
            from .client import Client as OwnClient

            client = OwnClient()
        self._client = client
        self._clock = client.desk.clock
        self.job = client.submit_open(shared=shared, **options)
        self._poll_min, self._poll_max = client.polls()
        self._again = Again(self._clock)
        self._ledger = JobLedger(client.desk, self.job)
        self._queue: deque[_Call] = deque()
        #: Calls on their way into the journal; all of one function.
        self._sending: list[_Call] = []
        self._batches: dict[int, _Batch] = {}
        self._functions = StoredFunctions(client.put_payload)
        #: Around the queue, and what decides whether a call may still enter it.
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._closing = False
        self._broken: BaseException | None = None
        self._fleet = threading.Thread(target=self._bring_up, name="vmrun-fleet", daemon=True)
        self._pump = threading.Thread(target=self._run, name="vmrun-executor", daemon=True)
        self._abandon = weakref.WeakMethod(self._at_exit)
        atexit.register(_call_weakly, self._abandon)
        # Last: both may end, and look back on all of the above, before anything else is done here.
        self._fleet.start()
        self._pump.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn(*args, **kwargs)`. The arguments are pickled before this returns."""
        future: Future[T] = Future()
        with self._lock:
            self._refuse_if_ended()
        try:
            call = _Call(future, self._functions.spec(fn), cloudpickle.dumps((args, kwargs), protocol=5))
        except VmrunError:
            raise
        except Exception as error:  # noqa: BLE001 - pickling runs the user's code; the future carries what it raised
            future.set_exception(error)
            return future
        with self._lock:
            self._refuse_if_ended()
            self._queue.append(call)
        self._news.set()
        return future

    def _refuse_if_ended(self) -> None:
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._broken is not None:
            raise self._broken

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
                    future = self._queue.popleft().future
                    if future.cancel():
                        future.set_running_or_notify_cancel()
        self._news.set()
        if wait and threading.current_thread() is not self._pump:
            self._pump.join()
            self._fleet.join()

    def _bring_up(self, *, replace: bool = False) -> None:
        try:
            if replace:
                self._client.replace_lost(self.job)
                self._again.found()
            else:
                self._client.bring_up(self.job)
        except StoreUnavailable as error:
            if not replace:  # else it is looked at again
                self._break(error)
        except CapacityError as error:
            # Calls that wait may wait for what another search finds.
            if not (replace and may_pass(error) and self._again.missed()):
                self._break(error)
        except Exception as error:  # noqa: BLE001 - a thread's boundary: every waiting future gets the reason
            self._break(error)

    def _break(self, error: BaseException) -> None:
        with self._lock:
            self._broken = self._broken or error
        self._news.set()

    def _run(self) -> None:
        self._guard(self._work)
        if self._broken is not None:
            # What was committed before is handed out, whatever became of the machine or the job since.
            self._guard(lambda: self._receive_all(LAST_LOOK))
            self._fail(self._broken)
        self._end()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - a thread's boundary: every waiting future gets the reason
            self._break(error)
        except BaseException as error:  # noqa: BLE001 - a callback of a future may want to end the program
            self._break(JobFailed(f"a callback of a future ended the executor: {error!r}"))

    def _work(self) -> None:
        pause = self._poll_min
        checked = replaced = answered = self._clock.monotonic()
        while self._broken is None and not (self._closing and not self._waiting()):
            if not self._waiting():
                self._news.wait()
                answered = self._clock.monotonic()
            self._news.clear()
            try:
                progress = self._send()
                progress = self._receive() or progress
                if self._clock.monotonic() - checked > CHECK_EVERY:
                    checked = self._clock.monotonic()
                    self._check()
                pause = self._poll_min if progress else min(self._poll_max, pause * 1.3)
                answered = self._clock.monotonic()
            except StoreUnavailable:
                if self._clock.monotonic() - answered > STORE_PATIENCE:
                    raise
                pause = STORE_PAUSE
            if self._replaces(self._clock.monotonic() - replaced):
                replaced = self._clock.monotonic()
                self._fleet = threading.Thread(
                    target=self._bring_up, kwargs={"replace": True}, name="vmrun-fleet", daemon=True
                )
                self._fleet.start()
            if self._sending or (self._batches and not self._queue):
                self._news.wait(pause)

    def _replaces(self, seconds: float) -> bool:
        """Whether to see to the VM now, `seconds` after that was done before."""
        if not self._batches or self._fleet.is_alive() or not self._again.due:
            return False
        return seconds > min(REPLACE_EVERY, pause_of(self._ledger.fold.spec))

    def _waiting(self) -> bool:
        return bool(self._queue or self._sending or self._batches)

    def _send(self) -> bool:
        """Add the queued calls of one function to the job; whether there were any."""
        # After a failure the same calls again, until it is known that they are in: so they are in once.
        if not self._sending:
            self._gather()
        calls = self._sending
        if not calls:
            return False
        payloads = [call.payload for call in calls]

        def block(first: int) -> bytes:
            return TaskBlock(first, lengths_of(payloads), b"".join(payloads), "call").encode()

        plan = self._ledger.add(len(calls), calls[0].function, block)
        if plan is None:
            raise self._why_ended()
        ledger = self._ledger.shard(plan)
        reader = OutcomeReader(self._client.desk.store, self.job, ledger.prefix)
        futures = {plan.first + at: call.future for at, call in enumerate(calls)}
        self._batches[plan.shard] = _Batch(ledger, reader, futures)
        self._sending = []
        return True

    def _gather(self) -> None:
        size, most = 0, BATCH_CALLS if self._vms() <= 1 else BATCH_SHARED
        with self._lock:
            while self._queue and len(self._sending) < most and size < BATCH_BYTES:
                if self._sending and self._queue[0].function != self._sending[0].function:
                    break
                call = self._queue.popleft()
                if call.future.set_running_or_notify_cancel():
                    self._sending.append(call)
                    size += len(call.payload)

    def _vms(self) -> int:
        submit = self._ledger.read_submission()
        return submit.spec.vms if submit is not None else 1

    def _why_ended(self) -> VmrunError:
        final = self._ledger.fold.final
        if final is not None and final.error:
            return failed_as_a_whole(final.error, final.hint, final.code)
        return JobCancelled(f"job {self.job} takes no more calls: it was cancelled or has ended")

    def _receive(self, until: float = float("inf")) -> bool:
        """Hand out outcomes that appeared; whether there were any. No look begins after `until`, by the clock."""
        progress = False
        for shard in list(itertools.islice(self._batches, LOOKS_MAX)):
            if self._clock.monotonic() > until:
                break
            # To the end of the line, so that slow calls do not keep the others from being looked at.
            batch = self._batches[shard] = self._batches.pop(shard)
            batch.news.extend(batch.ledger.refresh())
            while batch.news:
                progress = self._hand_out(batch, *batch.news[0]) or progress
                batch.news.popleft()
            if not batch.futures:
                del self._batches[shard]
        return progress

    def _receive_all(self, seconds: float = float("inf")) -> None:
        """Look at every shard once, for so many seconds."""
        until = self._clock.monotonic() + seconds
        for _ in range(-(-len(self._batches) // LOOKS_MAX)):
            self._receive(until)

    def _hand_out(self, batch: _Batch, entry: Entry, extents: list[Extent]) -> bool:
        batch.reader.remember(entry.n, entry.attachment)
        for extent in extents:
            for outcome in batch.reader.outcomes(extent):
                future = batch.futures.pop(outcome.task, None)
                if future is not None:
                    _resolve(future, outcome)
        return bool(extents)

    def _check(self) -> None:
        if self._ledger.refresh().final is None:
            return
        # What was committed before the end is read before anything is given up.
        self._receive_all()
        if self._batches:
            raise self._why_ended()

    def _end(self) -> None:
        atexit.unregister(self._abandon)
        try:
            if self._broken is not None:
                # Nobody waits for what still runs.
                self._ledger.cancel("executor")
            self._ledger.close()
            self._fleet.join()
            self._client.finish(self.job)
        except VmrunError as error:
            self._broken = self._broken or error

    def _fail(self, error: BaseException) -> None:
        """Nothing more will come: every future learns why."""
        with self._lock:
            queued = list(self._queue)
            self._queue.clear()
        for call in queued:
            if call.future.set_running_or_notify_cancel():
                call.future.set_exception(error)
        for call in self._sending:
            call.future.set_exception(error)
        self._sending = []
        for batch in self._batches.values():
            for future in batch.futures.values():
                future.set_exception(error)
        self._batches.clear()

    def _at_exit(self) -> None:
        """The program ends without `shutdown`: nothing may stay behind that costs money."""
        self._break(UsageError("the program ended", hint="use the executor in a `with` block"))
        self._pump.join(timeout=EXIT_PATIENCE)


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
