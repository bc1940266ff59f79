"""Files as what goes into a store: pieces that can be walked again after a failure, and a hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vmrun.core.errors import UsageError
from vmrun.core.storage import PIECE


@dataclass(frozen=True, slots=True)
class FilePieces:
    """A file's bytes in pieces; each walk opens it anew, so that a write can be repeated."""

    path: str | os.PathLike[str]
    #: Bytes of a piece.
    piece: int = PIECE

    def __iter__(self) -> Iterator[bytes]:
        with open(self.path, "rb", buffering=0) as file:
            while piece := file.read(self.piece):
                yield piece


@dataclass(frozen=True, slots=True)
class CheckedPieces:
    """Pieces whose hash is known; a walk that gives other bytes raises UsageError before it is at its end.

    So nothing is stored under a hash that is not its own, though a file or an object changed after it was hashed.
    """

    pieces: Iterable[bytes]
    sha256: str
    #: What people know it as.
    what: str

    def __iter__(self) -> Iterator[bytes]:
        digest, held = hashlib.sha256(), b""
        for piece in self.pieces:
            digest.update(piece)
            if held:
                yield held
            held = piece
        if digest.hexdigest() != self.sha256:
            raise UsageError(f"{self.what} changed while it was uploaded", hint="submit again once nobody writes to it")
        if held:
            yield held


def hash_pieces(pieces: Iterable[bytes]) -> tuple[str, int]:
    """SHA-256 (lower-case hexadecimal) and size of what `pieces` are."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


def hash_file(path: str | os.PathLike[str]) -> tuple[str, int]:
    """SHA-256 (lower-case hexadecimal) and size of a file, in bounded memory."""
    with open(path, "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()
