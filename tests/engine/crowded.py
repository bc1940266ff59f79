"""An engine where there is room for few processes: in the control group that the first argument names.

Its neighbours fork, and so does the process that the engine is in, while one task takes all the room that it gets and
holds on to it. What became of everybody is printed as JSON. A program, for `test_crowd`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.engine.bench import Bench, nap

TASKS, BAD = 200, 5
#: The bad task starts so many as fast as it can, which is more than it may have, and the others, which take the room
#: of its neighbours, so many seconds apart: who is to end it may be without a processor for a while.
HASTE, PAUSE = 3_000, 0.01
#: Seconds for which the bad task holds on to what it has, unless it is ended.
HELD = 120.0


def start_threads() -> None:
    stop = threading.Event()
    for number in range(100_000):
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=stop.wait, args=(HELD,), daemon=True).start()
            if number > HASTE:
                nap(PAUSE)
            continue
        stop.wait(HELD)
        return


def fork_children() -> None:
    for number in range(100_000):
        with contextlib.suppress(OSError):
            if not os.fork():
                nap(HELD)
                os._exit(0)
            if number > HASTE:
                nap(PAUSE)
            continue
        nap(HELD)
        return


def work_with(act: Callable[[], None]) -> Callable[[int], int]:
    def work(number: int) -> int:
        if number == BAD:
            act()
        nap(0.02)
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        return number

    return work


def main(group: Path, directory: Path, act: str, memory: int) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    bench = Bench(directory, memory=memory)
    started = 0

    def step() -> bool:
        nonlocal started
        # What the agent does all the time: the lease, the network, the file system.
        subprocess.run(["/bin/true"], check=True)
        started += 1
        return bench.engine.idle() or bool(bench.died)

    try:
        bench.define(work_with({"threads": start_threads, "forks": fork_children}[act]))
        bench.feed(range(TASKS))
        bench.until(step)
    finally:
        bench.close()
    said = bench.outcomes.pop(BAD, None)
    good = [number for number, value in bench.outcomes.items() if value == number]
    print(json.dumps({"died": bench.died, "bad": said, "good": len(good), "started": started}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
