"""Play histories: `python -m tests.sim --seed 7` shows one, `--seeds 10000` plays many, `--points` lets one thing go
wrong at every point of a small one.

Ends with 1 if any history broke a rule; each such seed is printed with the command that shows it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor

from tests.sim.points import failed_requests, failures, losses
from tests.sim.run import SOMETIMES, Tally, how_to_replay, play_all, too_seldom
from tests.sim.scenario import play

#: Seeds that one process plays at a time.
CHUNK = 25


def show(seed: int) -> int:
    """Play one seed with every event printed."""
    try:
        history = play(seed, trace=print)
    except Exception:
        traceback.print_exc()
        return 1
    print(f"\nseed {seed}: {history.events} events, {history.seconds:.0f} virtual s, hash {history.digest:08x}")
    return 0


def play_many(first: int, count: int, processes: int) -> int:
    """Play many seeds on several cores, and report."""
    began = time.perf_counter()
    tally = Tally()
    starts = range(first, first + count, CHUNK)
    sizes = [min(CHUNK, first + count - start) for start in starts]
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(play_all, starts, sizes):
            tally.add(part)
            if part.failures:
                print(how_to_replay(part.failures), flush=True)
    took = time.perf_counter() - began
    print(
        f"{tally.seeds} seeds, {len(tally.failures)} failed; {tally.seconds / 3600:.0f} virtual hours, "
        f"{tally.events} events in {took:.0f} s ({tally.seeds / took:.0f} seeds/s)"
    )
    for what in sorted({*tally.seen, *SOMETIMES}):
        print(f"{tally.seen[what]:8d}  {what}")
    seldom = too_seldom(tally) if count >= 500 else []
    for line in seldom:
        print(f"reached too seldom: {line}")
    return 1 if tally.failures or seldom else 0


def play_points() -> int:
    """Everything that can go wrong once."""
    points = [*losses(), *failed_requests()]
    found = 0
    for line in failures(points):
        found += 1
        print(line, flush=True)
    print(f"{len(points)} points, {found} failed")
    return 1 if found else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="show this history")
    parser.add_argument("--seeds", type=int, default=500, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--points", action="store_true", help="one fault at every point of a small history")
    options = parser.parse_args()
    if options.points:
        return play_points()
    if options.seed is not None:
        return show(options.seed)
    return play_many(options.first, options.seeds, options.processes)


if __name__ == "__main__":
    sys.exit(main())
