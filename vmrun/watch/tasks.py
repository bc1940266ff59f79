"""The record of each task of a job, one after the other, in the order in which their outcomes were committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vmrun.core.blocks import BlockError, Status, read_failure
from vmrun.core.columns import Bytes, is_zero
from vmrun.core.ledger import Desk
from vmrun.core.records import FileRef
from vmrun.core.task_views import JobStats, TaskRecord
from vmrun.core.views import JobView

from .argument_sizes import ArgumentSizes
from .measures import Facts, Measures, facts_of, measures_of, result_sizes
from .stats import Tally
from .stretches import Stretch, StretchReader

#: Characters of a message; the whole of it, and the traceback, are among the job's failures.
MESSAGE_MAX = 1000
_NAMES = tuple(status.name for status in Status)


class TaskReader:
    """Reads the records of one job, once, in bounded memory."""

    def __init__(self, desk: Desk, job: str) -> None:
        self._reader = StretchReader(desk, job)
        self._name = self._reader.ledger.fold.spec.name
        self._sizes = ArgumentSizes(desk, self._reader.ledger)
        self._tally = Tally()

    def stats(self, view: JobView) -> JobStats:
        """What the records that were read come to."""
        return self._tally.stats(view, self._reader)

    def records(self) -> Iterator[TaskRecord]:
        """Of all tasks that have ended. Raises Corrupt when stored bytes are not what was signed."""
        for stretch in self._reader.stretches():
            self._tally.see(stretch)
            yield from self._expand(stretch)

    def _expand(self, stretch: Stretch) -> Iterator[TaskRecord]:
        block, facts = stretch.block, facts_of(stretch.block)
        first, end = block.first, block.first + block.count
        payloads = [payload for _, _, payload in block.items()] if not is_zero(block.status) else []
        files = _by_task(stretch.files)
        columns = (
            measures_of(block),
            result_sizes(block),
            self._sizes.sizes(stretch.plan, first, end),
            stretch.downloads.seconds(first, end),
        )
        for at, figures in enumerate(zip(*columns, strict=True)):
            failure = _failure(payloads[at]) if block.status[at] else _NO_FAILURE
            yield self._record(stretch, facts, at, failure, _Figures(*figures, files.get(first + at, ())))

    def _record(
        self, stretch: Stretch, facts: Facts, at: int, failure: tuple[str, str, int | None], figures: _Figures
    ) -> TaskRecord:
        block, own = stretch.block, figures.own
        task, began, seconds = block.first + at, block.started[at], block.seconds[at]
        type_name, message, code = failure
        cpu = facts.short if own.cpu is None else own.cpu
        system = facts.in_kernel(cpu)
        return TaskRecord(
            job=self._reader.job,
            name=self._name,
            task=task,
            reduce=stretch.reduce,
            kind=_NAMES[block.status[at]],
            type=type_name,
            message=message,
            exit=code,
            attempt=facts.attempt,
            queued=stretch.queued,
            claimed=stretch.claimed,
            started=began or None,
            ended=began + seconds if began else None,
            committed=stretch.committed,
            seconds=seconds,
            load_seconds=own.load,
            keep_seconds=own.keep,
            download_seconds=figures.download,
            upload_seconds=stretch.upload + sum(file.upload for file in figures.files),
            cpu_seconds=cpu,
            user_seconds=None if cpu is None or system is None else cpu - system,
            system_seconds=system,
            peak_bytes=facts.peak if own.peak is None else own.peak,
            rss_bytes=facts.rss,
            shared_bytes=facts.shared,
            virtual_bytes=facts.virtual,
            private_bytes=facts.private,
            start_bytes=facts.start,
            sent_bytes=facts.sent,
            received_bytes=facts.received,
            argument_bytes=figures.argument_bytes,
            result_bytes=figures.result_bytes,
            file_bytes=sum(file.size for file in figures.files),
            vm=stretch.vm,
            worker=facts.worker,
            pid=facts.pid,
            cold=facts.cold == task,
            python=block.python,
            measured_with=facts.tasks,
        )


class _Figures(NamedTuple):
    """What is told of a single task, from several places."""

    own: Measures
    result_bytes: int
    argument_bytes: int | None
    download: float
    files: Sequence[FileRef]


_NO_FAILURE: tuple[str, str, int | None] = ("", "", None)


def _failure(payload: Bytes) -> tuple[str, str, int | None]:
    """Type, message and code of a failed task; nothing of it is unpickled."""
    try:
        document = read_failure(payload)
    except BlockError:
        return _NO_FAILURE
    code = document.get("code")
    message = str(document.get("message", ""))[:MESSAGE_MAX]
    return str(document.get("type", ""))[:MESSAGE_MAX], message, code if type(code) is int else None


def _by_task(files: tuple[FileRef, ...]) -> dict[int, list[FileRef]]:
    found: defaultdict[int, list[FileRef]] = defaultdict(list)
    for file in files:
        found[file.task].append(file)
    return found
