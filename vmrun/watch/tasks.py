"""The record of each task of a job, one after the other, in the order in which their outcomes were committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from vmrun.core.blocks import BlockError, Bytes, Status, read_failure
from vmrun.core.ledger import Desk
from vmrun.core.records import FileRef
from vmrun.core.task_views import JobStats, TaskRecord
from vmrun.core.views import JobView

from .argument_sizes import ArgumentSizes
from .measures import Facts, facts_of, measures_of
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
        downloads = stretch.downloads.seconds(first, end)
        sizes = self._sizes.sizes(stretch.plan, first, end)
        payloads = [payload for _, _, payload in block.items()] if any(block.status) else []
        files = _by_task(stretch.files)
        for at in range(block.count):
            failure = _failure(payloads[at]) if block.status[at] else _NO_FAILURE
            yield self._record(stretch, facts, at, failure, (next(downloads), next(sizes), files.get(first + at, ())))

    def _record(
        self,
        stretch: Stretch,
        facts: Facts,
        at: int,
        failure: tuple[str, str, int | None],
        carried: tuple[float, int | None, tuple[FileRef, ...] | list[FileRef]],
    ) -> TaskRecord:
        block = stretch.block
        task, began, seconds = block.first + at, block.started[at], block.seconds[at]
        own = measures_of(block, at)
        type_name, message, code = failure
        download, argument_bytes, files = carried
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
            download_seconds=download,
            upload_seconds=stretch.upload + sum(file.upload for file in files),
            cpu_seconds=facts.share(facts.cpu) if own.cpu is None else own.cpu,
            user_seconds=facts.share(facts.user),
            system_seconds=facts.share(facts.system),
            peak_bytes=facts.peak if own.peak is None else own.peak,
            rss_bytes=facts.rss,
            shared_bytes=facts.shared,
            virtual_bytes=facts.virtual,
            argument_bytes=argument_bytes,
            result_bytes=0 if block.status[at] else block.lengths[at],
            file_bytes=sum(file.size for file in files),
            vm=stretch.vm,
            worker=facts.worker,
            pid=facts.pid,
            cold=facts.cold == task,
            python=block.python,
            measured_with=facts.tasks,
        )


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
