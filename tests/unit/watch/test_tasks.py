"""From journals to the records of tasks, and to what they come to."""

from __future__ import annotations

import pickle
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent.bench import Bench, FakeEngine, Switch, engine, files_of
from tests.unit.core.world import JOB, OTHER_VM, VM
from vmrun.agent.commit import Batch
from vmrun.bundle.arguments import pack_arguments
from vmrun.core import codec, keys
from vmrun.core.blocks import ResultBlock, Status, failure, lengths_of
from vmrun.core.errors import Corrupt, UsageError
from vmrun.core.ledger import JobLedger, ShardLedger
from vmrun.core.model import Arguments, JobState
from vmrun.core.outcomes import HEAD_FROM
from vmrun.core.records import CrewFacts, Download, Final, Traffic
from vmrun.core.task_views import JobStats, TaskRecord
from vmrun.store.counting import CountingStore
from vmrun.submit.publish import put_payload
from vmrun.watch.measures import facts_of
from vmrun.watch.observe import JobObserver
from vmrun.watch.stats import read_stats, spread
from vmrun.watch.stretches import Downloads, StretchReader
from vmrun.watch.tasks import TaskReader
from vmrun.watch.timeline import read_timeline

__all__ = ["engine"]

#: When the first task starts.
BEGAN = 1_700_000_100.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Switch())


def block(
    first: int,
    count: int = 1,
    status: Status = Status.ok,
    *,
    payload: bytes = b"",
    started: float = BEGAN,
    seconds: float = 0.5,
    **facts: Any,
) -> ResultBlock:
    """Outcomes of neighbouring tasks, one after the other."""
    if not payload:
        payload = pickle.dumps(first) if status is Status.ok else failure(status, "no", type_name="Odd", code=3)
    return ResultBlock(
        first,
        bytes([status]) * count,
        lengths_of([payload]) * count,
        payload * count,
        array("d", [started + at * seconds if started else 0.0 for at in range(count)]),
        array("f", [seconds] * count),
        facts={"worker": 0, "pid": 7, "attempt": 0, "tasks": count, **facts},
    )


class Vm:
    """A VM that works for the job."""

    def __init__(self, bench: Bench, vm: str = VM, workers: int = 2) -> None:
        self.bench, self.name = bench, vm
        self.crew = CrewFacts(workers, 4, 2)
        bench.vm(vm)
        self.job = JobLedger(bench.desk(f"vm:{vm}", bench.blobs), JOB)

    def take(self, shard: int = 0, from_owner: str | None = None) -> Batch:
        ledger: ShardLedger = self.job.shard(list(self.job.refresh().shards())[shard])
        assert ledger.claim(self.name, from_owner=from_owner, crew=self.crew)
        return Batch(self.bench.blobs, JOB, ledger, self.name, clock=self.bench.clock)

    def commit(self, *blocks: ResultBlock, shard: int = 0) -> None:
        batch = self.take(shard)
        for each in blocks:
            batch.add(each)
        self.bench.clock.time += 10
        batch.commit()


def records(bench: Bench) -> list[TaskRecord]:
    return list(TaskReader(bench.desk(), JOB).records())


def stats(bench: Bench) -> JobStats:
    return read_stats(bench.desk(), JobObserver(bench.desk(), JOB).look())


# --- one task ---


