"""What it costs to keep many workers at work: when their tasks started, and processor time meanwhile."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process so far, without its children; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
