"""Writes the object that a job shares as a parcel: its large buffers go to the store from where they lie.

Also imported under the job's interpreter, therefore standard library and cloudpickle only.
"""

from __future__ import annotations

import errno
import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cloudpickle

from vmrun.core.blocks import BlockError
from vmrun.core.errors import UsageError
from vmrun.core.parcels import collector, lead

from .arguments import unpicklable

#: Bytes that are in the hand at once.
PIECE = 4 * 1024 * 1024
WHAT = "the shared object"


@dataclass(frozen=True, slots=True)
class PackedShared:
    """A parcel, its pickle in a file, its buffers in the object's own memory; can be walked again and again."""

    #: Of the pickle; the caller's.
    path: Path
    pickled: int
    buffers: tuple[memoryview, ...]
    sha256: str = ""
    #: Bytes of the whole parcel.
    size: int = 0

    def __iter__(self) -> Iterator[bytes]:
        start, *rest = lead(self.pickled, self.buffers)
        yield bytes(start)
        with self.path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
        for part in rest:
            for at in range(0, len(part), PIECE):
                yield bytes(part[at : at + PIECE])


def pack_shared(value: object, directory: Path) -> PackedShared:
    """The parcel of `value`; the pickle without the buffers goes to a file in `directory`, which the caller removes.

    Raises UsageError for an object that cannot be pickled, naming the part of it that is to blame.
    """
    path = directory / "shared.pickle"
    buffers: list[memoryview] = []

    try:
        with path.open("xb") as file:
            _SharedPickler(file, buffers).write(value)
            pickled = file.tell()
        packed = PackedShared(path, pickled, tuple(buffers))
        digest, size = hashlib.sha256(), 0
        for piece in packed:
            digest.update(piece)
            size += len(piece)
    except BlockError as error:
        raise UsageError(f"{WHAT}: {error}", hint="join its arrays into fewer") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(f"{WHAT}: {error.strerror} in {directory}", hint="set TMPDIR to where there is") from error
        raise unpicklable(value, WHAT, error) from error
    return PackedShared(path, pickled, packed.buffers, digest.hexdigest(), size)


class _SharedPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, with large buffers left outside."""

    def __init__(self, file: IO[bytes], outside: list[memoryview]) -> None:
        super().__init__(file, protocol=5, buffer_callback=collector(outside))

    def write(self, value: object) -> None:
        """Write the pickle of `value`; whatever its parts raise comes through."""
        # cloudpickle's own `dump` only rewords RecursionError.
        pickle.Pickler.dump(self, value)