def test_a_record_has_all_that_the_journals_tell(bench: Bench) -> None:
    submitted = bench.clock.now()
    bench.submit(1, 1, kind="map")
    vm = Vm(bench)
    bench.clock.time += 5
    batch = vm.take()
    batch.add_traffic(Traffic((Download(0, 1, 0.25),), sent=10, received=20))
    files = files_of(bench, 0, "four", attempt=2)
    batch.add_files(0, 2, files.path)
    facts = {"cpu_seconds": 0.4, "system_seconds": 0.1, "peak_bytes": 1000, "rss_bytes": 900, "shared_bytes": 90}
    facts |= {"private_bytes": 700, "start_bytes": 600, "sent_bytes": 11, "received_bytes": 22}
    batch.add(block(0, attempt=2, worker=1, cold=0, virtual_bytes=5000, **facts))
    bench.clock.time += 10
    assert batch.commit()
    (record,) = records(bench)
    assert record == TaskRecord(
        job=JOB,
        name="a job",
        task=0,
        reduce=False,
        kind="ok",
        type="",
        message="",
        exit=None,
        attempt=2,
        queued=submitted,
        claimed=submitted + 5,
        started=BEGAN,
        ended=BEGAN + 0.5,
        committed=submitted + 15,
        seconds=0.5,
        load_seconds=None,
        keep_seconds=None,
        download_seconds=0.25,
        upload_seconds=0.0,
        cpu_seconds=0.4,
        user_seconds=pytest.approx(0.3),  # type: ignore[arg-type]
        system_seconds=0.1,
        peak_bytes=1000,
        rss_bytes=900,
        shared_bytes=90,
        virtual_bytes=5000,
        private_bytes=700,
        start_bytes=600,
        sent_bytes=11,
        received_bytes=22,
        argument_bytes=None,
        result_bytes=len(pickle.dumps(0)),
        file_bytes=4,
        vm=VM,
        worker=1,
        pid=7,
        cold=True,
        python=record.python,
        measured_with=1,
    )
    assert record.cpu_usage == pytest.approx(0.8)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.ok])
def test_a_failure_has_its_kind_and_its_reason_and_no_result(bench: Bench, status: Status) -> None:
    bench.submit(2, 2)
    Vm(bench).commit(block(0), block(1, status=status))
    ok, failed = records(bench)
    assert (ok.kind, ok.type, ok.message, ok.exit) == ("ok", "", "", None)
    assert (failed.kind, failed.type, failed.message, failed.exit) == (status.name, "Odd", "no", 3)
    assert ok.result_bytes > 0
    assert failed.result_bytes == 0


def test_a_task_that_never_began_has_no_times(bench: Bench) -> None:
    bench.submit(3, 3)
    Vm(bench).commit(block(0), block(1, 2, Status.cancelled, started=0.0, seconds=0.0))
    _, *cancelled = records(bench)
    assert [(record.started, record.ended, record.cpu_usage) for record in cancelled] == [(None, None, None)] * 2
    found = stats(bench)
    assert (found.ended, found.kinds, found.failed) == (3, {"ok": 1, "cancelled": 2}, 2)
    assert found.seconds.least == found.seconds.most == 0.5, "those that did not begin took no time"
    assert (found.started, found.span) == (BEGAN, 0.5)
    assert len(read_timeline(bench.desk(), JobObserver(bench.desk(), JOB).look())) == 1


def test_figures_of_short_tasks_are_shared_out_also_when_their_block_was_cut(bench: Bench) -> None:
    bench.submit(10, 10)
    whole = block(0, 10, seconds=0.001, cpu_seconds=0.02, system_seconds=0.01, peak_bytes=99)
    # A retry in the middle cut the block in two, whose facts are those of the whole.
    Vm(bench).commit(whole.slice(0, 4), block(4, attempt=1, cpu_seconds=0.5), whole.slice(5, 5))
    found = {record.task: record for record in records(bench)}
    assert found[0].cpu_seconds == found[9].cpu_seconds == pytest.approx(0.002)
    assert found[0].user_seconds == pytest.approx(0.001)
    assert found[9].peak_bytes == 99
    assert [found[task].measured_with for task in (0, 4, 9)] == [10, 1, 10]
    assert found[4].cpu_seconds == 0.5
    assert stats(bench).cpu_seconds == pytest.approx(0.02 * 9 / 10 + 0.5)
    assert stats(bench).retries == 1


