"""Tasks that have ended, as text: the ones to look at first, and what all of them come to."""

from __future__ import annotations

from collections.abc import Sequence

from vmrun.core.task_views import JobStats, TaskRecord
from vmrun.core.units import format_size
from vmrun.core.views import JobView

from .tables import Column, table
from .text import Style, count, seconds_text, visible

_TASKS = (
    Column("TASK", right=True),
    Column("END"),
    Column("TIME", right=True),
    Column("CPU", right=True),
    Column("MEMORY", right=True),
    Column("RESULT", right=True),
    Column("TRY", right=True),
    Column("WORKER", right=True),
    Column("BEGAN", right=True),
    Column("WHY", flexible=True),
)
#: Characters at the end of a VM's id that tell it from its siblings.
_VM_TAIL = 6


def rank(record: TaskRecord) -> tuple[bool, float]:
    """Larger is worth a look sooner: what failed, then what took long."""
    return record.kind != "ok", record.seconds


def tasks(view: JobView, records: Sequence[TaskRecord], matching: int, stats: JobStats, style: Style) -> list[str]:
    """What all tasks come to, then `records`, which are the first of `matching` ones."""
    lines = summary(view, stats, style)
    if records:
        lines += ["", *table(_TASKS, [_row(record, stats, style) for record in records], style)]
    if matching > len(records):
        lines += ["", f"{count(matching - len(records), 'more task')}: --limit N shows more, --json shows all."]
    elif not records:
        lines += ["", "No task like that has ended."]
    return lines


def summary(view: JobView, stats: JobStats, style: Style) -> list[str]:
    """What all tasks that have ended come to."""
    facts = [
        ("job", f"{view.id} {visible(view.name)}".rstrip()),
        ("tasks", _counts(stats)),
        ("time", _times(stats, style)),
        ("cores", _cores(stats, style)),
        ("memory", f"at most {format_size(stats.peak_bytes)} in one worker" if stats.peak_bytes else ""),
    ]
    return [f"{what:<8} {fact}" for what, fact in facts if fact]


def _counts(stats: JobStats) -> str:
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in stats.kinds.items())
    ended = f"{stats.ended:,} of {count(stats.tasks, 'task')} ended"
    retries = f"; {count(stats.retries, 'attempt')} failed before" if stats.retries else ""
    return f"{ended}: {kinds}{retries}" if kinds else ended


def _times(stats: JobStats, style: Style) -> str:
    if not stats.ended:
        return ""
    spread = stats.seconds
    named = (("min", spread.least), ("median", spread.median), ("p95", spread.p95), ("max", spread.most))
    return style.dot.join(f"{name} {seconds_text(value, style)}" for name, value in named)


def _cores(stats: JobStats, style: Style) -> str:
    if not stats.span or not stats.workers:
        return ""
    used = f"{stats.utilisation:.0%} of their cores used"
    took = f"{seconds_text(stats.cpu_seconds, style)} of CPU time in {seconds_text(stats.span, style)}"
    return f"{count(stats.workers, 'worker')}, {used}: {took}"


def _row(record: TaskRecord, stats: JobStats, style: Style) -> tuple[str, ...]:
    return (
        "reduce" if record.reduce else str(record.task),
        record.kind,
        seconds_text(record.seconds, style) if record.started else "",
        "" if record.cpu_seconds is None else seconds_text(record.cpu_seconds, style),
        "" if record.peak_bytes is None else format_size(record.peak_bytes),
        format_size(record.result_bytes) if record.kind == "ok" else "",
        str(record.attempt + 1) if stats.retries else "",
        _worker(record, stats),
        f"+{seconds_text(record.started - stats.started, style)}" if record.started else "",
        visible(": ".join(part for part in (record.type, record.message) if part)),
    )


def _worker(record: TaskRecord, stats: JobStats) -> str:
    if record.worker is None:
        return ""
    return f"{record.vm[-_VM_TAIL:]}/{record.worker}" if len(stats.per_vm) > 1 else str(record.worker)
