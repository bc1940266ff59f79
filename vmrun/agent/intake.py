"""What user code hands over as files: taken without following a link of its making.

The agent may read and remove what user code may not. A path that comes from the engine is therefore only a name below
one of the engine's own directories, and what lies there counts only if it is a plain file of the engine's own user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Generator, Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Not blocking, so that a named pipe in a file's place cannot hold up the agent.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Refused(Exception):
    """What lies there is not what user code may hand over; nothing of it was read."""


@contextlib.contextmanager
def taken_file(root: str, part: str, path: str) -> Iterator[str]:
    """A path to read the file at `path`, directly below `root`/`part`, from while inside; then the file is removed.

    `root` is the engine's directory. Raises Refused.
    """
    with _opened_part(root, part) as (folder, owner):
        name = _name(root, part, path)
        try:
            with _opened_file(folder, name, owner) as file:
                yield file
        finally:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def taken_tree(root: str, part: str, path: str) -> Iterator[Iterator[tuple[str, str]]]:
    """The plain files below the directory `path`, directly below `root`/`part`; then the directory is removed.

    Each is given as (path to read it from until the next one is asked for, path from there with `/`), in order.
    `root` is the engine's directory. Raises Refused.
    """
    with _opened_part(root, part) as (folder, owner):
        name = _name(root, part, path)
        try:
            with _opened_directory(folder, name) as top, contextlib.closing(_files(top, owner)) as files:
                yield files
        finally:
            # By descriptors all the way down: a link in its place is not followed.
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


def _name(root: str, part: str, path: str) -> str:
    folder, name = os.path.split(path)
    if folder != os.path.join(root, part) or name in ("", ".", ".."):
        raise Refused(f"{path[:200]!r} is not directly below {part}/ of the engine's directory")
    return name


@contextlib.contextmanager
def _opened_part(root: str, part: str) -> Iterator[tuple[int, int]]:
    """Descriptor of `root`/`part`, and the user that the engine's directory belongs to."""
    with _opened_directory(None, root) as outer, _opened_directory(outer, part) as inner:
        yield inner, os.fstat(outer).st_uid


@contextlib.contextmanager
def _opened_directory(folder: int | None, name: str) -> Iterator[int]:
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=folder)
    except OSError as error:
        raise Refused(f"{name[:200]!r}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened_file(folder: int, name: str, owner: int) -> Iterator[str]:
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        raise Refused(f"{name[:200]!r}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        # A hard link to somebody else's file is a plain file, too.
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
            raise Refused(f"{name[:200]!r} is not a plain file of the job's user")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _files(top: int, owner: int) -> Generator[tuple[str, str], None, None]:
    for where, folders, names, descriptor in os.fwalk(".", dir_fd=top, follow_symlinks=False):
        folders.sort()
        for name in sorted(names):
            with contextlib.suppress(Refused), _opened_file(descriptor, name, owner) as file:
                yield file, os.path.normpath(os.path.join(where, name))