def test_long_tasks_have_figures_of_their_own_and_short_ones_share_the_rest(bench: Bench) -> None:
    bench.submit(4, 4)
    mixed = block(
        0,
        4,
        cpu_seconds=1.0,
        user_seconds=0.75,
        system_seconds=0.25,
        short_tasks=2,
        short_seconds=0.2,
        peak_bytes=900_000,
    )
    mixed.cpu, mixed.peak = array("f", [0.0, 0.5, 0.0, 0.3]), array("I", [0, 700, 0, 800])
    mixed.load, mixed.keep = array("f", [0.0, 0.125, 0.0, 0.0]), array("f", [0.0, 0.25, 0.0, 0.0])
    Vm(bench).commit(mixed)
    found = records(bench)
    assert [record.cpu_seconds for record in found] == pytest.approx([0.1, 0.5, 0.1, 0.3])
    assert [record.system_seconds for record in found] == pytest.approx([0.025, 0.125, 0.025, 0.075])
    assert [record.user_seconds for record in found] == pytest.approx([0.075, 0.375, 0.075, 0.225])
    assert [record.peak_bytes for record in found] == [900_000, 700 * 1024, 900_000, 800 * 1024]
    assert [record.load_seconds for record in found] == [None, 0.125, None, 0.0]
    assert [record.keep_seconds for record in found] == [None, 0.25, None, 0.0]
    total = stats(bench)
    assert (total.cpu_seconds, total.system_seconds) == (pytest.approx(1.0), pytest.approx(0.25))
    assert total.peak_bytes == 900_000


def test_a_long_task_that_used_no_cpu_used_none(bench: Bench) -> None:
    bench.submit(1, 1)
    slept = block(0, cpu_seconds=0.0, system_seconds=0.0, short_tasks=0, short_seconds=0.0, peak_bytes=1024)
    slept.peak = array("I", [1])
    Vm(bench).commit(slept)
    (record,) = records(bench)
    assert (record.cpu_seconds, record.user_seconds, record.cpu_usage) == (0.0, 0.0, 0.0)


def test_tasks_that_followed_on_each_other_have_times_of_their_own(bench: Bench) -> None:
    bench.submit(4, 4)
    sprint = block(0, 4)
    sprint.started, sprint.seconds = array("d"), array("f")
    sprint.ended, sprint.began, sprint.epoch = array("d", [10.5, 11.0, 11.25, 13.25]), 10.0, BEGAN - 10
    Vm(bench).commit(sprint.slice(1, 3))
    found = records(bench)
    assert [record.started for record in found] == [BEGAN + 0.5, BEGAN + 1, BEGAN + 1.25]
    assert [record.seconds for record in found] == [0.5, 0.25, 2.0]
    assert (stats(bench).span, stats(bench).last_ended) == (2.75, BEGAN + 3.25)
    assert list(read_timeline(bench.desk(), JobObserver(bench.desk(), JOB).look()).seconds) == [0.5, 0.25, 2.0]


def test_numbers_take_eight_bytes_and_none_takes_none(bench: Bench, tmp_path: Path) -> None:
    with_arguments(bench, tmp_path, [1, 2, 3, 4])
    plain = block(0, 4)
    plain.lengths, plain.payload = array("Q", [0, 0, 3, 0]), b"abc"
    plain.forms, plain.values = bytes([1, 2, 0, 0]), array("q", [7, 8, 0, 0])
    Vm(bench).commit(plain)
    assert [record.result_bytes for record in records(bench)] == [8, 8, 3, 0]
    assert [record.argument_bytes for record in records(bench)] == [8] * 4
    assert stats(bench).result_bytes == 19


def test_the_reduce_is_a_task_of_its_own(bench: Bench) -> None:
    bench.submit(2, 2, kind="map", reduce=True)
    vm = Vm(bench)
    vm.commit(block(0, 2))
    vm.commit(block(2, worker=1), shard=1)
    assert [(record.task, record.reduce) for record in records(bench)] == [(0, False), (1, False), (2, True)]


def test_a_call_of_an_executor_was_queued_when_it_was_added(bench: Bench) -> None:
    ledger, function = bench.open_job()
    submitted = bench.clock.now()
    for _ in range(2):
        bench.clock.time += 60
        assert ledger.add(1, function, lambda first: b"not a block") is not None
    vm = Vm(bench)
    vm.commit(block(0), shard=0)
    vm.commit(block(1), shard=1)
    assert [record.queued - submitted for record in records(bench)] == [60, 120]
    assert [record.argument_bytes for record in records(bench)] == [None, None]


# --- several VMs ---


