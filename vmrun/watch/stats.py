"""What the tasks of a job come to together. Counts whole blocks: a million short tasks are a second's work."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

from vmrun.core.blocks import ResultBlock, Status
from vmrun.core.ledger import Desk
from vmrun.core.model import JobState
from vmrun.core.task_views import JobStats, Spread, VmStats, WorkerStats
from vmrun.core.views import JobView

from .measures import cpu_of, facts_of, peak_of, result_sizes
from .stretches import Stretch, StretchReader


@dataclass(slots=True)
class _Worker:
    """One worker so far."""

    tasks: int = 0
    failed: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    started: float = 0.0
    ended: float = 0.0


class Tally:
    """Adds up stretches."""

    def __init__(self) -> None:
        self._seconds = array("f")
        self._kinds: Counter[int] = Counter()
        self._workers: dict[tuple[str, int], _Worker] = {}
        self._tasks_of_vms: Counter[str] = Counter()
        self._ended_tasks = self._retries = self._result_bytes = self._file_bytes = 0
        self._cpu = self._system = 0.0
        self._peak = 0
        self._started = self._ended = self._committed = 0.0

    def see(self, stretch: Stretch) -> None:
        """Take in what a stretch says."""
        block, facts = stretch.block, facts_of(stretch.block)
        worker = self._workers.setdefault((stretch.vm, -1 if facts.worker is None else facts.worker), _Worker())
        failed = block.count - block.status.count(0)
        cpu, peak = cpu_of(block, facts), peak_of(block, facts)
        system = facts.in_kernel(cpu) or 0.0
        started, ended = _bounds(block)
        worker.tasks += block.count
        worker.failed += failed
        worker.seconds += sum(block.seconds)
        worker.cpu += cpu
        worker.peak = max(worker.peak, peak)
        worker.started, worker.ended = _earliest(worker.started, started), max(worker.ended, ended)
        self._ended_tasks += block.count
        self._seconds.extend(_begun(block))
        self._kinds.update(block.status)
        self._tasks_of_vms[stretch.vm] += block.count
        self._retries += facts.attempt * block.count
        self._cpu += cpu
        self._system += system
        self._peak = max(self._peak, peak)
        self._result_bytes += sum(result_sizes(block))
        self._file_bytes += sum(file.size for file in stretch.files)
        self._started, self._ended = _earliest(self._started, started), max(self._ended, ended)
        self._committed = max(self._committed, stretch.committed)

    def stats(self, view: JobView, reader: StretchReader) -> JobStats:
        """All of it; `reader` is the one whose stretches were seen, of a job that was looked at before that."""
        # What ended meanwhile, and what was added, is among what was seen.
        fold = reader.ledger.fold
        per_worker = [
            WorkerStats(vm, slot, each.tasks, each.failed, each.seconds, each.cpu, each.peak, each.started, each.ended)
            for (vm, slot), each in sorted(self._workers.items())
            if slot >= 0
        ]
        seen = Counter(each.vm for each in per_worker)
        per_vm = [
            VmStats(
                vm=vm,
                workers=max(totals.workers, seen[vm]),
                cores=totals.cores,
                tasks=self._tasks_of_vms[vm],
                sent_bytes=totals.sent,
                received_bytes=totals.received,
                download_seconds=totals.download,
                upload_seconds=totals.upload,
            )
            for vm, totals in sorted(reader.vms.items())
        ]
        return JobStats(
            job=view.id,
            name=view.name,
            state=view.state if fold.final is None else JobState(fold.final.outcome),
            tasks=fold.tasks if fold.is_open else fold.spec.total,
            ended=self._ended_tasks,
            kinds={Status(code).name: count for code, count in sorted(self._kinds.items())},
            retries=self._retries,
            seconds=spread(self._seconds),
            cpu_seconds=self._cpu,
            user_seconds=self._cpu - self._system,
            system_seconds=self._system,
            peak_bytes=self._peak,
            result_bytes=self._result_bytes,
            file_bytes=self._file_bytes,
            queued=view.created,
            started=self._started,
            last_ended=self._ended,
            committed=self._committed,
            workers=sum(each.workers for each in per_vm if each.tasks),
            per_worker=tuple(per_worker),
            per_vm=tuple(per_vm),
        )


def read_stats(desk: Desk, view: JobView) -> JobStats:
    """The numbers of a job as it is in the store now."""
    reader, tally = StretchReader(desk, view.id), Tally()
    for stretch in reader.stretches():
        tally.see(stretch)
    return tally.stats(view, reader)


def spread(values: Sequence[float]) -> Spread:
    """How `values` are spread; percentiles are values that occur."""
    if not values:
        return Spread()
    ordered, total = sorted(values), sum(values)
    # The least value that is no smaller than half, or 95 %, of all.
    median, p95 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95))
    return Spread(ordered[0], median, p95, ordered[-1], total / len(ordered), total)


def _bounds(block: ResultBlock) -> tuple[float, float]:
    """First start and last end; 0 where no task of the block says."""
    started = block.started
    if 0.0 in started:
        known = [at for at in range(block.count) if started[at]]
        if not known:
            return 0.0, 0.0
        return min(started[at] for at in known), max(started[at] + block.seconds[at] for at in known)
    return min(started), max(map(add, started, block.seconds))


def _begun(block: ResultBlock) -> Sequence[float]:
    """Seconds of the tasks that had begun."""
    if 0.0 not in block.started:
        return block.seconds
    return [seconds for seconds, started in zip(block.seconds, block.started, strict=True) if started]


def _earliest(before: float, found: float) -> float:
    return min(before, found) if before and found else before or found
