"""Group commit: outcomes gather here and go to the store together, by time and by size, never one by one."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator

from vmrun.core import keys, output
from vmrun.core.blocks import ResultBlock
from vmrun.core.clock import Clock
from vmrun.core.errors import KeyExists, StoreUnavailable
from vmrun.core.ledger import ShardLedger
from vmrun.core.outcomes import pack
from vmrun.core.records import BlockRef, FileRef
from vmrun.core.storage import BlobStore
from vmrun.core.views import OutputChunk
from vmrun.store.files import FilePieces, hash_file

log = logging.getLogger(__name__)

#: Bytes of outcomes that make a commit due at once.
COMMIT_BYTES = 8 * 1024 * 1024
#: Outcome blocks in one entry at most, so that an entry stays small.
COMMIT_BLOCKS = 2000
#: Seconds between commits of a running job: a hundredth of its age, within these.
COMMIT_MIN, COMMIT_MAX = 1.0, 30.0
#: Objects of output that are kept while the store does not answer.
UNWRITTEN_MAX = 16
#: Most files of one task that are brought home.
FILES_MAX = 10_000


def commit_interval(age: float) -> float:
    """Seconds between commits of a job that has run for `age` seconds."""
    return min(COMMIT_MAX, max(COMMIT_MIN, age / 100))


class Batch:
    """Outcomes of one shard that are not committed yet."""

    def __init__(self, blobs: BlobStore, job: str, ledger: ShardLedger, vm: str, epoch: int) -> None:
        self._blobs = blobs
        self._job = job
        self.ledger = ledger
        self._vm = vm
        self.epoch = epoch
        self._blocks: list[ResultBlock] = []
        self._refs: list[BlockRef] = []
        self._files: list[FileRef] = []
        self._bytes = 0
        #: Tasks in the batch.
        self.tasks = 0

    def add(self, block: ResultBlock) -> None:
        """Add outcomes."""
        self._blocks.append(block)
        self._bytes += len(block.payload) + 24 * block.count
        self.tasks += block.count

    def add_large(self, task: int, path: str) -> None:
        """Upload a file that holds the encoded block of one successful task, as it is, and remove it."""
        digest, size = hash_file(path)
        self._blobs.write(keys.segment(self._job, digest), FilePieces(path))
        self._refs.append(BlockRef(task, 1, 0, size, digest, digest))
        self.tasks += 1
        os.unlink(path)

    def add_files(self, task: int, directory: str) -> None:
        """Upload the files that a task wrote, and remove them."""
        for path, relative in _walk(directory):
            digest, size = hash_file(path)
            self._blobs.write(keys.output_file(self._job, digest), FilePieces(path))
            mode = os.stat(path).st_mode & 0o777
            self._files.append(FileRef(task, relative, digest, size, mode))
        shutil.rmtree(directory, ignore_errors=True)

    @property
    def full(self) -> bool:
        """Whether it should be committed without further delay."""
        return self._bytes >= COMMIT_BYTES or len(self._blocks) + len(self._refs) >= COMMIT_BLOCKS

    def commit(self) -> bool:
        """Append everything to the shard's journal; False when the shard is no longer this VM's."""
        if not self.tasks:
            return True
        packed = pack(self._blocks)
        if packed.segment:
            self._blobs.write(keys.segment(self._job, packed.segment), [packed.data])
        inline = b"" if packed.segment else packed.data
        refs = [*packed.refs, *self._refs]
        ours = self.ledger.commit(self._vm, self.epoch, refs, self._files, inline)
        log.info("event=committed shard=%d tasks=%d bytes=%d", self.ledger.plan.shard, self.tasks, self._bytes)
        self._blocks, self._refs, self._files, self._bytes, self.tasks = [], [], [], 0, 0
        return ours


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


def _walk(directory: str) -> Iterator[tuple[str, str]]:
    """(path, relative path with `/`) of regular files below `directory`; links are not followed."""
    found = 0
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            found += 1
            if found > FILES_MAX:
                log.warning("event=files-dropped directory=%s limit=%d", directory, FILES_MAX)
                return
            yield path, os.path.relpath(path, directory).replace(os.sep, "/")