def test_of_two_outcomes_the_record_is_that_of_the_one_that_counts(bench: Bench) -> None:
    bench.submit(4, 4)
    first, second = Vm(bench, workers=2), Vm(bench, OTHER_VM, workers=3)
    lost = first.take()
    lost.add(block(0, 2, worker=0))
    assert lost.commit()
    taken = second.take(from_owner=VM)
    taken.add(block(1, 3, worker=2, started=BEGAN + 100))
    assert taken.commit()
    lost.add(block(2, 2, worker=1))
    lost.commit()
    found = sorted(records(bench), key=lambda record: record.task)
    assert [(record.task, record.vm, record.worker) for record in found] == [
        (0, VM, 0),
        (1, VM, 0),
        (2, OTHER_VM, 2),
        (3, OTHER_VM, 2),
    ]
    total = stats(bench)
    assert total.ended == 4
    assert total.workers == 5
    assert [(each.vm, each.tasks, each.workers) for each in total.per_vm] == [(VM, 2, 2), (OTHER_VM, 2, 3)]
    assert [(each.vm, each.worker, each.tasks) for each in total.per_worker] == [(VM, 0, 2), (OTHER_VM, 2, 2)]


def test_a_vm_that_did_nothing_does_not_count_as_workers(bench: Bench) -> None:
    bench.submit(4, 2)
    idle, busy = Vm(bench, workers=64), Vm(bench, OTHER_VM, workers=2)
    idle.take(0)
    busy.commit(block(2, 2), shard=1)
    assert stats(bench).workers == 2


def test_journals_of_earlier_versions_have_records_too(bench: Bench) -> None:
    bench.submit(2, 2)
    vm = Vm(bench)
    vm.crew = CrewFacts()
    old = block(0, 2)
    old.facts = {"worker": 3, "pid": 7, "attempt": 0, "cpu_seconds": 0.6, "peak_bytes": 5}
    vm.commit(old)
    entry = bench.memory.get(keys.entry(keys.shard_journal(JOB, 0), 0)).split(b"\n")[0]
    assert codec.parse(entry)["data"] == {"vm": VM}, "an entry as it always was"
    found = records(bench)
    assert [record.cpu_seconds for record in found] == [pytest.approx(0.3)] * 2
    assert [record.measured_with for record in found] == [2, 2]
    assert stats(bench).workers == 1


# --- sizes and times on the way ---


def with_arguments(bench: Bench, tmp_path: Path, items: list[Any]) -> None:
    packed = pack_arguments(items, tmp_path)
    data = put_payload(bench.memory, packed.path.read_bytes())
    index = put_payload(bench.memory, packed.index)
    bench.submit(len(items), len(items), kind="map", arguments=Arguments(data, index))


def test_arguments_have_their_sizes_large_ones_without_being_fetched(bench: Bench, tmp_path: Path) -> None:
    items: list[Any] = ["x" * at for at in range(100)] + [b"y" * 3_000_000] + ["z"] * 10
    with_arguments(bench, tmp_path, items)
    Vm(bench).commit(*(block(at) for at in range(len(items))))
    store = CountingStore(bench.memory)
    found = list(TaskReader(bench.desk(blobs=store), JOB).records())
    assert [record.argument_bytes for record in found] == [len(pickle.dumps(item, 5)) for item in items]
    assert store.bytes["get"] < 1_000_000


def test_arguments_that_are_gone_or_damaged_have_no_size(bench: Bench, tmp_path: Path) -> None:
    with_arguments(bench, tmp_path, ["a", "b"])
    Vm(bench).commit(block(0, 2))
    spec = bench.job().spec
    assert spec.arguments is not None
    key = keys.payload(spec.arguments.data.sha256)
    data = bench.memory.get(key)
    bench.memory.delete(key)
    assert [record.argument_bytes for record in records(bench)] == [None, None]
    bench.memory.create(key, data[:-1] + b"?")
    assert [record.argument_bytes for record in records(bench)] == [None, None]
    bench.memory.delete(keys.payload(spec.arguments.index.sha256))
    assert [record.argument_bytes for record in records(bench)] == [None, None]


