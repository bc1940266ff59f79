"""The `--json` documents of tasks and of what they come to."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from vmrun.core.task_views import JobStats, Spread, TaskRecord

#: Digits after the point: microseconds for times, nanoseconds for durations.
_TIMES = ("queued", "claimed", "started", "ended", "committed")
_NAMES = tuple(field.name for field in fields(TaskRecord))


def task(record: TaskRecord) -> dict[str, Any]:
    """One task; what was not measured is null."""
    shown: dict[str, Any] = {}
    for name in _NAMES:
        value = getattr(record, name)
        shown[name] = round(value, 6 if name in _TIMES else 9) if type(value) is float else value
    usage = record.cpu_usage
    shown["cpu_usage"] = None if usage is None else round(usage, 4)
    return shown


def stats(found: JobStats) -> dict[str, Any]:
    """All tasks of a job that have ended."""
    return {
        "tasks": found.tasks,
        "ended": found.ended,
        "kinds": found.kinds,
        "retries": found.retries,
        "seconds": _spread(found.seconds),
        "cpu_seconds": round(found.cpu_seconds, 6),
        "user_seconds": round(found.user_seconds, 6),
        "system_seconds": round(found.system_seconds, 6),
        "peak_bytes": found.peak_bytes,
        "result_bytes": found.result_bytes,
        "file_bytes": found.file_bytes,
        "queued": found.queued or None,
        "started": _time(found.started),
        "ended_at": _time(found.last_ended),
        "committed": _time(found.committed),
        "span": round(found.span, 6),
        "makespan": round(found.makespan, 6),
        "workers": found.workers,
        "utilisation": round(found.utilisation, 4),
        "occupancy": round(found.occupancy, 4),
        "per_worker": [_rounded(asdict(each)) for each in found.per_worker],
        "per_vm": [_rounded(asdict(each)) for each in found.per_vm],
    }


def _spread(found: Spread) -> dict[str, float]:
    """Under the names that people look for."""
    values = (found.least, found.median, found.p95, found.most, found.mean, found.total)
    names = ("min", "median", "p95", "max", "mean", "total")
    return {name: round(value, 9) for name, value in zip(names, values, strict=True)}


def _time(seconds: float) -> float | None:
    return round(seconds, 6) or None


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if type(value) is float else value for name, value in values.items()}
