"""What tasks save of themselves while they run: carried to the store, and to the next attempt's machine.

A state is a file that the job's user writes and may change at any time: it is read through a descriptor that is not a
link's, hashed, and what arrives later under another hash is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pwd
from collections.abc import Iterable, Iterator

from vmrun.core import keys
from vmrun.core.errors import KeyNotFound, StoreError
from vmrun.core.folds import ShardFold
from vmrun.core.ranges import RangeSet
from vmrun.core.records import StateRef
from vmrun.saving import STATE_MAX
from vmrun.store.files import FilePieces, hash_pieces

from .commit import Batch, open_plain
from .uploads import Carried
from .workshop import Workshop

log = logging.getLogger(__name__)

#: States of one entry of a journal at most; others wait for the next one.
STATES_MAX = 1000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: inode, size, time of the last write.
_Seen = tuple[int, int, int]


class States:
    """The states of one job's tasks on this VM, below `directory`, which belongs to the job's user."""

    def __init__(self, shop: Workshop, job: str, directory: str) -> None:
        user = shop.config.job_user
        self._blobs = shop.blobs
        self._clock = shop.desk.clock
        self._alive = shop.pulse.sign
        self._vm = shop.config.vm
        self._job = job
        self._directory = directory
        self._owner = pwd.getpwnam(user) if user else None
        self._saved_at = self._clock.monotonic()
        #: Of each file, how it was when it was carried to the store.
        self._seen: dict[int, _Seen] = {}
        #: What the store has, as far as this VM knows.
        self._stored: dict[int, StateRef] = {}
        self._ended = RangeSet()

    def ended(self, first: int, count: int = 1) -> None:
        """These tasks have their outcome: what they saved is of no use any more."""
        self._ended.add(first, first + count)

    def restore(self, fold: ShardFold, first: int, count: int) -> None:
        """Put what earlier attempts at these tasks saved where the next ones look for it. Raises StoreUnavailable.

        What is missing or damaged is left out: then the attempt begins at the beginning.
        """
        for task in [task for task in fold.saved if first <= task < first + count]:
            ref = fold.saved[task]
            try:
                self._fetch(ref)
            except (KeyNotFound, ValueError, OSError) as error:
                log.warning("event=state-not-restored task=%d reason=%s", task, error)
                continue
            self._stored[task] = ref
            log.info("event=state-restored task=%d bytes=%d", task, ref.size)

    def _fetch(self, ref: StateRef) -> None:
        if ref.size > STATE_MAX:
            raise ValueError(f"{ref.size} bytes")
        name, temporary = str(ref.task), f"{ref.task}.restored"
        with self._folder() as folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            try:
                self._read(ref, os.open(temporary, _NEW, 0o600, dir_fd=folder))
                # Of a file that is carried to the store already.
                self._seen[ref.task] = _signature(os.stat(temporary, dir_fd=folder, follow_symlinks=False))
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)

    def _read(self, ref: StateRef, descriptor: int) -> None:
        digest, size = hashlib.sha256(), 0
        with open(descriptor, "wb") as file:
            for piece in Carried(self._blobs.read(keys.state(self._job, ref.task, ref.sha256)), self._alive):
                digest.update(piece)
                size += len(piece)
                file.write(piece)
            if self._owner is not None:
                os.fchown(file.fileno(), self._owner.pw_uid, self._owner.pw_gid)
        if digest.hexdigest() != ref.sha256 or size != ref.size:
            raise ValueError("it is not what was saved")

    def due(self, interval: float) -> bool:
        """Whether the last look at what there is to save was `interval` seconds ago."""
        return self._clock.monotonic() - self._saved_at >= interval

    def save(self, batches: Iterable[Batch]) -> None:
        """Carry what is new to the store; `batches` are those of the shards that this VM works on.

        Raises StoreError; the same call may be made again.
        """
        self._saved_at = self._clock.monotonic()
        try:
            found = dict(self._changed())
            for batch in batches if found else ():
                plan = batch.ledger.plan
                mine = [task for task in found if plan.first <= task < plan.end]
                self._save(batch, {task: found[task] for task in mine[:STATES_MAX]})
        except OSError as error:
            # The job may do to its directory what it likes; that it cannot save itself any more is all that follows.
            log.warning("event=states-not-saved error=%s", error)

    def _save(self, batch: Batch, found: dict[int, _Seen]) -> None:
        refs = {task: self._upload(task) for task in found}
        good = [ref for ref in refs.values() if ref is not None]
        if good and not batch.ledger.save(self._vm, batch.epoch, good):
            return
        for task, ref in refs.items():
            self._seen[task] = found[task]
            if ref is not None:
                self._drop(task, ref)
        if good:
            log.info("event=states-saved shard=%d tasks=%d", batch.ledger.plan.shard, len(good))

    def _changed(self) -> Iterator[tuple[int, _Seen]]:
        """Tasks that have saved something since it was last carried, and the signature of their files."""
        with self._folder() as folder:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.name.isdecimal()]
            for name in names:
                task = int(name)
                with contextlib.suppress(FileNotFoundError):
                    if self._ended.covered(task, task + 1):
                        os.unlink(name, dir_fd=folder)
                        continue
                    seen = _signature(os.stat(name, dir_fd=folder, follow_symlinks=False))
                    if seen != self._seen.get(task):
                        yield task, seen

    def _upload(self, task: int) -> StateRef | None:
        with self._folder() as folder:
            descriptor = open_plain(folder, str(task), os.fstat(folder).st_uid)
        if descriptor < 0:
            return None
        try:
            path = f"/proc/self/fd/{descriptor}"
            if os.fstat(descriptor).st_size > STATE_MAX:
                log.warning("event=state-too-large task=%d bytes=%d", task, os.fstat(descriptor).st_size)
                return None
            pieces = Carried(FilePieces(path), self._alive)
            digest, size = hash_pieces(pieces)
            self._blobs.write(keys.state(self._job, task, digest), pieces)
        finally:
            os.close(descriptor)
        return StateRef(task, digest, size)

    def _drop(self, task: int, ref: StateRef | None) -> None:
        """Let go of what the store had of a task before `ref`, which is named by a journal now."""
        old = self._stored.pop(task, None)
        if ref is not None:
            self._stored[task] = ref
        if old is not None and (ref is None or old.sha256 != ref.sha256):
            # It costs money and nothing else; nobody reads it any more.
            with contextlib.suppress(StoreError):
                self._blobs.delete(keys.state(self._job, task, old.sha256))

    def clear(self) -> None:
        """The job has ended: nothing that was saved is of use any more."""
        for task in list(self._stored):
            self._drop(task, None)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[int]:
        """A descriptor of the directory. Whoever put a link in its place is not followed: OSError."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _signature(status: os.stat_result) -> _Seen:
    return status.st_ino, status.st_size, status.st_mtime_ns
