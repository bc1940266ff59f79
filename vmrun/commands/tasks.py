"""`vmrun status JOB --tasks`: the record of each task."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmrun.core.blocks import Status
from vmrun.core.errors import UsageError
from vmrun.core.task_views import TaskRecord
from vmrun.rendering import documents, task_documents, tasks

from .session import Session
from .streamed import one_document

if TYPE_CHECKING:
    from vmrun.handle import JobHandle

#: How a task may have ended.
KINDS = tuple(status.name for status in Status)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks to show."""

    failed: bool
    #: One of KINDS, or None for any.
    kind: str | None
    #: How many at most; None for all.
    limit: int | None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise UsageError(f"--state: no task ends {self.kind[:80]!r}", hint=f"one of {', '.join(KINDS)}")
        if self.failed and self.kind is not None:
            raise UsageError("--failed and --state do not go together", hint="--failed is every kind but `ok`")

    def of(self, records: Iterator[TaskRecord]) -> Iterator[TaskRecord]:
        """Those that match."""
        return (record for record in records if self._matches(record.kind))

    def _matches(self, kind: str) -> bool:
        return kind != "ok" if self.failed else self.kind in (None, kind)


def show(session: Session, handle: JobHandle, wanted: Wanted, default_limit: int) -> None:
    """Failed tasks first, then those that took longest; as JSON, without a limit, all in order of their commits."""
    view, reader = handle.status(), handle.task_reader()
    found = wanted.of(reader.records())
    if not session.as_json:
        worst, matching = _worst(found, wanted.limit or default_limit)
        session.screen.lines(tasks.tasks(view, worst, matching, reader.stats(view), session.screen.style))
        return
    chosen = found if wanted.limit is None else iter(_worst(found, wanted.limit)[0])
    one_document(
        session.screen,
        {"job": documents.job(view)},
        "tasks",
        (task_documents.task(record) for record in chosen),
        end=lambda: {"stats": task_documents.stats(reader.stats(view))},
        lines=True,
    )


def _worst(records: Iterator[TaskRecord], limit: int) -> tuple[list[TaskRecord], int]:
    """The `limit` records that are worth a look, the most so first, and how many there are in all."""
    heap: list[tuple[tuple[bool, float], int, TaskRecord]] = []
    total = 0
    for record in records:
        total += 1
        # The number settles ties, the lower one first; records themselves have no order.
        item = (tasks.rank(record), -record.task, record)
        if len(heap) < limit:
            heapq.heappush(heap, item)
        elif item[:2] > heap[0][:2]:
            heapq.heapreplace(heap, item)
    return [record for _, _, record in sorted(heap, key=lambda item: item[:2], reverse=True)], total
