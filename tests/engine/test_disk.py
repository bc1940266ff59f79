"""A task that fills the disk fails, and the space that it took comes back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.bench import Bench
from tests.support.disks import small_disk
from vmrun.core.blocks import Status

MB = 1_000_000
SIZE = 40 * MB


def free(place: Path) -> int:
    state = os.statvfs(place)
    return state.f_bavail * state.f_frsize


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", SIZE) as place:
        yield place


@pytest.fixture
def bench(disk: Path) -> Iterator[Bench]:
    """An engine whose directory is on that disk."""
    made = Bench(disk)
    yield made
    made.close()


@pytest.mark.catalogue(46)
def test_a_task_that_fills_the_disk_fails_alone_and_its_files_are_gone(bench: Bench, disk: Path) -> None:
    def work(number: int) -> object:
        if number == 7:
            with open(Path(os.environ["VMRUN_OUTPUT"], "endless"), "wb") as file:
                while True:
                    file.write(bytes(MB))
        # A large result needs the disk, too.
        return bytes([number]) * 2 * MB if number > 20 else number

    bench.define(work)
    bench.feed(range(21))
    bench.finish()
    said = bench.outcomes.pop(7)
    assert (said["kind"], said["type"]) == ("raised", "OSError")
    assert said["message"] == f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"
    assert bench.outcomes == {number: number for number in range(21) if number != 7}
    assert bench.files == {}
    assert free(disk) > SIZE - 5 * MB
    bench.feed(range(21, 26), first=21)
    bench.finish()
    assert [bench.outcomes[number] for number in range(21, 26)] == [bytes([n]) * 2 * MB for n in range(21, 26)]


@pytest.mark.catalogue(46)
def test_a_result_for_which_there_is_no_space_fails_its_task_and_says_why(bench: Bench, disk: Path) -> None:
    outcomes = bench.run(lambda number: bytes(SIZE * 2) if number == 3 else number, range(10))
    said = outcomes.pop(3)
    assert (said["kind"], said["type"]) == ("raised", "OSError")
    assert "the disk of the machine is full" in said["message"]
    assert os.strerror(errno.ENOSPC) in said["message"]
    assert outcomes == {number: number for number in range(10) if number != 3}
    assert list((bench.directory / "run" / "spool").iterdir()) == []
    assert free(disk) > SIZE - 5 * MB


def test_workers_are_replaced_while_the_disk_is_full(bench: Bench, disk: Path) -> None:
    """A task that holds the disk and takes its worker with it: the next one does with what is there."""

    def work(number: int) -> int:
        if number == 5:
            try:
                with open(Path(os.environ["VMRUN_OUTPUT"], "endless"), "wb") as file:
                    while True:
                        file.write(bytes(MB))
            except OSError:
                os._exit(3)
        return number

    outcomes = bench.run(work, range(40))
    assert bench.statuses[5] is Status.exited
    outcomes.pop(5)
    assert outcomes == {number: number for number in range(40) if number != 5}
