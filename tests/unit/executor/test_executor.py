"""The executor's thread against a store in memory; the VM's part is played by the test."""

from __future__ import annotations

import functools
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import cloudpickle
import pytest

from tests.unit.agent.bench import Bench, Switch, outcome
from tests.unit.core.world import JOB, VM, results
from vmrun.client import Client
from vmrun.core.blocks import TaskBlock
from vmrun.core.clock import SystemClock
from vmrun.core.errors import BudgetError, JobCancelled, JobFailed, StoreUnavailable
from vmrun.core.ledger import JobLedger
from vmrun.core.model import Payload
from vmrun.core.records import Final
from vmrun.executor import LAST_LOOK, LOOKS_MAX, Executor
from vmrun.submit import functions
from vmrun.submit.publish import put_payload

PATIENCE = 90.0


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)  # noqa: TID251 - futures of another thread have no event to wait for


class FakeClient:
    """What an executor asks of a client."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        bench.clock = SystemClock()  # type: ignore[assignment]
        self.desk = bench.desk(blobs=bench.blobs)
        self.payloads = 0
        self.replaced = 0
        self.finished: list[str] = []
        self.refusal: Exception | None = None

    def submit_open(self, **options: object) -> str:
        self._bench.open_job()
        self._bench.vm()
        return JOB

    def polls(self) -> tuple[float, float]:
        return 0.001, 0.005

    def put_payload(self, data: bytes) -> Payload:
        self.payloads += 1
        return put_payload(self._bench.memory, data)

    def bring_up(self, job: str) -> str:
        if self.refusal is not None:
            raise self.refusal
        return VM

    def replace_lost(self, job: str) -> None:
        self.replaced += 1

    def finish(self, job: str) -> None:
        self.finished.append(job)


class Agent:
    """Ends calls when told to."""

    def __init__(self, bench: Bench) -> None:
        self.job = JobLedger(bench.desk(f"vm:{VM}"), JOB)

    def calls(self) -> int:
        return len(self.job.refresh().added)

    def end(self, shard: int) -> None:
        """Run the calls of one entry."""
        until(lambda: self.calls() > shard)
        plan = self.job.fold.added[shard]
        assert plan.function is not None
        assert plan.function.payload is not None
        block = TaskBlock.decode(self.job.attachment(plan.entry))
        values = [pickle.dumps(sum(pickle.loads(payload)[0])) for _, payload in block.items()]
        ledger = self.job.shard(plan)
        assert ledger.claim(VM)
        refs, inline = results(plan.first, *values)
        assert ledger.commit(VM, ledger.fold.epoch, refs, (), inline)

    def end_all(self, futures: list[Future[int]]) -> None:
        """Run calls, also those that are still on their way here, until all futures are done."""
        shard = 0

        def done() -> bool:
            nonlocal shard
            if self.calls() > shard:
                self.end(shard)
                shard += 1
            return all(future.done() for future in futures)

        until(done)


def add(*numbers: int) -> int:
    return sum(numbers)


@pytest.fixture
def pool(bench: Bench, client: FakeClient) -> Iterator[Executor]:
    made = Executor(client)  # type: ignore[arg-type]
    yield made
    made._break(JobFailed("the test is over"))
    made.shutdown()


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def bench(tmp_path: Path, switch: Switch) -> Bench:
    return Bench(tmp_path, switch)


@pytest.fixture
def client(bench: Bench) -> FakeClient:
    return FakeClient(bench)


@pytest.fixture
def agent(bench: Bench, pool: Executor) -> Agent:
    return Agent(bench)


def one_by_one(pool: Executor, agent: Agent, count: int) -> list[Future[int]]:
    """Calls that stand in an entry each."""
    futures = []
    for number in range(count):
        futures.append(pool.submit(add, number))
        until(lambda: agent.calls() == len(futures))
    return futures


def test_slow_calls_do_not_keep_others_from_being_answered(pool: Executor, agent: Agent) -> None:
    futures = one_by_one(pool, agent, LOOKS_MAX + 8)
    for number in range(LOOKS_MAX, LOOKS_MAX + 8):
        agent.end(number)
    assert [future.result(PATIENCE) for future in futures[LOOKS_MAX:]] == list(range(LOOKS_MAX, LOOKS_MAX + 8))
    assert not any(future.done() for future in futures[:LOOKS_MAX])


def test_an_outage_delays_calls_and_loses_none(pool: Executor, agent: Agent, switch: Switch) -> None:
    (before,) = one_by_one(pool, agent, 1)
    switch.down = True
    meanwhile = pool.submit(add, 7)
    # A look that began before the outage is over then
    until(lambda: pool._sending)
    agent.end(0)
    assert not before.done()
    switch.down = False
    assert before.result(PATIENCE) == 0
    agent.end(1)
    assert meanwhile.result(PATIENCE) == 7
    assert agent.calls() == 2


def test_when_the_job_is_cancelled_no_future_waits_for_ever(bench: Bench, pool: Executor, agent: Agent) -> None:
    # Given one call that is in, and one that is refused because the job was cancelled
    (inside,) = one_by_one(pool, agent, 1)
    JobLedger(bench.desk(), JOB).cancel("user")
    refused = pool.submit(add, 1)
    for future in (refused, inside):
        with pytest.raises(JobCancelled):
            future.result(PATIENCE)
    with pytest.raises(JobCancelled):
        pool.submit(add, 2)


def test_why_a_job_ended_is_told(bench: Bench, pool: Executor, agent: Agent) -> None:
    agent.job.refresh()
    assert agent.job.finish(Final("done", 0, 0, "no calls for 1800 s", "make a new Executor"))
    with pytest.raises(JobFailed, match="no calls for 1800 s") as caught:
        pool.submit(add, 1).result(PATIENCE)
    assert caught.value.hint == "make a new Executor"


def test_what_was_committed_before_the_end_is_handed_out(bench: Bench, pool: Executor, agent: Agent) -> None:
    first, second = one_by_one(pool, agent, 2)
    pool._receive = functools.partial(_nothing_until_final, pool, agent, pool._receive)  # type: ignore[method-assign]
    agent.end(0)
    assert agent.job.finish(Final("cancelled", 1, 0))
    assert first.result(PATIENCE) == 0
    with pytest.raises(JobCancelled):
        second.result(PATIENCE)


def _nothing_until_final(pool: Executor, agent: Agent, receive: Callable[[], bool], *_: float) -> bool:
    return receive() if pool._ledger.fold.final is not None else False


def test_what_was_committed_before_a_call_was_refused_is_handed_out(
    bench: Bench, pool: Executor, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = one_by_one(pool, agent, 2)
    # Given an outcome that was not looked for yet, of a job that was then cancelled
    receive = pool._receive
    monkeypatch.setattr(pool, "_receive", lambda *_: bool(pool._ledger.fold.cancelled_by) and receive())
    agent.end(0)
    JobLedger(bench.desk(), JOB).cancel("user")
    # When a further call meets its end first
    with pytest.raises(JobCancelled):
        pool.submit(add, 1).result(PATIENCE)
    assert first.result(PATIENCE) == 0
    with pytest.raises(JobCancelled):
        second.result(PATIENCE)


def test_what_was_committed_before_its_machine_was_given_up_is_handed_out(
    pool: Executor, agent: Agent, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = one_by_one(pool, agent, 2)

    def replace_lost(job: str) -> None:
        # Right before it was found to be lost, it committed its last outcome
        monkeypatch.setattr(pool, "_receive", lambda *_: pool._broken is not None and receive())
        agent.end(0)
        raise BudgetError("no money is left for another machine")

    receive = pool._receive
    monkeypatch.setattr(client, "replace_lost", replace_lost)
    monkeypatch.setattr("vmrun.executor.REPLACE_EVERY", 0.01)
    assert first.result(PATIENCE) == 0
    with pytest.raises(BudgetError):
        second.result(PATIENCE)


class Slow:
    """A clock by which a second passes whenever it is asked."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        self.time += 1.0
        return self.time


