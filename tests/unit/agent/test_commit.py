"""Batches: what goes into one entry, and what a failed commit leaves."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.support.disks import deep_directory
from tests.unit.agent.bench import Bench, Switch, files_of, large_of, outcome
from tests.unit.core.world import JOB, VM
from vmrun.agent import commit, uploads
from vmrun.agent.commit import Batch, OutputWriter, commit_interval
from vmrun.agent.uploads import Uploads
from vmrun.core import keys
from vmrun.core.errors import StoreUnavailable
from vmrun.core.ledger import JobLedger
from vmrun.core.views import OutputChunk
from vmrun.store.counting import CountingStore
from vmrun.store.faulty import Fault, FaultsAt, FaultyStore, When
from vmrun.watch.logs import OutputReader


def a_batch(bench: Bench, tasks: int = 10) -> Batch:
    bench.submit(tasks, tasks)
    bench.vm()
    job = JobLedger(bench.desk(f"vm:{VM}", bench.blobs), JOB)
    ledger = job.shard(next(job.refresh().shards()))
    assert ledger.claim(VM)
    return Batch(bench.blobs, JOB, ledger, VM, clock=bench.clock)


def entries(bench: Bench) -> list[int]:
    return [extent.entry for shard in bench.shards() for extent in shard.fold.extents]


def test_a_commit_that_fails_keeps_everything_for_the_next(bench: Bench, switch: Switch) -> None:
    batch = a_batch(bench)
    for task in range(4):
        batch.add(outcome(task))
    files = files_of(bench, 2, "x")
    batch.add_files(2, 1, files.path)
    switch.down = True
    with pytest.raises(StoreUnavailable):
        batch.commit()
    switch.down = False
    batch.add(outcome(4))
    assert batch.tasks == 5
    assert batch.commit()
    assert (batch.tasks, batch.bytes) == (0, 0)
    assert bench.values() == list(range(5))
    assert [file.task for file in bench.files()] == [2]


def test_a_commit_whose_reply_was_lost_is_not_written_twice(bench: Bench) -> None:
    batch = a_batch(bench)
    for task in range(4):
        batch.add(outcome(task))
    # The entry is written and nobody says so, for longer than one append is patient
    assert isinstance(bench.blobs, FaultyStore)

    class Mute:
        def fault(self, request: object, rng: object) -> Fault | None:
            return Fault(When.AFTER) if getattr(request, "key", "").endswith("/000001") else None

    inner = FaultyStore(bench.memory, Mute(), bench.rng)
    batch.ledger._journal._store = inner
    with pytest.raises(StoreUnavailable):
        batch.commit()
    batch.ledger._journal._store = bench.memory
    assert batch.commit()
    assert bench.values() == [0, 1, 2, 3]
    assert [listed.key for listed in bench.memory.list(batch.ledger.prefix)] == [
        keys.entry(batch.ledger.prefix, 0),
        keys.entry(batch.ledger.prefix, 1),
    ]


def test_files_that_fail_half_way_are_there_once(bench: Bench) -> None:
    batch = a_batch(bench)
    files = files_of(bench, 0, "one")
    with open(f"{files.path}/two.txt", "w") as file:
        file.write("two")
    batch._blobs = FaultyStore(bench.memory, FaultsAt({1: Fault(When.BEFORE)}), bench.rng)
    with pytest.raises(StoreUnavailable):
        batch.add_files(0, 1, files.path)
    batch.add_files(0, 1, files.path)
    batch.add(outcome(0))
    batch.commit()
    assert sorted(file.path for file in bench.files()) == ["out.txt", "two.txt"]


def what_is_told(bench: Bench, output: OutputWriter) -> list[tuple[int, str]]:
    output.flush()
    return [(chunk.task, chunk.data.decode()) for chunk in OutputReader(bench.memory, JOB).read()]


def test_of_a_directory_without_end_the_upper_files_come_home(bench: Bench, tmp_path: Path) -> None:
    batch, output = a_batch(bench), OutputWriter(bench.blobs, JOB, "s", bench.clock)
    with deep_directory(tmp_path / "left") as left:
        (left / "out.txt").write_text("one")
        batch.add_files(0, 1, str(left), output)
        assert not left.exists()
    batch.add(outcome(0))
    batch.commit()
    assert [file.path for file in bench.files()] == ["out.txt"]
    ((task, text),) = what_is_told(bench, output)
    assert task == 0
    assert "more than 100 directories deep was left out" in text


def test_that_a_task_wrote_too_many_files_is_told_in_its_output(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "FILES_MAX", 2)
    batch, output = a_batch(bench), OutputWriter(bench.blobs, JOB, "s", bench.clock)
    files = files_of(bench, 3, "one")
    for name in ("two.txt", "three.txt"):
        Path(files.path, name).write_text(name)
    batch.add_files(3, 1, files.path, output)
    batch.add_files(4, 1, files_of(bench, 4, "alone").path, output)
    for task in (3, 4):
        batch.add(outcome(task))
    batch.commit()
    assert sorted(file.task for file in bench.files()) == [3, 3, 4]
    ((task, text),) = what_is_told(bench, output)
    assert task == 3
    assert "all but 2 files were left out" in text


@pytest.mark.parametrize(("limit", "value"), [("COMMIT_BLOCKS", 3), ("ENTRY_BYTES", 100), ("FILES_MAX", 2)])
def test_what_gathered_in_an_outage_goes_in_entries_of_bounded_size(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    batch = a_batch(bench)
    for task in range(10):
        batch.add_files(task, 1, files_of(bench, task, "x").path)
        batch.add(outcome(task))
    monkeypatch.setattr(commit, limit, value)
    assert batch.commit()
    assert bench.values() == list(range(10))
    assert sorted(file.task for file in bench.files()) == list(range(10))
    assert 3 <= len(set(entries(bench))) <= 5


def test_a_batch_is_whole_when_nothing_of_its_shard_is_missing(bench: Bench) -> None:
    batch = a_batch(bench, 3)
    assert not batch.whole
    batch.add(outcome(0))
    batch.commit()
    batch.add(outcome(1))
    assert not batch.whole
    batch.add(outcome(2))
    assert batch.whole


def test_large_results_whose_upload_fails_are_uploaded_by_a_later_commit(bench: Bench, switch: Switch) -> None:
    batch = a_batch(bench, 6)
    results = [large_of(bench, task) for task in range(6)]
    switch.down = True
    for result in results:
        batch.add_large(result.task, result.path)
    assert batch.whole
    with pytest.raises(StoreUnavailable):
        batch.commit()
    assert batch.tasks == 6
    switch.down = False
    while True:
        # Each commit that finds a failed upload begins it anew and says why it could not go on.
        try:
            assert batch.commit()
            break
        except StoreUnavailable:
            continue
    assert (batch.tasks, bench.values()) == (0, list(range(6)))
    assert not any(os.path.exists(result.path) for result in results)


def test_files_of_an_attempt_that_failed_do_not_come_with_the_large_result_of_a_later_one(bench: Bench) -> None:
    batch = a_batch(bench, 2)
    # The outcomes are of attempt 1
    batch.add_files(0, 0, files_of(bench, 0, "failed").path)
    batch.add_files(1, 1, files_of(bench, 1, "settled").path)
    for task in range(2):
        batch.add_large(task, large_of(bench, task).path)
    assert batch.commit()
    assert bench.values() == [0, 1]
    assert [file.task for file in bench.files()] == [1]


def test_whoever_waits_for_slow_uploads_shows_that_it_lives(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "TICK", 0.01)
    signs: list[int] = []
    enough = threading.Event()

    def alive() -> None:
        signs.append(1)
        if len(signs) >= 3:
            enough.set()

    class Slow(CountingStore):
        def write_file(self, key: str, path: str) -> None:
            enough.wait(30)
            super().write_file(key, path)

    under_way = Uploads(Slow(bench.blobs), JOB, bench.clock, 1, alive)
    results = [large_of(bench, task) for task in range(2)]
    first = under_way.start(0, results[0].path)
    # Waits for the first, and then for itself
    assert under_way.finish(under_way.start(1, results[1].path)).first == 1
    assert first.result().first == 0
    assert len(signs) >= 3


def test_a_commit_in_passing_does_not_wait_for_large_results(bench: Bench) -> None:
    batch, gate = a_batch(bench, 3), threading.Event()
    inner = bench.blobs

    class Slow(CountingStore):
        def write_file(self, key: str, path: str) -> None:
            gate.wait(30)
            super().write_file(key, path)

    batch._uploads = Uploads(Slow(inner), JOB, bench.clock)
    result = large_of(bench, 0)
    batch.add_large(0, result.path)
    batch.add(outcome(1))
    assert batch.commit(patient=False)
    assert (batch.tasks, bench.values()) == (1, [1])
    gate.set()
    assert batch.commit()
    assert (batch.tasks, bench.values()) == (0, [0, 1])


@pytest.mark.parametrize(("age", "seconds"), [(0, 1.0), (99, 1.0), (500, 5.0), (100_000, 30.0)])
def test_commits_are_seldom_in_old_jobs(age: float, seconds: float) -> None:
    assert commit_interval(age) == seconds


def test_output_is_written_in_order_whatever_fails(bench: Bench) -> None:
    for number in range(12):
        for when in (When.BEFORE, When.AFTER, When.LATE):
            blobs = FaultyStore(bench.memory, FaultsAt({number: Fault(when), number + 1: Fault(when)}), bench.rng)
            stream = f"s{number}{when.value}"
            writer = OutputWriter(blobs, JOB, stream, bench.clock)
            for at in range(8):
                writer.add(OutputChunk(0, 1, "stdout", f"{stream} {at}\n".encode()))
                writer.flush()
            for _ in range(4):
                writer.flush()
            blobs.deliver()
    written: dict[str, list[int]] = {}
    for chunk in OutputReader(bench.memory, JOB).read():
        stream, at = chunk.data.decode().split()
        written.setdefault(stream, []).append(int(at))
    assert len(written) == 36
    assert all(numbers == list(range(8)) for numbers in written.values())
