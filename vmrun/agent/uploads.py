"""Large results on their way to the store: several at a time, each in bounded memory."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from vmrun.core import keys
from vmrun.core.clock import Clock
from vmrun.core.outcomes import large_ref
from vmrun.core.records import BlockRef
from vmrun.core.storage import BlobStore
from vmrun.store.files import hash_file

#: Results that are under way at once, and their bytes unless it is only one: enough to keep a network busy.
WIDTH, BYTES_MAX = 4, 64 * 1024 * 1024

#: Bytes that the head of a large result's block is looked for in.
_START = 8 * 1024

#: What names the result in its shard's journal, once it is in the store.
Upload = Future[BlockRef]


class Uploads:
    """The uploads of one job. For one thread; the store is used from several."""

    def __init__(self, blobs: BlobStore, job: str, clock: Clock, width: int = WIDTH) -> None:
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
            left = wait(self._running, return_when=FIRST_COMPLETED).not_done
            self._running = {upload: size for upload, size in self._running.items() if upload in left}
        upload = self._pool.submit(self._upload, task, path)
        self._running[upload] = size
        return upload

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
