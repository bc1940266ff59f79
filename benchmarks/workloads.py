"""What is run: the tasks of each workload, how they are checked, and what their results tell of the run.

Imported by drivers and by workers of every system, whichever interpreter that has: the standard library, and numpy
where arrays are asked for.

Tasks that take time burn it: they compute until their own thread has had that much of a processor, so that a busy
machine stretches their wall time and not their work.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Bytes of each array of the workloads `arguments` and `results`.
ARRAY_BYTES = 10_000_000
#: In `skewed` one task of this many takes LONG times as long.
RARE, LONG = 100, 100
#: Seconds of a common task of `skewed`.
SKEW_SECONDS = 0.001
#: What (wall start, wall end, processor seconds) of a task are called in its result.
Timing = tuple[float, float, float]


def noop(number: int) -> int:
    """Nothing, and the number to check it by."""
    return number


def burn(seconds: float) -> Timing:
    """Compute for `seconds` of processor time; when that was on the machine's monotonic clock, and what it took."""
    began, first = time.monotonic(), time.thread_time()
    while (used := time.thread_time() - first) < seconds:
        for _ in range(100):
            pass
    return began, time.monotonic(), used


def nap(seconds: float) -> Timing:
    """Sleep: a task that costs its worker nothing."""
    began, first = time.monotonic(), time.thread_time()
    time.sleep(seconds)  # noqa: TID251  it is the task that sleeps
    return began, time.monotonic(), time.thread_time() - first


def weigh(array: Any) -> tuple[int, float]:
    """Size of an argument and its sum, so that all of it is read."""
    return array.nbytes, float(array.sum())


def make(number: int) -> Any:
    """An array of ARRAY_BYTES."""
    import numpy as np

    return np.full(ARRAY_BYTES // 8, float(number))


def read_shared(array: Any, part: int) -> tuple[int, float, int]:
    """Read all of a shared array: the part's number, the sum, and in which process that was."""
    return part, float(array.sum()), os.getpid()


@dataclass(frozen=True)
class Load:
    """One workload at one size."""

    function: Callable[..., Any]
    arguments: list[Any]
    #: The object that all tasks share, as second argument; None for none.
    shared: Any
    check: Callable[[list[Any]], bool]
    #: Whether results are timings.
    timed: bool = False


def load(name: str, count: int, size: int = ARRAY_BYTES) -> Load:
    """Make the workload `name` with `count` tasks; `size` is of the shared array. Raises KeyError."""
    return _LOADS[name](count, size)


def _noops(count: int, _size: int) -> Load:
    return Load(noop, list(range(count)), None, lambda results: results == list(range(count)))


def _burning(seconds: float) -> Callable[[int, int], Load]:
    def make_load(count: int, _size: int) -> Load:
        return _timed([seconds] * count)

    return make_load


def _skewed(count: int, _size: int) -> Load:
    times = [SKEW_SECONDS * LONG if at % RARE == 0 else SKEW_SECONDS for at in range(count)]
    random.Random(20130101).shuffle(times)
    return _timed(times)


def _timed(times: list[float]) -> Load:
    def check(results: list[Timing]) -> bool:
        return len(results) == len(times) and all(
            used >= asked for asked, (_, _, used) in zip(times, results, strict=True)
        )

    return Load(burn, times, None, check, timed=True)


def _arguments(count: int, _size: int) -> Load:
    wanted = [(ARRAY_BYTES, float(number) * (ARRAY_BYTES // 8)) for number in range(count)]
    return Load(weigh, [make(number) for number in range(count)], None, lambda results: results == wanted)


def _results(count: int, _size: int) -> Load:
    def check(results: list[Any]) -> bool:
        return [(one.nbytes, float(one[0]), float(one[-1])) for one in results] == [
            (ARRAY_BYTES, float(number), float(number)) for number in range(count)
        ]

    return Load(make, list(range(count)), None, check)


def _shared(count: int, size: int) -> Load:
    import numpy as np

    def check(results: list[Any]) -> bool:
        return [(part, total) for part, total, _ in results] == [(part, float(size // 8)) for part in range(count)]

    return Load(read_shared, list(range(count)), np.ones(size // 8), check)


_LOADS: dict[str, Callable[[int, int], Load]] = {
    "noops": _noops,
    "1ms": _burning(0.001),
    "50ms": _burning(0.05),
    "1s": _burning(1.0),
    "skewed": _skewed,
    "arguments": _arguments,
    "results": _results,
    "shared": _shared,
}


def facts(one: Load, results: list[Any], seconds: float, ended: float) -> dict[str, Any]:
    """What a run's results tell beside its seconds; `ended` is when the last one was in hand."""
    found: dict[str, Any] = {"tasks": len(results), "seconds": seconds}
    if one.timed:
        found["cpu_seconds"] = sum(used for _, _, used in results)
        found["busy_seconds"] = sum(end - begin for begin, end, _ in results)
        found["longest"] = max(end - begin for begin, end, _ in results)
        found["from_first_start"] = ended - min(begin for begin, _, _ in results)
    if one.shared is not None:
        found["pids"] = sorted({pid for _, _, pid in results})
    return found