def test_large_results_are_measured_without_being_fetched(bench: Bench) -> None:
    bench.submit(6, 6)
    vm = Vm(bench)
    batch = vm.take()
    path = bench.folder / "large"
    path.write_bytes(block(0, payload=b"r" * 5_000_000, worker=1).encode())
    batch.add_large(0, str(path))
    batch.add(block(1, 4, payload=b"s" * 700_000))
    batch.add(block(5))
    assert batch.commit()
    store = CountingStore(bench.memory)
    found = sorted(TaskReader(bench.desk(blobs=store), JOB).records(), key=lambda record: record.task)
    small = len(pickle.dumps(5))
    assert [record.result_bytes for record in found] == [5_000_000, *[700_000] * 4, small]
    assert found[0].worker == 1
    assert store.bytes["get"] < 100_000


def test_a_block_with_a_failure_is_fetched_whole_for_its_reason(bench: Bench) -> None:
    bench.submit(3, 3)
    mixed = block(0, 3, payload=b"s" * HEAD_FROM)
    told = failure(Status.raised, "odd one", type_name="ValueError")
    mixed.status = bytes([0, Status.raised, 0])
    mixed.lengths[1] = len(told)
    mixed.payload = b"s" * HEAD_FROM + told + b"s" * HEAD_FROM
    Vm(bench).commit(mixed)
    assert [(record.kind, record.message) for record in records(bench)] == [
        ("ok", ""),
        ("raised", "odd one"),
        ("ok", ""),
    ]


@pytest.mark.parametrize("payload", [b"r" * 1000, b"r" * 200_000, b"r" * 400_000], ids=["inline", "segment", "head"])
@pytest.mark.parametrize("damage", [0, 40, -60])
def test_what_is_read_is_what_was_signed(bench: Bench, payload: bytes, damage: int) -> None:
    """In an entry, in a segment, and in the part of a segment that is read alone."""
    bench.submit(1, 1)
    Vm(bench).commit(block(0, payload=payload))
    segments = list(bench.memory.list(keys.segment(JOB, "")))
    key = segments[0].key if segments else keys.entry(keys.shard_journal(JOB, 0), 1)
    data = bytearray(bench.memory.get(key))
    head = len(data) - len(payload)
    at = damage if damage >= 0 else head + damage
    data[at] ^= 1
    bench.memory.delete(key)
    bench.memory.create(key, bytes(data))
    with pytest.raises(Corrupt):
        records(bench)


def test_a_head_that_the_jobs_process_made_wrong_is_read_whole(bench: Bench) -> None:
    bench.submit(1, 1)
    batch = Vm(bench).take()
    path = bench.folder / "large"
    path.write_bytes(b"not a block" * 50_000)
    batch.add_large(0, str(path))
    batch.commit()
    with pytest.raises(Corrupt, match="tasks 0-0"):
        records(bench)


def test_uploads_and_network_are_counted_once_for_all_that_went_together(bench: Bench) -> None:
    bench.submit(5, 5)
    vm = Vm(bench)
    batch = vm.take()
    slow = SlowWrites(bench, 2.0)
    batch._blobs = slow
    batch.add(block(0, 3, payload=b"r" * 100_000))
    batch.add(block(3, payload=b"q" * 100_000))
    batch.add_files(3, 0, files_of(bench, 3, "x", attempt=0).path)
    batch.add_traffic(Traffic((Download(0, 5, 1.0),), sent=7, received=70))
    assert batch.commit()
    batch.add_traffic(Traffic(sent=1, received=2))
    batch.add(block(4))
    assert batch.commit()
    found = records(bench)
    assert [record.upload_seconds for record in found] == [2.0, 2.0, 2.0, 4.0, 0.0]
    assert [record.download_seconds for record in found] == [1.0] * 5
    (totals,) = stats(bench).per_vm
    assert (totals.upload_seconds, totals.download_seconds) == (4.0, 1.0)
    assert (totals.sent_bytes, totals.received_bytes) == (8, 72)


class SlowWrites:
    """A store whose writes take a while."""

    def __init__(self, bench: Bench, seconds: float) -> None:
        self._bench, self._seconds = bench, seconds

    def write(self, key: str, pieces: Any) -> None:
        self._bench.clock.time += self._seconds
        self._bench.memory.write(key, pieces)


