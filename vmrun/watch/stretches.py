"""The settled outcomes of a job as they lie in the store: in the order of the journals, a block at a time.

For those who want to know how tasks went, not what they gave: results that are large are not fetched, and nothing of
what was read is kept, so that a million tasks take no more memory than a few thousand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from vmrun.core import codec, keys
from vmrun.core.blocks import BlockError, ResultBlock
from vmrun.core.errors import Corrupt, KeyNotFound, UsageError
from vmrun.core.folds import Extent, ShardFold
from vmrun.core.ledger import Desk, JobLedger, WriterCheck
from vmrun.core.model import ShardPlan
from vmrun.core.records import BlockRef, Claim, Download, Entry, FileRef, Results

#: Bytes of a segment that are fetched at once, as far as there is any use for them.
WINDOW = 1024 * 1024


@dataclass(slots=True)
class VmTotals:
    """What the entries of one VM tell of it."""

    workers: int = 0
    cores: int = 0
    sent: int = 0
    received: int = 0
    download: float = 0.0
    upload: float = 0.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Outcomes of neighbouring tasks that one entry settled, out of one block."""

    #: Holds no other tasks, and times of each. Payloads may be missing, but not those of failed tasks.
    block: ResultBlock
    reduce: bool
    vm: str
    #: Seconds since the epoch: of the submission, by the client; of the claim and of the entry, by the VM.
    queued: float
    claimed: float | None
    committed: float
    #: Seconds that it took to write the object which holds the results; 0 for none.
    upload: float
    #: What the VM fetched for its tasks of the shard so far.
    downloads: Downloads
    #: Files that tasks of the stretch wrote.
    files: tuple[FileRef, ...]
    plan: ShardPlan


class Downloads:
    """Seconds that it took one VM to fetch the arguments of each task."""

    def __init__(self) -> None:
        self._pieces: dict[int, Download] = {}
        self._firsts: list[int] = []

    def add(self, download: Download) -> None:
        """Note a piece; the last one of the same tasks counts."""
        if download.first not in self._pieces:
            self._firsts.append(download.first)
            if len(self._firsts) > 1 and self._firsts[-2] > download.first:
                self._firsts.sort()
        self._pieces[download.first] = download

    def seconds(self, first: int, end: int) -> Iterator[float]:
        """For each of the tasks `first` … `end - 1`; 0 for what was not worth a note."""
        at = max(0, bisect_right(self._firsts, first) - 1)
        for task in range(first, end):
            while at + 1 < len(self._firsts) and self._firsts[at + 1] <= task:
                at += 1
            piece = self._pieces[self._firsts[at]] if self._firsts else None
            yield piece.seconds if piece is not None and piece.first <= task < piece.first + piece.count else 0.0


@dataclass(slots=True)
class _Shard:
    """A shard while its journal is read."""

    plan: ShardPlan
    fold: ShardFold
    #: Seconds since the epoch of each claim, by its number.
    claims: dict[int, float] = field(default_factory=dict)
    downloads: dict[str, Downloads] = field(default_factory=dict)


