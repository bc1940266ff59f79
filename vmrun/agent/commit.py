"""Group commit: outcomes gather here and go to the store together, by time and by size, never one by one."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from vmrun.core import keys, output
from vmrun.core.blocks import ResultBlock
from vmrun.core.clock import Clock
from vmrun.core.errors import KeyExists, StoreUnavailable
from vmrun.core.ledger import ShardLedger
from vmrun.core.outcomes import pack
from vmrun.core.records import NO_TRAFFIC, BlockRef, FileRef, Traffic
from vmrun.core.storage import BlobStore
from vmrun.core.views import OutputChunk
from vmrun.store.files import FilePieces, hash_pieces

from .runner.launch import remove
from .uploads import Carried, Upload, Uploads, attempt_in

log = logging.getLogger(__name__)

#: Bytes of outcomes that make a commit due at once.
COMMIT_BYTES = 8 * 1024 * 1024
#: Outcome blocks in one entry at most, so that an entry stays small.
COMMIT_BLOCKS = 2000
#: Bytes of outcomes in one entry at most, unless a single block is larger.
ENTRY_BYTES = 64 * 1024 * 1024
#: Seconds between commits of a running job: a hundredth of its age, within these.
COMMIT_MIN, COMMIT_MAX = 1.0, 30.0
#: Objects of output that are kept while the store does not answer.
UNWRITTEN_MAX = 16
#: Most files of one task that are brought home, and of one entry.
FILES_MAX = 10_000
#: How deep below a task's output directory files are looked for.
DEPTH_MAX = 100


def commit_interval(age: float) -> float:
    """Seconds between commits of a job that has run for `age` seconds."""
    return min(COMMIT_MAX, max(COMMIT_MIN, age / 100))


@dataclass(frozen=True, slots=True)
class _Written:
    """The files of one attempt at a task."""

    attempt: int
    files: tuple[FileRef, ...]


class Batch:
    """Outcomes of one shard that are not committed yet.

    Whatever fails on the way, StoreUnavailable above all, leaves it as it was: the same call may be made again.
    """

    def __init__(
        self,
        blobs: BlobStore,
        job: str,
        ledger: ShardLedger,
        vm: str,
        *,
        clock: Clock,
        uploads: Uploads | None = None,
    ) -> None:
        self._uploads = uploads or Uploads(blobs, job, clock)
        self._blobs = blobs
        self._job = job
        self.ledger = ledger
        self._vm = vm
        self._clock = clock
        self._traffic = NO_TRAFFIC
        #: Number of the claim under which the work is done.
        self.epoch = ledger.fold.epoch
        #: Outcomes in the order in which they came; a large one is in the store already.
        self._outcomes: deque[ResultBlock | BlockRef] = deque()
        #: Large outcomes that may not be in the store yet, by task: the file, and its upload.
        self._uploading: dict[int, tuple[str, Upload]] = {}
        #: Files by task. They wait for the outcome of the very attempt that wrote them, and go with it.
        self._files: dict[int, _Written] = {}
        #: Which attempts large outcomes are of.
        self._attempts: dict[int, int | None] = {}
        self.bytes = 0
        #: Tasks in the batch.
        self.tasks = 0

    def add(self, block: ResultBlock) -> None:
        """Add outcomes."""
        self._outcomes.append(block)
        self.bytes += _weight(block)
        self.tasks += block.count

    def add_large(self, task: int, path: str) -> None:
        """Upload a file that holds the encoded block of one successful task, as it is; it is removed afterwards.

        Waits only while many others are being uploaded.
        """
        self._attempts[task] = attempt_in(path)
        self._uploading[task] = path, self._uploads.start(task, path)
        self.tasks += 1

    def _settle(self, *, patient: bool) -> None:
        """Take what was uploaded; if `patient`, wait for the rest. What failed is begun anew, and the reason raised."""
        for task, (path, upload) in list(self._uploading.items()):
            if not patient and not upload.done():
                continue
            try:
                ref = self._uploads.finish(upload)
            except StoreUnavailable:
                self._uploading[task] = path, self._uploads.start(task, path)
                raise
            self._outcomes.append(ref)
            del self._uploading[task]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def add_files(self, task: int, attempt: int, directory: str, output: OutputWriter | None = None) -> None:
        """Upload the plain files that an attempt wrote, and remove them; those of earlier attempts are dropped.

        That there are more than come home is told in the task's `output`.
        """
        found: list[FileRef] = []
        left_out: list[str] = []
        for path, relative, mode in _walk(directory, left_out):
            digest, size = hash_pieces(Carried(FilePieces(path), self._uploads.alive))
            took = self._upload(keys.output_file(self._job, digest), FilePieces(path))
            found.append(FileRef(task, relative, digest, size, mode, took))
        self._files[task] = _Written(attempt, tuple(found))
        if left_out and output is not None:
            text = f"[vmrun: of what it wrote under $VMRUN_OUTPUT, {left_out[0]}]\n"
            output.add(OutputChunk(task, attempt, "stderr", text.encode()))
        remove(directory)

    def add_traffic(self, traffic: Traffic) -> None:
        """Have the next entry tell of it."""
        mine = self._traffic
        downloads = (*mine.downloads, *traffic.downloads)
        self._traffic = Traffic(downloads, mine.sent + traffic.sent, mine.received + traffic.received)

    def _upload(self, key: str, pieces: Iterable[bytes]) -> float:
        """Write an object; the seconds that it took."""
        began = self._clock.monotonic()
        self._blobs.write(key, Carried(pieces, self._uploads.alive))
        return round(self._clock.monotonic() - began, 6)

    @property
    def full(self) -> bool:
        """Whether it should be committed without further delay."""
        return self.bytes >= COMMIT_BYTES or len(self._outcomes) + len(self._uploading) >= COMMIT_BLOCKS

    @property
    def whole(self) -> bool:
        """Whether it holds the outcome of every task of the shard that has none yet."""
        return 0 < self.tasks >= self.ledger.plan.count - len(self.ledger.fold.done)

    def commit(self, *, patient: bool = True) -> bool:
        """Append everything to the shard's journal; False when the shard is no longer this VM's.

        Unless `patient`, large outcomes that are still being uploaded wait for a later call.
        """
        self._settle(patient=patient)
        ours = True
        while self._outcomes:
            ours = self._commit_entry(self._entry()) and ours
        return ours

    def _entry(self) -> list[ResultBlock | BlockRef]:
        """The outcomes that go into the next entry: at least one block, and no more than an entry should carry."""
        entry: list[ResultBlock | BlockRef] = []
        size = files = 0
        for outcome in islice(self._outcomes, COMMIT_BLOCKS):
            size += _weight(outcome) if isinstance(outcome, ResultBlock) else 0
            files += sum(len(written.files) for task, written in self._files.items() if _holds(outcome, task))
            if entry and (size > ENTRY_BYTES or files > FILES_MAX):
                break
            entry.append(outcome)
        return entry

    def _commit_entry(self, entry: list[ResultBlock | BlockRef]) -> bool:
        blocks = [outcome for outcome in entry if isinstance(outcome, ResultBlock)]
        packed = pack(blocks)
        refs = list(packed.refs)
        if packed.segment:
            took = self._upload(keys.segment(self._job, packed.segment), [packed.data])
            refs = [replace(ref, upload=took) for ref in refs]
        refs += (outcome for outcome in entry if isinstance(outcome, BlockRef))
        inline = b"" if packed.segment else packed.data
        with_outcome = {task for task in self._files if any(_holds(outcome, task) for outcome in entry)}
        files = [file for task in sorted(with_outcome) for file in self._files_of(task, blocks)]
        ours = self.ledger.commit(self._vm, self.epoch, refs, files, inline, traffic=self._traffic)
        self._traffic = NO_TRAFFIC
        count, size = sum(outcome.count for outcome in entry), sum(map(_weight, blocks))
        log.info("event=committed shard=%d tasks=%d bytes=%d", self.ledger.plan.shard, count, size)
        for _ in entry:
            self._outcomes.popleft()
        for task in with_outcome:
            del self._files[task]
        for outcome in entry:
            self._attempts.pop(outcome.first, None)
        self.tasks -= count
        self.bytes -= size
        return ours

    def _files_of(self, task: int, blocks: list[ResultBlock]) -> tuple[FileRef, ...]:
        """The files of the attempt that gave the outcome; none if only an earlier attempt wrote any."""
        written = self._files[task]
        block = next((block for block in blocks if _holds(block, task)), None)
        settled = self._attempts.get(task) if block is None else block.facts.get("attempt")
        return written.files if settled in (None, written.attempt) else ()


def _holds(outcome: ResultBlock | BlockRef, task: int) -> bool:
    return outcome.first <= task < outcome.first + outcome.count


def _weight(block: ResultBlock) -> int:
    """Bytes that a block takes in the store, roughly."""
    return len(block.payload) + 24 * block.count


class OutputWriter:
    """Carries captured output to the store: a sequence of objects that only this agent writes."""

    def __init__(self, blobs: BlobStore, job: str, stream: str, clock: Clock) -> None:
        self._blobs = blobs
        self._prefix = keys.task_output(job, stream)
        self._clock = clock
        self._frames: list[bytes] = []
        self._bytes = 0
        #: Objects whose bytes are fixed and whose writing is not confirmed.
        self._unwritten: list[bytes] = []
        self._next = 0
        self._since = 0.0

    def add(self, chunk: OutputChunk) -> None:
        """Take a piece of output."""
        if not self._frames:
            self._since = self._clock.monotonic()
        for start in range(0, len(chunk.data), output.OBJECT_MAX // 2):
            piece = chunk.data[start : start + output.OBJECT_MAX // 2]
            frame = output.encode(OutputChunk(chunk.task, chunk.attempt, chunk.stream, piece, chunk.reduce))
            if self._bytes + len(frame) > output.OBJECT_MAX:
                self.flush()
            self._frames.append(frame)
            self._bytes += len(frame)

    def due(self, interval: float) -> bool:
        """Whether output has waited for `interval` seconds."""
        waits = bool(self._frames or self._unwritten)
        return waits and self._clock.monotonic() - self._since >= interval

    def flush(self) -> None:
        """Write what there is; what cannot be written now is kept, up to a limit, and tried again later."""
        if self._frames:
            self._unwritten.append(b"".join(self._frames))
            self._frames, self._bytes = [], 0
        while self._unwritten:
            try:
                self._blobs.create(keys.entry(self._prefix, self._next), self._unwritten[0])
            except KeyExists:
                pass  # an earlier attempt at the same bytes, whose reply was lost
            except StoreUnavailable as error:
                log.warning("event=output-delayed error=%s", error.message)
                self._since = self._clock.monotonic()
                del self._unwritten[UNWRITTEN_MAX:]
                return
            self._next += 1
            del self._unwritten[0]


def _walk(directory: str, left_out: list[str]) -> Iterator[tuple[str, str, int]]:
    """The plain files below `directory`: where to read each until the next is asked for, its path from there, its mode.

    If there are too many, or too deep ones, `left_out` is told which were left out.
    Processes of the job may still change what is in there, and the agent may read more than they: so no link is
    followed, neither to a file nor on the way to it, and a file of another user than the directory's is left out.
    """
    found, owner = 0, os.lstat(directory).st_uid
    for where, folders, names, folder in os.fwalk(directory, follow_symlinks=False):
        folders.sort()
        if folders and where.count(os.sep) - directory.count(os.sep) >= DEPTH_MAX:
            left_out.append(f"what lies more than {DEPTH_MAX} directories deep was left out")
            folders.clear()
        for name in sorted(names):
            descriptor = open_plain(folder, name, owner)
            if descriptor < 0:
                continue
            try:
                found += 1
                if found > FILES_MAX:
                    left_out.append(f"all but {FILES_MAX} files were left out")
                    return
                relative = os.path.relpath(os.path.join(where, name), directory).replace(os.sep, "/")
                yield f"/proc/self/fd/{descriptor}", relative, os.fstat(descriptor).st_mode & 0o777
            finally:
                os.close(descriptor)


def open_plain(folder: int, name: str, owner: int) -> int:
    """A descriptor of the file `name` in `folder`; -1 if it is no plain file of `owner`'s, or gone."""
    try:
        # Not blocking: a named pipe must not hold up the agent.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return -1
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == owner:
        return descriptor
    os.close(descriptor)
    return -1