def test_a_last_look_in_a_slow_store_does_not_keep_the_job_from_being_cancelled(
    bench: Bench, pool: Executor, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    futures = one_by_one(pool, agent, LOOKS_MAX)
    looks: list[str] = []

    def receive_all(seconds: float) -> None:
        monkeypatch.setattr(pool, "_clock", Slow())
        for batch in pool._batches.values():
            refresh = batch.ledger.refresh
            monkeypatch.setattr(batch.ledger, "refresh", lambda refresh=refresh: looks.append("") or refresh())
        whole(seconds)

    whole = pool._receive_all
    monkeypatch.setattr(pool, "_receive_all", receive_all)
    pool._break(JobFailed("the program ended"))
    for future in futures:
        with pytest.raises(JobFailed, match="ended"):
            future.result(PATIENCE)
    assert 1 <= len(looks) <= LAST_LOOK
    until(lambda: agent.job.refresh().cancelled_by)


def test_a_vm_that_cannot_be_had_is_told_to_all(bench: Bench, client: FakeClient) -> None:
    client.refusal = JobFailed("no machine")
    with pytest.raises(JobFailed, match="no machine"), Executor(client) as pool:  # type: ignore[arg-type]
        pool.submit(add, 1).result(PATIENCE)
    assert client.finished == [JOB]


def test_a_lost_vm_is_looked_for(
    pool: Executor, agent: Agent, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrun.executor.REPLACE_EVERY", 0.01)
    one_by_one(pool, agent, 1)
    until(lambda: client.replaced >= 2)


def test_a_callback_that_ends_the_program_hangs_nobody(pool: Executor, agent: Agent) -> None:
    first, second = one_by_one(pool, agent, 2)

    def leave(_: object) -> None:
        raise SystemExit

    first.add_done_callback(leave)
    agent.end(0)
    with pytest.raises(JobFailed, match="callback"):
        second.result(PATIENCE)


def test_a_program_that_ends_cancels_what_still_runs(bench: Bench, pool: Executor, agent: Agent) -> None:
    (future,) = one_by_one(pool, agent, 1)
    pool._at_exit()
    assert future.exception(0) is not None
    assert agent.job.refresh().cancelled_by == "executor"
    assert agent.job.fold.closed


def test_no_call_slips_in_behind_a_shutdown(pool: Executor, agent: Agent) -> None:
    accepted: list[Future[int]] = []
    start = threading.Barrier(5)

    def caller() -> None:
        start.wait()
        for number in range(1000):
            try:
                accepted.append(pool.submit(add, number))
            except RuntimeError:
                return

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    pool.shutdown(wait=False)
    for thread in threads:
        thread.join()
    agent.end_all(accepted)
    assert pool._pump.join(PATIENCE) is None
    assert not pool._pump.is_alive()


def test_cancelled_futures_tell_those_who_wait(pool: Executor, agent: Agent) -> None:
    futures = [pool.submit(add, number) for number in range(50)]
    pool.shutdown(wait=False, cancel_futures=True)
    agent.end_all(futures)


# --- what a function is ---


def test_a_function_is_stored_once_and_again_when_it_means_something_else(pool: Executor, client: FakeClient) -> None:
    factor = 2

    def times(x: int) -> int:
        return factor * x

    first = pool._functions.spec(times)
    assert pool._functions.spec(times) is first
    assert client.payloads == 1
    factor = 3
    assert pool._functions.spec(times) != first
    assert client.payloads == 2


def test_an_object_that_is_called_is_taken_as_it_is_now(pool: Executor, bench: Bench) -> None:
    class Adder:
        def __init__(self) -> None:
            self.by = 1

        def __call__(self, x: int) -> int:
            return x + self.by

    adder = Adder()
    before = pool._functions.spec(adder)
    adder.by = 2
    after = pool._functions.spec(adder)
    assert before.payload is not None
    assert after.payload is not None
    assert before != after
    stored = cloudpickle.loads(bench.memory.get(f"payloads/{after.payload.sha256}"))
    assert stored(1) == 3


def test_functions_are_forgotten_in_turn(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "FUNCTIONS_MAX", 4)
    for number in range(10):
        pool._functions.spec(lambda x, number=number: x + number)
    assert len(pool._functions) == 4


def test_a_client_has_what_an_executor_asks_of_it() -> None:
    asked = {name for name in vars(FakeClient) if not name.startswith("_")}
    assert all(hasattr(Client, name) for name in asked)
    assert StoreUnavailable.retryable
    assert outcome(0).count == 1