class StretchReader:
    """Reads one job, once."""

    def __init__(self, desk: Desk, job: str) -> None:
        self._desk = desk
        self.job = job
        self.ledger = JobLedger(desk, job)
        #: By VM; complete when all stretches were read.
        self.vms: dict[str, VmTotals] = {}
        if self.ledger.refresh().submit is None:
            raise UsageError(f"there is no job {job} in this store", hint="`vmrun status` lists the jobs")

    def stretches(self) -> Iterator[Stretch]:
        """All that is settled. Raises Corrupt when stored bytes are not what was signed."""
        check = WriterCheck(self._desk, self.job)
        for plan in self.ledger.fold.shards():
            shard = _Shard(plan, ShardFold(plan))
            for entry in self._desk.journal(keys.shard_journal(self.job, plan.shard), check).read():
                settled = shard.fold.apply(entry)
                # Nothing is asked of the fold but what is settled already.
                shard.fold.extents.clear()
                shard.fold.files.clear()
                yield from self._entry(shard, entry, settled)

    def _entry(self, shard: _Shard, entry: Entry, settled: list[Extent]) -> Iterator[Stretch]:
        body = entry.body
        if isinstance(body, Claim | Results) and entry.writer != f"vm:{body.vm}":
            return  # void, as in the fold
        if isinstance(body, Claim):
            shard.claims[entry.n] = entry.at
            totals = self.vms.setdefault(body.vm, VmTotals())
            totals.workers = body.crew.workers or totals.workers
            totals.cores = body.crew.cores or totals.cores
        elif isinstance(body, Results):
            self._count(shard, body)
            pieces = _Pieces(self._desk, self.job, entry, body)
            queued = shard.plan.added or self.ledger.fold.created_at
            for extent in sorted(settled, key=lambda extent: (extent.block.segment, extent.block.offset)):
                yield Stretch(
                    block=pieces.block(extent),
                    reduce=shard.plan.reduce,
                    vm=body.vm,
                    queued=queued,
                    claimed=shard.claims.get(body.epoch),
                    committed=entry.at,
                    upload=extent.block.upload,
                    downloads=shard.downloads.setdefault(body.vm, Downloads()),
                    files=tuple(file for file in body.files if extent.first <= file.task < extent.end),
                    plan=shard.plan,
                )

    def _count(self, shard: _Shard, body: Results) -> None:
        totals, traffic = self.vms.setdefault(body.vm, VmTotals()), body.traffic
        totals.sent += traffic.sent
        totals.received += traffic.received
        for download in traffic.downloads:
            totals.download += download.seconds
            shard.downloads.setdefault(body.vm, Downloads()).add(download)
        # Blocks of one segment went together.
        totals.upload += sum({block.segment: block.upload for block in body.blocks}.values())
        totals.upload += sum(file.upload for file in body.files)


class _Pieces:
    """The blocks of one entry, fetched as far as they are needed, and checked."""

    def __init__(self, desk: Desk, job: str, entry: Entry, body: Results) -> None:
        self._store = desk.store
        self._job = job
        self._attachment = entry.attachment
        self._ends: dict[str, int] = {}
        for ref in body.blocks:
            self._ends[ref.segment] = max(self._ends.get(ref.segment, 0), ref.offset + ref.size)
        #: What was fetched last: the segment, where it begins there, and the bytes.
        self._window: tuple[str, int, bytes] = ("", 0, b"")

    def block(self, extent: Extent) -> ResultBlock:
        """The outcomes that `extent` settled."""
        ref = extent.block
        # What failed tasks say stands in their payloads.
        head_only = bool(ref.head) and not ref.failed
        size, digest = (ref.head, ref.head_sha256) if head_only else (ref.size, ref.sha256)
        data = self._bytes(ref, size, ahead=not head_only)
        if len(data) != size or codec.sha256(data) != digest:
            raise Corrupt(
                f"the stored results of tasks {ref.first}-{ref.first + ref.count - 1} of job {self._job} are not the "
                "ones that were signed; nothing of them was used",
                hint="an object in the store was changed or damaged; run the job again",
            )
        try:
            block = ResultBlock.decode(data, head_only=head_only)
            if block.first != ref.first or block.count != ref.count:
                raise BlockError("it holds other tasks")
            return block.slice(extent.first, extent.end - extent.first).timed()
        except BlockError as error:
            raise Corrupt(f"tasks {extent.first}-{extent.end - 1} of job {self._job}: {error}") from error

    def _bytes(self, ref: BlockRef, size: int, *, ahead: bool) -> bytes:
        if not ref.segment:
            return self._attachment[ref.offset : ref.offset + size]
        segment, start, data = self._window
        if segment != ref.segment or not start <= ref.offset <= ref.offset + size <= start + len(data):
            end = ref.offset + size
            if ahead:
                end = max(end, min(ref.offset + WINDOW, self._ends[ref.segment]))
            start, data = ref.offset, self._fetch(ref.segment, ref.offset, end)
            self._window = ref.segment, start, data
        return data[ref.offset - start : ref.offset - start + size]

    def _fetch(self, segment: str, start: int, end: int) -> bytes:
        key = keys.segment(self._job, segment)
        try:
            return self._store.get(key, start, end)
        except KeyNotFound as error:
            raise Corrupt(f"{key} is missing", hint="somebody deleted it; run the job again") from error
