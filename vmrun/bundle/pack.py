"""Trees of files as one run of bytes, and back: the same files give the same bytes, and unpacking trusts nothing.

Standard library only: the agent unpacks with it.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmrun.core.codec import sha256
from vmrun.core.errors import Corrupt

#: Fixed, so that the bytes do not depend on a default. Code is small: there is nothing to win by another.
_LEVEL = 6
#: What `unpack` writes at most: above what `local_files` lets through, and above the agent's own artefact.
UNPACK_MAX_BYTES = 256 * 1000 * 1000
UNPACK_MAX_FILES = 50_000
_PIECE = 1024 * 1024
#: A file that is also a directory, a name that no file system takes: the tree's fault, not the disk's.
_IMPOSSIBLE_PATH = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
)


@dataclass(frozen=True, slots=True)
class Item:
    """One file to be packed."""

    #: Relative, with `/`.
    path: str
    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed tree."""

    data: bytes
    sha256: str

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)


def pack(items: Iterable[Item]) -> Packed:
    """A gzipped tar that depends on nothing but paths, contents and the executable bits."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for item in sorted(items, key=lambda item: item.path):
            info = tarfile.TarInfo(item.path)
            info.size = len(item.data)
            info.mode = 0o755 if item.executable else 0o644
            tar.addfile(info, io.BytesIO(item.data))
    squeezed = io.BytesIO()
    with gzip.GzipFile("", "wb", _LEVEL, squeezed, mtime=0) as file:
        file.write(plain.getbuffer())
    data = squeezed.getvalue()
    return Packed(data, sha256(data))


def unpack(
    data: bytes, directory: str | Path, *, max_bytes: int = UNPACK_MAX_BYTES, max_files: int = UNPACK_MAX_FILES
) -> None:
    """Make `directory` out of packed bytes, whole or not at all.

    A directory that is there already is left as it is: callers name it by the hash of `data`. Raises Corrupt for
    anything but plain files below the directory (absolute paths, `..`, links, devices), for names that come twice,
    and for more than the limits; nothing is left behind then.
    """
    directory = Path(directory)
    if directory.is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        _extract(_inflate(data, max_bytes + max_files * 3 * tarfile.BLOCKSIZE), building, max_bytes, max_files)
        _open_directories(building)
        _rename(building, directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _open_directories(top: Path) -> None:
    """Let every user of the machine read the tree, whatever the umask was."""
    for where, _, _ in os.walk(top):
        os.chmod(where, 0o755)  # noqa: S103 - code, to be read by the user that runs it


def _rename(building: Path, directory: Path) -> None:
    try:
        building.rename(directory)
    except OSError:
        # Somebody else unpacked the same bytes meanwhile.
        if not directory.is_dir():
            raise


def _inflate(data: bytes, limit: int) -> bytes:
    """The tar in `data`; more than `limit` bytes are not even decompressed."""
    inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise Corrupt(f"not a packed tree: {error}") from error
    if len(plain) > limit:
        raise Corrupt(f"a packed tree of more than {limit} bytes")
    if not inflater.eof:
        raise Corrupt("a packed tree is cut short")
    return plain


def _extract(plain: bytes, directory: Path, max_bytes: int, max_files: int) -> None:
    size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            for count, member in enumerate(tar, 1):
                path = _checked(member)
                size += member.size
                if size > max_bytes or count > max_files:
                    raise Corrupt(f"a packed tree of more than {max_bytes} bytes or {max_files} files")
                _write(tar, member, directory / path)
    except tarfile.TarError as error:
        raise Corrupt(f"a packed tree is damaged: {error}") from error
    except OSError as error:
        if error.errno not in _IMPOSSIBLE_PATH:
            raise
        raise Corrupt(f"a packed tree has a path that cannot be: {error}") from error


def _checked(member: tarfile.TarInfo) -> str:
    """The member's path, if it is a plain file that stays inside."""
    path = member.name
    pure = PurePosixPath(path)
    if not member.isreg() or member.issparse():
        raise Corrupt(f"packed tree: {path!r:.200} is not a plain file")
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path or str(pure) != path:
        raise Corrupt(f"packed tree: {path!r:.200} is not a path inside it")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None
    # "x": a name that comes twice is refused.
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file, _PIECE)
        if file.tell() != member.size:
            raise Corrupt("a packed tree is cut short")
    target.chmod(0o755 if member.mode & 0o100 else 0o644)
