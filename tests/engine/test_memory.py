"""A task that the kernel kills for lack of memory fails as such, alone; in a real control group with a limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.bench import Bench, wait_until
from vmrun.agent.runner.processes import marked
from vmrun.core.blocks import Status

LIMIT = 100 * 1024 * 1024


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with little memory, of whichever version is there."""
    name = f"vmrun-test-{os.getpid()}"
    for root, limit in (
        (Path("/sys/fs/cgroup"), "memory.max"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    ):
        made = root / name
        try:
            made.mkdir()
            (made / limit).write_text(str(LIMIT))
        except OSError:
            if made.exists():
                made.rmdir()
            continue
        break
    else:
        pytest.skip("no control group for memory can be made here")
    yield made
    wait_until(lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


def test_a_task_that_needs_too_much_memory_fails_alone_and_says_so(group: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    try:
        bench.define(lambda _: os.getppid())
        bench.feed([0])
        bench.finish()
        for pid in marked(f"VMRUN_ENGINE={bench.engine._mark}"):
            (group / "cgroup.procs").write_text(str(pid))

        def work(number: int) -> int:
            return sum(len(bytes([1]) * 1_000_000) for _ in range(number)) if number < 50 else len(b"x" * LIMIT * 2)

        bench.define(work, "work")
        bench.feed([1, 2, 99, 3, 4, 5], "work", first=1)
        bench.finish()
        assert {bench.statuses[task] for task in (1, 2, 4, 5, 6)} == {Status.ok}
        assert bench.statuses[3] is Status.oom
        assert "out of memory" in bench.outcomes[3]["message"]
        assert bench.facts[3]["attempt"] == 2
    finally:
        bench.close()
