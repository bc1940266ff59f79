"""A task that waits in the kernel, where no signal reaches it: its worker is given up, and everything else goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine.bench import Bench, is_alive, nap, wait_until
from tests.support.disks import frozen_disk
from vmrun.agent.engine import Load
from vmrun.core.blocks import Status


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.catalogue(55)
@pytest.mark.parametrize("end", ["timeout", "cancel"])
def test_a_worker_that_cannot_be_killed_is_given_up_and_its_task_is_lost(tmp_path: Path, end: str) -> None:
    with frozen_disk(tmp_path / "frozen") as disk:
        limit = 4.0 if end == "timeout" else None
        bench = Bench(tmp_path / "bench", task_timeout=limit, kill_grace=0.2, abandon_after=0.7, retries=3)
        try:

            def work(number: int) -> int:
                if number == 2:
                    (tmp_path / "pid").write_text(str(os.getpid()))
                    (disk / "file").write_text("never")
                return number

            bench.define(work)
            bench.feed(range(100))
            pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
            wait_until(lambda: state(pid) == "D", "the task to wait in the kernel")
            if end == "cancel":
                bench.until(lambda: len(bench.outcomes) == 99)
                bench.engine.cancel()
            bench.finish()
            assert bench.statuses.pop(2) is Status.lost
            assert "waits in the kernel" in bench.outcomes.pop(2)["message"]
            assert bench.facts[2]["pid"] == pid
            assert bench.outcomes == {number: number for number in range(100) if number != 2}
            assert state(pid) == "D"
            # Both places are taken by workers that can work.
            bench.define(lambda _: nap(0.3) or os.getpid(), "both")
            bench.feed(range(2), "both", first=100)
            bench.finish()
            assert len({bench.outcomes[100], bench.outcomes[101], pid}) == 3
            bench.until(lambda: any(isinstance(event, Load) and event.stuck == 1 for event in bench.events))
        finally:
            bench.close()
    # Once the disk answers, the signal that was sent does its work.
    wait_until(lambda: not is_alive(pid))
