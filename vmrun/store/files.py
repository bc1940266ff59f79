"""Files as what goes into a store: pieces that can be walked again after a failure, and a hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from vmrun.core.storage import PIECE


@dataclass(frozen=True, slots=True)
class FilePieces:
    """A file's bytes in pieces; each walk opens it anew, so that a write can be repeated."""

    path: str | os.PathLike[str]

    def __iter__(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece


def hash_file(path: str | os.PathLike[str]) -> tuple[str, int]:
    """SHA-256 (lower-case hexadecimal) and size of a file, in bounded memory."""
    digest, size = hashlib.sha256(), 0
    for piece in FilePieces(path):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size
