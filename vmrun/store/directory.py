"""The default store: a directory of this machine, or one that several machines have mounted."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator

from vmrun.core.errors import KeyExists, KeyNotFound, VmrunError
from vmrun.core.storage import PIECE, Listed

from .checks import check_key, check_prefix, check_range, is_key
from .directory_errors import NO_LINKS, no_links, overlap, thrashing, translated, vanished
from .files import FilePieces

#: Where files are written before they get their name. No key can name it: `~` stands in none.
_TEMPORARY = ".tmp~"
#: A temporary file of this age was left behind by a writer that died.
_ABANDONED_SECONDS = 24 * 3600
#: Most temporary files looked at when a store is opened.
_SWEEP = 1000
#: How often a write makes its directories anew when deletes keep removing them.
_MKDIR_ATTEMPTS = 100

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW


class DirectoryStore:
    """Objects as files: `<root>/<key>`, directories 0700, files 0600. Safe between threads, processes and containers.

    A create is a hard link from a finished temporary file, so of racing ones exactly one succeeds and no reader
    ever sees half an object. With `fsync` an acknowledged write survives a power failure (a delete may be undone
    by one). A process of root writing into another user's directory hands everything it makes to that user.

    One thing is narrower than in a flat map: `a` and `a/b` cannot both be objects; the second write raises
    UsageError. The root is made when it is not there; raises StoreDenied when that cannot be.
    """

    def __init__(self, root: str | os.PathLike[str], *, fsync: bool = True) -> None:
        self.root = os.path.abspath(os.fspath(root))
        self._base = self.root.rstrip("/") + "/"
        self._temporaries = self._base + _TEMPORARY
        self._fsync = fsync
        try:
            owner = self._open_root()
        except OSError as error:
            raise translated(error, "use", self.root) from error
        self._owner = (owner.st_uid, owner.st_gid) if os.geteuid() == 0 and owner.st_uid != 0 else None
        with contextlib.suppress(OSError):  # a store that may only be read is swept by those who write to it
            self._sweep()

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_key(key)
        check_range(start, end)
        descriptor, size = self._open(key)
        try:
            return _read_all(descriptor, start, size if end is None else min(end, size))
        except OSError as error:
            raise translated(error, "read", self.root) from error
        finally:
            os.close(descriptor)

    def create(self, key: str, body: bytes) -> None:
        check_key(key)
        temporary = self._write_temporary((body,))
        try:
            self._place(temporary, key, replace=False)
        finally:
            self._discard(temporary)

    def replace(self, key: str, body: bytes) -> None:
        self.write(key, (body,))

    def delete(self, key: str) -> None:
        check_key(key)
        path = self._base + key
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return
        except OSError as error:
            raise translated(error, "delete from", self.root) from error
        self._prune(path)

    def list(self, prefix: str, after: str = "") -> Iterator[Listed]:
        check_prefix(prefix)
        check_prefix(after, "position in a listing")
        return self._walk(prefix[: prefix.rfind("/") + 1], prefix, after)

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        check_key(key)
        temporary = self._write_temporary(chunks)
        try:
            self._place(temporary, key, replace=True)
        except VmrunError:
            self._discard(temporary)
            raise

    def write_file(self, key: str, path: str) -> None:
        check_key(key)
        temporary = self._link_temporary(path) or self._write_temporary(FilePieces(path))
        try:
            self._place(temporary, key, replace=True)
        except VmrunError:
            self._discard(temporary)
            raise

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        check_key(key)
        check_range(start, end)
        return self._pieces(key, start, end)

    def _pieces(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        descriptor, size = self._open(key)
        try:
            stop = size if end is None else min(end, size)
            for at in range(start, stop, PIECE):
                yield _read_all(descriptor, at, min(at + PIECE, stop))
        except OSError as error:
            raise translated(error, "read", self.root) from error
        finally:
            os.close(descriptor)

    def _open(self, key: str) -> tuple[int, int]:
        """The open file of an object and its size."""
        try:
            descriptor = os.open(self._base + key, _READ)
        except (FileNotFoundError, NotADirectoryError):
            raise KeyNotFound(f"there is no object {key}") from None
        except OSError as error:
            raise translated(error, "read", self.root) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise KeyNotFound(f"there is no object {key}")
        return descriptor, status.st_size

    def _walk(self, directory: str, prefix: str, after: str) -> Iterator[Listed]:
        """Objects below `directory` ("" or ending in a slash), leaving out branches that hold none of those asked for.

        A subdirectory sorts by its name and a slash, which puts whole keys in order.
        """
        for name, entry in self._entries(directory):
            key = directory + name
            if name.endswith("/"):
                may_match = key.startswith(prefix) or prefix.startswith(key)
                if may_match and (key > after or after.startswith(key)):
                    yield from self._walk(key, prefix, after)
            elif key > after and key.startswith(prefix):
                try:
                    size = entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue  # deleted since
                yield Listed(key, size)

    def _entries(self, directory: str) -> Iterable[tuple[str, os.DirEntry[str]]]:
        try:
            return _sorted_entries(self._base + directory)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise translated(error, "list", self.root) from error

    def _write_temporary(self, chunks: Iterable[bytes]) -> str:
        """A finished, flushed file without a key; its path."""
        path = f"{self._temporaries}/{os.urandom(12).hex()}"
        try:
            descriptor = self._open_temporary(path)
        except OSError as error:
            raise translated(error, "write to", self.root) from error
        with _discarding(path):
            try:
                for chunk in chunks:
                    self._write_all(descriptor, chunk)
                self._finish(descriptor)
            finally:
                os.close(descriptor)
        return path

    def _link_temporary(self, path: str) -> str:
        """The finished file at `path` as a temporary one; "" if it must be copied: elsewhere, or not ours alone."""
        temporary = f"{self._temporaries}/{os.urandom(12).hex()}"
        try:
            descriptor = os.open(path, _READ)
        except OSError as error:
            raise translated(error, "read a file for", self.root) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
                return ""
            try:
                # So that it is not taken for what a crashed writer left.
                os.utime(descriptor)
                os.link(path, temporary, follow_symlinks=False)
            except OSError:
                return ""
            with _discarding(temporary):
                if not os.path.samestat(status, os.lstat(temporary)):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                os.fchmod(descriptor, 0o600)
                self._finish(descriptor)
            return temporary
        except OSError as error:
            raise translated(error, "write to", self.root) from error
        finally:
            os.close(descriptor)

    def _open_temporary(self, path: str) -> int:
        try:
            return os.open(path, _WRITE, 0o600)
        except FileNotFoundError:
            self._make_directory(self._temporaries)
            return os.open(path, _WRITE, 0o600)

    def _write_all(self, descriptor: int, chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError as error:
            raise translated(error, "write to", self.root) from error

    def _finish(self, descriptor: int) -> None:
        try:
            if self._owner is not None:
                os.fchown(descriptor, *self._owner)
            if self._fsync:
                os.fdatasync(descriptor)
        except OSError as error:
            raise translated(error, "write to", self.root) from error

    def _place(self, temporary: str, key: str, *, replace: bool) -> None:
        """Give a temporary file its key, making the directories above it as needed."""
        path = self._base + key
        for _ in range(_MKDIR_ATTEMPTS):
            try:
                (os.replace if replace else os.link)(temporary, path)
                break
            except FileNotFoundError:
                self._make_parents(key)
            except (FileExistsError, IsADirectoryError):
                if not self._clear_empty(path, key) and not replace:
                    raise KeyExists(f"{key} exists") from None
            except NotADirectoryError:
                raise overlap(self.root, key) from None
            except OSError as error:
                if not replace and error.errno in NO_LINKS:
                    raise no_links(self.root, error) from error
                raise translated(error, "write to", self.root) from error
        else:
            raise thrashing(self.root, key)
        try:
            self._sync_directory(os.path.dirname(path))
        except OSError as error:
            raise translated(error, "flush", self.root) from error

    def _clear_empty(self, path: str, key: str) -> bool:
        """Whether a directory stood in the way of an object; it is gone then, since there were no objects in it."""
        if os.path.islink(path) or not os.path.isdir(path):
            return False
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:
            raise overlap(self.root, key) from None
        return True

    def _make_parents(self, key: str) -> None:
        path = self._base
        for segment in key.split("/")[:-1]:
            path += segment
            try:
                self._make_directory(path)
            except FileNotFoundError:
                if not os.path.isdir(self.root):
                    raise vanished(self.root) from None
                return  # deleted under our hands; the caller comes back
            except NotADirectoryError:
                raise overlap(self.root, key) from None
            except OSError as error:
                raise translated(error, "write to", self.root) from error
            path += "/"

    def _make_directory(self, path: str) -> None:
        """Make one directory, unless something of that name is there."""
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return
        if self._owner is not None:
            os.chown(path, *self._owner, follow_symlinks=False)
        self._sync_directory(os.path.dirname(path))

    def _sync_directory(self, path: str) -> None:
        if not self._fsync:
            return
        try:
            descriptor = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            return  # what was in it has been deleted since
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _prune(self, path: str) -> None:
        """Remove the directories above a deleted object that are empty now."""
        parent = os.path.dirname(path)
        with contextlib.suppress(OSError):
            while len(parent) > len(self.root):
                os.rmdir(parent)
                parent = os.path.dirname(parent)

    def _discard(self, temporary: str) -> None:
        with contextlib.suppress(OSError):  # swept later
            os.unlink(temporary)

    def _open_root(self) -> os.stat_result:
        try:
            status = os.stat(self.root)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.root), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.root, 0o700)
            status = os.stat(self.root)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.root)
        return status

    def _sweep(self) -> None:
        """Remove what crashed writers left; "now" is the time of a fresh file, which is this filesystem's clock."""
        with os.scandir(self._temporaries) as entries:
            found = [entry for entry, _ in zip(entries, range(_SWEEP), strict=False)]
        if not found:
            return
        fresh = self._write_temporary(())
        try:
            now = os.stat(fresh).st_mtime
        finally:
            self._discard(fresh)
        for entry in found:
            with contextlib.suppress(FileNotFoundError):
                if now - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_SECONDS:
                    os.unlink(entry.path)


def _sorted_entries(path: str) -> list[tuple[str, os.DirEntry[str]]]:
    """What may be objects in a directory, or lead to some (their names end in a slash), in order of keys."""
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not is_key(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                found.append((entry.name + "/", entry))
            elif entry.is_file(follow_symlinks=False):
                found.append((entry.name, entry))
    found.sort(key=lambda pair: pair[0])
    return found


@contextlib.contextmanager
def _discarding(path: str) -> Iterator[None]:
    """Remove the file if the block does not come to its end."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _read_all(descriptor: int, start: int, stop: int) -> bytes:
    """The bytes from `start` to `stop`, or to the end of the file if that comes first."""
    if stop <= start:
        return b""
    first = os.pread(descriptor, stop - start, start)
    if len(first) == stop - start or not first:
        return first
    parts, at = [first], start + len(first)
    while at < stop and (part := os.pread(descriptor, stop - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
