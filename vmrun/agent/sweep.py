"""Ending whole engines from outside: those of this agent that did not end by themselves, and those of one that died."""

from __future__ import annotations

import glob
import logging
import os

from vmrun.core.clock import Clock

from .groups import find_group
from .runner import launch
from .runner.processes import descendants, is_running, kill, marked

log = logging.getLogger(__name__)

#: How often processes are looked for and killed, and seconds between.
_SWEEPS, _PAUSE = 200, 0.01


def end_engine(mark: str, clock: Clock) -> list[int]:
    """Kill all processes of an engine and all below them; those that would not die (they wait in the kernel).

    Once its runner is gone, what cleared its environment and hid from its parents is found no more; as long as the
    runner lives, it is below it.
    """
    killed: set[int] = set()
    for _ in range(_SWEEPS):
        found = marked(f"{launch.MARK}={mark}")
        found += [pid for one in found for pid in descendants(one)]
        # The runner first would leave the others to a parent that knows nothing of them; they are listed by now.
        kill(found)
        killed.update(found)
        left = [pid for pid in killed if is_running(pid)]
        if not found and not left:
            return []
        clock.sleep(_PAUSE)
    return left


def end_predecessors(work_dir: str, clock: Clock) -> None:
    """Kill what an agent that died left running: the engines whose directories are still in `work_dir`."""
    for path in glob.glob(os.path.join(glob.escape(work_dir), "*", "*", launch.MARK_FILE)):
        try:
            with open(path, encoding="ascii") as file:
                mark = file.read().strip()
        except (OSError, ValueError):
            continue
        if mark:
            left = end_engine(mark, clock)
            find_group(mark).end(clock)
            log.info("event=predecessor-ended engine=%s left=%d", mark, len(left))
