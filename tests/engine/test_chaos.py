"""Workers are killed at random while tasks of all sorts run: each task has exactly one outcome, and the right one."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.engine.bench import PATIENCE, nap
from tests.engine.conftest import MakeBench
from vmrun.agent.runner.processes import marked
from vmrun.core.blocks import Status

TASKS = 30_000
#: Seconds in which workers are killed, so many of them at least; the last tasks wait for that.
STORM, KILLS, HELD = 2.5, 10, 3


def test_every_task_has_one_right_outcome_whoever_is_killed(
    make_bench: MakeBench, rng: random.Random, tmp_path: Path
) -> None:
    bench, over = make_bench(workers=3, retries=1), tmp_path / "over"

    def work(number: int) -> object:
        while number >= TASKS - HELD and not over.exists():
            nap(0.01)
        if number % 1000 == 7:
            nap(0.05)
        if number % 97 == 1:
            print("task", number)
        if number % 1500 == 11:
            raise ValueError(number)
        if number % 3000 == 13:
            os._exit(5)
        if number % 2000 == 17:
            Path(os.environ["VMRUN_OUTPUT"], "file").write_text(str(number))
        if number % 5000 == 19:
            return bytes([number % 256]) * 2_000_000
        return number

    bench.define(work)
    for first in range(0, TASKS, 5000):
        bench.feed(range(first, first + 5000), first=first)
    runner = marked_runner(bench.engine._mark)
    end, kills = time.monotonic() + STORM, 0
    while (time.monotonic() < end or kills < KILLS) and not bench.engine.idle():
        workers = [pid for pid in marked(f"VMRUN_ENGINE={bench.engine._mark}") if pid != runner]
        if workers:
            try:
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
        pause = time.monotonic() + rng.uniform(0, 0.05)
        while (left := pause - time.monotonic()) > 0:
            for event in bench.engine.poll(left):
                bench.take(event)
    over.touch()
    bench.finish()

    assert kills > 5
    assert sorted(bench.outcomes) == list(range(TASKS))
    for number in range(TASKS):
        status, outcome = bench.statuses[number], bench.outcomes[number]
        if status is Status.signalled:
            assert bench.facts[number]["attempt"] >= 3, "given up before its attempts were used"
        elif number % 1500 == 11:
            assert (outcome["kind"], outcome["message"]) == ("raised", str(number))
        elif number % 3000 == 13:
            assert (outcome["kind"], outcome["code"]) == ("exited", 5)
        else:
            assert outcome == (bytes([number % 256]) * 2_000_000 if number % 5000 == 19 else number)
            attempt = bench.facts[number]["attempt"]
            assert bench.printed(number, attempt=attempt) == (f"task {number}\n" if number % 97 == 1 else "")
            if number % 2000 == 17:
                assert (bench.files[number, attempt] / "file").read_text() == str(number)
    assert time.monotonic() - end < PATIENCE


def marked_runner(mark: str) -> int:
    """The oldest process of the engine."""
    return min(marked(f"VMRUN_ENGINE={mark}"))
