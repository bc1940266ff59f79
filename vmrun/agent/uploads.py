"""Large results on their way to the store: several at a time, each in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from vmrun.core import keys
from vmrun.core.blocks import BlockError, ResultBlock
from vmrun.core.clock import Clock
from vmrun.core.outcomes import large_ref
from vmrun.core.records import BlockRef
from vmrun.core.storage import BlobStore
from vmrun.store.files import hash_file

#: Results that are under way at once, and their bytes unless it is only one: enough to keep a network busy.
WIDTH, BYTES_MAX = 4, 64 * 1024 * 1024

#: Seconds between signs of life of whoever waits.
TICK = 5.0
#: Bytes that the head of a large result's block is looked for in.
_START = 8 * 1024

#: What names the result in its shard's journal, once it is in the store.
Upload = Future[BlockRef]


@dataclass(frozen=True, slots=True)
class Carried:
    """Pieces of which each is a sign of life of whoever carries them: a terabyte takes hours, and is no standstill."""

    pieces: Iterable[bytes]
    alive: Callable[[], object]

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.alive()
            yield piece


def attempt_in(path: str) -> int | None:
    """Which attempt at a task gave the outcome in a file; None if it does not say."""
    with open(path, "rb") as file:
        start = file.read(_START)
    try:
        attempt = ResultBlock.decode(start, head_only=True).facts.get("attempt")
    except BlockError:
        return None  # made by the job's own process: whoever reads it is told
    return attempt if isinstance(attempt, int) else None


class Uploads:
    """The uploads of one job. For one thread; the store is used from several."""

    def __init__(
        self, blobs: BlobStore, job: str, clock: Clock, width: int = WIDTH, alive: Callable[[], object] = int
    ) -> None:
        """`alive` is called now and then while somebody waits here: it is the network that is slow, not the work."""
        self.alive = alive
        self._blobs = blobs
        self._job = job
        self._clock = clock
        self._width = width
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="vmrun-upload")
        #: What is under way, and its bytes.
        self._running: dict[Upload, int] = {}

    def start(self, task: int, path: str) -> Upload:
        """Begin to write a file, the block of one task, which nobody writes to any more, as a segment.

        Waits while enough are under way.
        """
        size = os.stat(path).st_size
        while len(self._running) >= self._width or (self._running and self._bytes() + size > BYTES_MAX):
            left = wait(self._running, timeout=TICK, return_when=FIRST_COMPLETED).not_done
            self.alive()
            self._running = {upload: size for upload, size in self._running.items() if upload in left}
        upload = self._pool.submit(self._upload, task, path)
        self._running[upload] = size
        return upload

    def finish(self, upload: Upload) -> BlockRef:
        """Wait for one to end; what names it. Raises what kept it from ending well."""
        while wait([upload], timeout=TICK).not_done:
            self.alive()
        return upload.result()

    def _bytes(self) -> int:
        return sum(self._running.values())

    def _upload(self, task: int, path: str) -> BlockRef:
        digest, size = hash_file(path)
        with open(path, "rb") as file:
            ref = large_ref(task, file.read(_START), size, digest)
        began = self._clock.monotonic()
        self._blobs.write_file(keys.segment(self._job, digest), path)
        return replace(ref, upload=round(self._clock.monotonic() - began, 6))

    def close(self) -> None:
        """Begin no more; what is under way may come to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
