"""Group commit: outcomes gather here and go to the store together, by time and by size, never one by one."""

from __future__ import annotations

import logging
import os
from array import array
from itertools import islice

from vmrun.core import keys, output
from vmrun.core.blocks import ResultBlock, Status, failure
from vmrun.core.clock import Clock
from vmrun.core.errors import KeyExists, StoreUnavailable
from vmrun.core.ledger import ShardLedger
from vmrun.core.outcomes import pack
from vmrun.core.records import BlockRef, FileRef
from vmrun.core.storage import BlobStore
from vmrun.core.views import OutputChunk
from vmrun.store.files import FilePieces, hash_file

from .intake import Refused, taken_file, taken_tree

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

    def __init__(self, blobs: BlobStore, job: str, ledger: ShardLedger, vm: str, directory: str) -> None:
        """`directory` is the engine's: what lies elsewhere is not taken from it."""
        self._blobs = blobs
        self._job = job
        self.ledger = ledger
        self._vm = vm
        #: Number of the claim under which the work is done.
        self.epoch = ledger.fold.epoch
        self._directory = directory
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
        try:
            with taken_file(self._directory, "spool", path) as file:
                digest, size = hash_file(file)
                self._blobs.write(keys.segment(self._job, digest), FilePieces(file))
        except Refused as error:
            log.error("event=result-refused task=%d error=%s", task, error)
            self.add(_lost(task, "the file with its result was taken away or replaced before it was stored"))
            return
        self._refs.append(BlockRef(task, 1, 0, size, digest, digest))
        self.tasks += 1

    def add_files(self, task: int, directory: str) -> None:
        """Upload the plain files that a task wrote, and remove them; links are not followed."""
        try:
            with taken_tree(self._directory, "files", directory) as files:
                for file, relative in islice(files, FILES_MAX):
                    digest, size = hash_file(file)
                    self._blobs.write(keys.output_file(self._job, digest), FilePieces(file))
                    mode = os.stat(file).st_mode & 0o777
                    self._files.append(FileRef(task, relative, digest, size, mode))
                if next(files, None) is not None:
                    log.warning("event=files-dropped task=%d limit=%d", task, FILES_MAX)
        except Refused as error:
            log.error("event=files-refused task=%d error=%s", task, error)

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


def _lost(task: int, why: str) -> ResultBlock:
    document = failure(Status.lost, why)
    lengths = array("Q", [len(document)])
    return ResultBlock(task, bytes([Status.lost]), lengths, document, array("d", [0.0]), array("f", [0.0]))