def test_traffic_of_a_commit_that_failed_goes_with_the_next(bench: Bench) -> None:
    bench.submit(2, 2)
    batch = Vm(bench).take()
    batch.add(block(0))
    batch.add_traffic(Traffic(sent=5))
    real, batch.ledger.commit = batch.ledger.commit, refuse  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        batch.commit()
    batch.ledger.commit = real  # type: ignore[method-assign]
    batch.add_traffic(Traffic(sent=6))
    batch.commit()
    batch.add(block(1))
    batch.commit()
    assert stats(bench).per_vm[0].sent_bytes == 11


def refuse(*args: Any, **options: Any) -> bool:
    raise ConnectionError


def test_downloads_find_the_piece_of_each_task() -> None:
    downloads = Downloads()
    assert list(downloads.seconds(0, 2)) == [0.0, 0.0]
    for first, count, seconds in ((10, 5, 0.2), (0, 4, 0.1), (20, 1, 0.3), (10, 2, 0.4)):
        downloads.add(Download(first, count, seconds))
    assert list(downloads.seconds(2, 22)) == [0.1] * 2 + [0.0] * 6 + [0.4] * 2 + [0.0] * 8 + [0.3, 0.0]


# --- the agent itself ---


def test_what_the_agent_writes_is_read_back(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(12, 4, workers=3)
    bench.vm()
    bench.run()
    found = records(bench)
    assert sorted(record.task for record in found) == list(range(12))
    assert all(record.claimed is not None and record.queued <= record.claimed <= record.committed for record in found)
    view = JobObserver(bench.desk(), JOB).look()
    assert view.workers == 3
    assert view.cores >= 1
    assert view.threads == max(1, view.cores // 3)
    assert stats(bench).per_vm[0].workers == 3


def test_a_job_that_sets_the_threads_itself_is_not_told_otherwise(bench: Bench, engine: type[FakeEngine]) -> None:
    bench.submit(2, 2, env={"OMP_NUM_THREADS": "4"})
    bench.vm()
    bench.run()
    view = JobObserver(bench.desk(), JOB).look()
    assert (view.workers, view.threads) == (2, 0)


# --- whatever a task made of its facts ---


@pytest.mark.parametrize(
    "value",
    [None, True, "7", -1, 1.5, float("nan"), float("inf"), 10**400, [1], {"a": 1}],
    ids=lambda value: str(value)[:8],
)
def test_facts_are_taken_only_as_what_they_should_be(value: Any) -> None:
    names = (
        *("tasks", "worker", "pid", "attempt", "cold", "peak_bytes", "rss_bytes", "shared_bytes", "virtual_bytes"),
        *("private_bytes", "start_bytes", "sent_bytes", "received_bytes"),
    )
    told = facts_of(block(0, 2, **dict.fromkeys(names, value), cpu_seconds=value, system_seconds=value))
    assert told.tasks == 2
    assert (told.worker, told.pid, told.peak, told.rss, told.shared, told.virtual) == (None,) * 6
    assert (told.private, told.start, told.sent, told.received) == (None,) * 4
    assert (told.attempt, told.cold) == (0, -1)
    assert told.cpu in (None, 1.5)
    assert told.system == told.cpu


def test_a_block_cannot_claim_to_be_of_fewer_tasks_than_it_has() -> None:
    assert facts_of(block(0, 5, tasks=1, cpu_seconds=1.0)).short == pytest.approx(0.2)


# --- all of them ---


def test_statistics_are_what_the_definitions_say(bench: Bench) -> None:
    submitted = bench.clock.now()
    bench.submit(4, 4, kind="map")
    vm = Vm(bench, workers=2)
    vm.commit(
        block(0, seconds=1.0, worker=0, cpu_seconds=0.9, system_seconds=0.2, peak_bytes=10),
        block(1, seconds=2.0, worker=1, cpu_seconds=2.0, peak_bytes=30),
        block(2, started=BEGAN + 1, seconds=2.0, worker=0, cpu_seconds=0.1, peak_bytes=20),
        block(3, status=Status.raised, started=BEGAN + 2, seconds=0.5, worker=1, cpu_seconds=0.0),
    )
    found = stats(bench)
    assert (found.state, found.tasks, found.ended, found.failed) == (JobState.running, 4, 4, 1)
    assert found.kinds == {"ok": 3, "raised": 1}
    assert (found.seconds.least, found.seconds.median, found.seconds.p95, found.seconds.most) == (0.5, 1.0, 2.0, 2.0)
    assert found.seconds.total == 5.5
    assert found.seconds.mean == 5.5 / 4
    assert (found.started, found.last_ended, found.span) == (BEGAN, BEGAN + 3, 3.0)
    assert found.makespan == pytest.approx(BEGAN + 3 - submitted)
    assert found.cpu_seconds == pytest.approx(3.0)
    assert found.utilisation == pytest.approx(3.0 / (2 * 3.0))
    assert found.occupancy == pytest.approx(5.5 / (2 * 3.0))
    assert found.peak_bytes == 30
    assert found.system_seconds == pytest.approx(0.2)
    assert found.user_seconds == pytest.approx(2.8)
    one, two = found.per_worker
    assert (one.tasks, one.failed, one.seconds, one.peak_bytes, one.ended) == (2, 0, 3.0, 20, BEGAN + 3)
    assert (two.tasks, two.failed, two.seconds, two.peak_bytes, two.ended) == (2, 1, 2.5, 30, BEGAN + 2.5)


def test_numbers_of_a_job_that_ends_after_it_was_looked_at_are_those_of_an_ended_job(bench: Bench) -> None:
    bench.submit(4, 4)
    vm = Vm(bench)
    batch = vm.take()
    batch.add(block(0, 2))
    batch.commit()
    before = JobObserver(bench.desk(), JOB).look()
    assert (before.state, before.tasks.done) == (JobState.running, 2)
    batch.add(block(2, 2))
    batch.commit()
    assert vm.job.finish(Final("done", 4, 0))
    stats = read_stats(bench.desk(), before)
    assert (stats.state, stats.ended, stats.tasks) == (JobState.done, 4, 4)


def test_calls_that_are_added_after_a_job_was_looked_at_are_counted_among_all(bench: Bench) -> None:
    job, function = bench.open_job()
    vm = Vm(bench)
    before = JobObserver(bench.desk(), JOB).look()
    assert job.add(3, function, lambda first: b"block") is not None
    batch = vm.take()
    batch.add(block(0, 3))
    batch.commit()
    stats = read_timeline(bench.desk(), before).stats
    assert (stats.ended, stats.tasks) == (3, 3)


def test_a_job_of_which_nothing_has_ended(bench: Bench) -> None:
    bench.submit(4, 4)
    assert records(bench) == []
    found = stats(bench)
    assert (found.tasks, found.ended, found.kinds, found.workers) == (4, 0, {}, 0)
    assert (found.span, found.makespan, found.utilisation, found.occupancy) == (0.0,) * 4


def test_a_job_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(UsageError, match="there is no job"):
        StretchReader(bench.desk(), JOB)


@pytest.mark.parametrize(
    ("values", "median", "p95"),
    [([3.0], 3.0, 3.0), ([1.0, 2.0], 1.0, 2.0), (list(map(float, range(101))), 50.0, 95.0)],
)
def test_percentiles_are_values_that_occur(values: list[float], median: float, p95: float) -> None:
    found = spread(values[::-1])
    assert (found.least, found.median, found.p95, found.most) == (values[0], median, p95, values[-1])


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tasks(bench: Bench) -> None:
    """Long tasks, each a block of its own: four times as many in as many more entries take no more memory to read."""
    peaks = []
    for shard, entries in enumerate((3, 12)):
        if not shard:
            bench.submit(10_000, 5000)
            vm = Vm(bench)
        batch = vm.take(shard)
        for entry in range(entries):
            for task in range(150):
                batch.add(block(shard * 5000 + entry * 150 + task))
            batch.commit()
        peaks.append(peak_of(lambda: sum(1 for _ in TaskReader(bench.desk(), JOB).records())))
    assert peaks[1] < peaks[0] * 1.2 + 100_000, peaks
