"""What it costs to keep many workers at work: when their tasks started, and processor time meanwhile."""

from __future__ import annotations

import itertools
import time
from typing import Any

#: In the number of a process's clock: all the time that it was given a processor (clock_getcpuclockid of Linux).
_SCHEDULED = 2


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process so far, to the nanosecond, without its children; 0 for one that is gone.

    Not from /proc, which counts ticks of 10 ms: dispatching a few tasks takes less.
    """
    try:
        return time.clock_gettime((~pid << 3) | _SCHEDULED)
    except OSError:
        return 0.0


def dispatch(timings: list[Any], samples: list[tuple[float, float]]) -> dict[str, Any]:
    """Figures from (begin, end, …) of each task and samples (moment, processor seconds)."""
    begins = sorted(begin for begin, *_ in timings)
    return {
        "tasks": len(timings),
        "first_to_last_start": begins[-1] - begins[0],
        "first_start_to_end": max(end for _, end, *_ in timings) - begins[0],
        "cpu_seconds": at_time(samples, begins[-1]) - at_time(samples, begins[0]),
    }


def at_time(samples: list[tuple[float, float]], moment: float) -> float:
    """The value at `moment` of what was sampled as (moment, value), by interpolation."""
    for (t0, v0), (t1, v1) in itertools.pairwise(samples):
        if t0 <= moment <= t1:
            return v0 + (v1 - v0) * (moment - t0) / (t1 - t0)
    return samples[-1][1] if moment > samples[-1][0] else samples[0][1]
