"""States that tasks save, carried from one VM's disk by the store to another's."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.unit.agent.bench import Bench
from tests.unit.core.world import JOB, OTHER_VM, VM
from vmrun.agent import states as module
from vmrun.agent.commit import Batch
from vmrun.agent.states import States
from vmrun.core import keys
from vmrun.core.ledger import ShardLedger
from vmrun.core.records import BlockRef, StateRef


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.submit(8, 4)
    for vm in (VM, OTHER_VM):
        bench.vm(vm)
        (tmp_path / vm).mkdir()
    return bench


def claimed(bench: Bench, vm: str = VM, shard: int = 0, *, from_owner: str | None = None) -> ShardLedger:
    found = bench.shards()[shard]
    ledger = ShardLedger(bench.desk(f"vm:{vm}"), JOB, found.plan)
    assert ledger.claim(vm, from_owner=from_owner)
    return ledger


def states(bench: Bench, vm: str = VM, folder: str = "") -> States:
    return States(bench.shop(vm), JOB, str(bench.folder / (folder or vm)))


def batch(bench: Bench, ledger: ShardLedger, vm: str = VM) -> Batch:
    return Batch(bench.blobs, JOB, ledger, vm, clock=bench.clock)


def write(bench: Bench, task: int, text: str, vm: str = VM) -> Path:
    """As a task does: by a rename."""
    path = bench.folder / vm / str(task)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
    return path


def stored(bench: Bench) -> list[str]:
    return [listed.key for listed in bench.memory.list(f"jobs/{JOB}/states/")]


def test_what_is_carried_is_a_sign_of_life_both_ways(bench: Bench) -> None:
    ledger, mine = claimed(bench), states(bench)
    signs: list[int] = []
    mine._alive = lambda: signs.append(1)
    for task in range(3):
        write(bench, task, "state")
    mine.save([batch(bench, ledger)])
    # Each was hashed, and uploaded
    assert len(signs) == 6
    taken = claimed(bench, OTHER_VM, from_owner=VM)
    other = states(bench, OTHER_VM)
    other._alive = mine._alive
    other.restore(taken.fold, 0, 4)
    assert len(signs) == 9


def test_what_a_task_saved_is_where_its_next_attempt_looks_for_it(bench: Bench) -> None:
    ledger, mine = claimed(bench), states(bench)
    write(bench, 1, "one")
    write(bench, 3, "three")
    write(bench, 5, "of another shard")
    mine.save([batch(bench, ledger)])
    assert sorted(bench.shards()[0].fold.saved) == [1, 3]
    assert bench.shards()[1].fold.saved == {}
    other = claimed(bench, OTHER_VM, from_owner=VM)
    theirs = states(bench, OTHER_VM)
    theirs.restore(other.fold, 0, 3)
    assert os.listdir(bench.folder / OTHER_VM) == ["1"]
    assert (bench.folder / OTHER_VM / "1").read_text() == "one"
    # It is in the store already
    before = len(stored(bench))
    theirs.save([batch(bench, other, OTHER_VM)])
    assert len(stored(bench)) == before


def test_only_what_is_new_is_carried_and_what_it_supersedes_is_let_go_of(bench: Bench) -> None:
    ledger, mine = claimed(bench), states(bench)
    for text in ("first", "second", "second"):
        write(bench, 1, text)
        mine.save([batch(bench, ledger)])
        entries = ledger.fold.saved[1]
        mine.save([batch(bench, ledger)])
        assert ledger.fold.saved[1] == entries
    (key,) = stored(bench)
    assert bench.memory.get(key) == b"second"
    mine.clear()
    assert stored(bench) == []


def test_a_vm_that_lost_its_shard_saves_nothing_and_removes_nothing(bench: Bench) -> None:
    ledger, mine = claimed(bench), states(bench)
    write(bench, 1, "early")
    mine.save([batch(bench, ledger)])
    mine_still = batch(bench, ledger)
    claimed(bench, OTHER_VM, from_owner=VM)
    write(bench, 1, "late")
    mine.save([mine_still])
    saved = bench.shards()[0].fold.saved[1]
    assert bench.memory.get(keys.state(JOB, 1, saved.sha256)) == b"early"


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_state_that_is_missing_or_damaged_is_not_used(
    bench: Bench, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, mine = claimed(bench), states(bench)
    write(bench, 1, "one")
    mine.save([batch(bench, ledger)])
    (key,) = stored(bench)
    bench.memory.delete(key)
    if damage == "changed":
        bench.memory.create(key, b"two")
    with caplog.at_level(logging.WARNING):
        states(bench, OTHER_VM).restore(ledger.fold, 0, 4)
    assert "event=state-not-restored task=1" in caplog.text
    assert os.listdir(bench.folder / OTHER_VM) == []


def test_what_is_no_plain_file_of_the_jobs_user_is_not_read(bench: Bench, tmp_path: Path) -> None:
    ledger, mine = claimed(bench), states(bench)
    secret = tmp_path / "secret"
    secret.write_text("not for the job")
    (bench.folder / VM / "1").symlink_to(secret)
    os.mkfifo(bench.folder / VM / "2")
    (bench.folder / VM / "3").mkdir()
    (bench.folder / VM / "0.123.tmp").write_text("half")
    mine.save([batch(bench, ledger)])
    assert stored(bench) == []
    assert ledger.fold.saved == {}


def test_a_state_that_is_restored_follows_no_link_of_the_job(bench: Bench, tmp_path: Path) -> None:
    ledger, mine = claimed(bench), states(bench)
    write(bench, 1, "one")
    mine.save([batch(bench, ledger)])
    target = tmp_path / "target"
    target.write_text("untouched")
    for name in ("1", "1.restored"):
        (bench.folder / OTHER_VM / name).symlink_to(target)
    states(bench, OTHER_VM).restore(ledger.fold, 1, 1)
    assert target.read_text() == "untouched"
    assert (bench.folder / OTHER_VM / "1").read_text() == "one"
    # Nor one in the place of the directory
    (bench.folder / "away").symlink_to(bench.folder / OTHER_VM)
    states(bench, OTHER_VM, "away").restore(ledger.fold, 1, 1)
    assert (bench.folder / OTHER_VM / "1").read_text() == "one"


def test_a_job_that_removes_its_directory_harms_only_itself(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    ledger = claimed(bench)
    (bench.folder / VM).rmdir()
    with caplog.at_level(logging.WARNING):
        states(bench).save([batch(bench, ledger)])
    assert "event=states-not-saved" in caplog.text


def test_a_state_that_is_too_large_is_left_out_and_said_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STATE_MAX", 10)
    ledger, mine = claimed(bench), states(bench)
    write(bench, 1, "more than ten bytes")
    write(bench, 2, "less")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            mine.save([batch(bench, ledger)])
    assert list(ledger.fold.saved) == [2]
    assert caplog.text.count("event=state-too-large task=1") == 1


def test_a_task_that_has_ended_saves_nothing_more(bench: Bench) -> None:
    ledger, mine = claimed(bench), states(bench)
    path = write(bench, 1, "one")
    mine.ended(1)
    mine.save([batch(bench, ledger)])
    assert not path.exists()
    assert ledger.fold.saved == {}


def test_a_state_counts_as_progress_until_its_task_has_an_outcome(bench: Bench) -> None:
    ledger = claimed(bench)
    assert ledger.fold.barren == 1
    state = StateRef(1, "0" * 64, 3)
    assert ledger.save(VM, ledger.fold.epoch, [state, StateRef(4, "0" * 64, 3)])
    assert (ledger.fold.saved, ledger.fold.barren) == ({1: state}, 0)
    block = BlockRef(0, 2, 0, 1, "0" * 64)
    assert ledger.commit(VM, ledger.fold.epoch, [block], [], b"x")
    assert ledger.fold.saved == {}
    assert ledger.save(VM, ledger.fold.epoch, [state])
    assert ledger.fold.saved == {}
