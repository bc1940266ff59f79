"""What a job shares, as one file on this VM: fetched once, checked, kept for later jobs while there is room.

Nobody but the agent's user can write to it; where that is the job's own user too, a file that was touched is noticed
and fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from vmrun.core import keys
from vmrun.core.errors import Corrupt, KeyNotFound, UsageError
from vmrun.core.model import SharedData
from vmrun.core.storage import BlobStore
from vmrun.core.units import format_size

from .uploads import Carried

log = logging.getLogger(__name__)

#: Bytes of earlier jobs' files that are kept, and that must stay free on the disk in any case.
KEPT_MAX, FREE_MIN = 64 * 1024**3, 1024**3
#: Bytes between two words about how far it is.
_TELL_EVERY = 256 * 1024 * 1024

_Signature = tuple[int, int, int, int]


@dataclass(slots=True)
class SharedFiles:
    """The shared files of one VM, below `directory`."""

    directory: str
    blobs: BlobStore
    kept_max: int = KEPT_MAX
    free_min: int = FREE_MIN
    #: Files by directory, the one that was used last at the end, as they were when they were complete.
    _known: dict[str, _Signature] = field(default_factory=dict)

    def get(self, shared: SharedData, tell: Callable[[str], None], alive: Callable[[], object] = int) -> str:
        """The path of the file; `tell` hears how far it is, and `alive` is called for each piece that came.

        Raises Corrupt when it is missing or not what was signed for, UsageError when there is no room for it.
        """
        name = _plain(shared.name) or "object"
        # The same bytes under another name are another file: what opens it may go by its ending.
        entry = hashlib.sha256(f"{shared.payload.sha256}/{name}".encode()).hexdigest()[:32]
        path = os.path.join(self.directory, entry, name)
        known = self._known.pop(entry, None)
        if known is None or _signature(path) != known:
            _remove(os.path.dirname(path))
            self._make_room(shared.payload.size)
            self._fetch(shared, path, tell, alive)
            known = _signature(path)
        self._known[entry] = known
        return path

    def _make_room(self, size: int) -> None:
        """Remove files that no job uses now, the longest unused first, as far as there is need."""
        os.makedirs(self.directory, mode=0o711, exist_ok=True)
        # A small file may take the last of a small disk.
        needed = size + min(size, self.free_min)
        while self._known and (self._kept() > self.kept_max or self._free() < needed):
            entry = next(iter(self._known))
            del self._known[entry]
            _remove(os.path.join(self.directory, entry))
        if (free := self._free()) < needed:
            raise UsageError(
                f"the shared data takes {format_size(size)}, and the machine's disk has {format_size(free)} left",
                hint="ask for more --disk",
            )

    def _kept(self) -> int:
        return sum(size for _, size, _, _ in self._known.values())

    def _free(self) -> int:
        return shutil.disk_usage(self.directory).free

    def _fetch(self, shared: SharedData, path: str, tell: Callable[[str], None], alive: Callable[[], object]) -> None:
        payload = shared.payload
        os.mkdir(os.path.dirname(path), 0o711)
        digest, size = hashlib.sha256(), 0
        try:
            with open(path, "xb") as file:
                for piece in Carried(self.blobs.read(keys.payload(payload.sha256)), alive):
                    if size // _TELL_EVERY != (size + len(piece)) // _TELL_EVERY or not size:
                        tell(f"fetching the shared data: {format_size(size)} of {format_size(payload.size)}")
                    digest.update(piece)
                    size += len(piece)
                    file.write(piece)
                os.fchmod(file.fileno(), 0o444)
            if size != payload.size or digest.hexdigest() != payload.sha256:
                raise Corrupt(
                    "the job's shared data in the store is not what was submitted; nothing of it was used",
                    hint=f"an object was changed or damaged: delete {keys.payload(payload.sha256)}, and submit again",
                )
        except KeyNotFound as error:
            raise Corrupt("the job's shared data is missing from the store", hint="submit the job again") from error
        except OSError as error:
            raise UsageError(
                f"the shared data cannot be written to the machine's disk: {error.strerror}", hint="ask for more --disk"
            ) from error
        finally:
            if size != payload.size or digest.hexdigest() != payload.sha256:
                _remove(os.path.dirname(path))
        log.info("event=shared-data-fetched bytes=%d", size)


def _signature(path: str) -> _Signature:
    """Changes with every write and every change of rights; nobody can set the last of it back."""
    try:
        state = os.lstat(path)
    except OSError:
        return (0, 0, 0, 0)
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _plain(name: str) -> str:
    """A name that a client gave a file, if it is one and no way to somewhere else."""
    return "" if name in (".", "..") or "/" in name or "\0" in name or len(name.encode()) > 255 else name


def _remove(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
