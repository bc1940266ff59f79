"""What a directory store says when the filesystem refuses: the path, the cause and the next step."""

from __future__ import annotations

import errno
import os

from vmrun.core.errors import StoreDenied, StoreError, StoreUnavailable, StoreUnsafe, UsageError

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_DIRECTORY = {errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG}
#: How filesystems say that they make no hard links.
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK}

_ELSEWHERE = "or set store.url (VMRUN_STORE) to another place"


def translated(error: OSError, doing: str, root: str) -> StoreError:
    """The error of the tree for a refusal by the operating system while `doing` something to the store."""
    what = f"cannot {doing} the store {root}: {os.strerror(error.errno or 0)}"
    if error.errno in _DENIED:
        return StoreDenied(what, hint=f"give this user the right to, {_ELSEWHERE}")
    if error.errno in _FULL:
        return StoreError(what, hint=f"free some space there, {_ELSEWHERE}")
    if error.errno in _NO_DIRECTORY:
        return StoreDenied(what, hint=f"make it a directory, {_ELSEWHERE}")
    return StoreUnavailable(what, hint="try again; if it stays so, check the disk or the mount")


def overlap(root: str, key: str) -> UsageError:
    """For a key that would have to be a file and a directory at once."""
    return UsageError(
        f"{key} cannot be written to {root}: the name of one object would be the directory of another",
        hint="in a directory store no key may be another one plus a slash and more",
    )


def no_links(root: str, error: OSError) -> StoreUnsafe:
    """For a filesystem on which create-only writes cannot be made."""
    return StoreUnsafe(
        f"the filesystem of {root} makes no hard links ({os.strerror(error.errno or 0)}), "
        "and without them two writers cannot be kept apart",
        hint="set store.url (VMRUN_STORE) to a directory on a usual Linux filesystem, or to an s3:// bucket",
    )


def vanished(root: str) -> StoreDenied:
    """For a root that was there when the store was opened."""
    return StoreDenied(f"the store's directory {root} is not there any more", hint=f"mount or restore it, {_ELSEWHERE}")


def thrashing(root: str, key: str) -> StoreUnavailable:
    """For directories that disappear faster than a file can be put into them."""
    return StoreUnavailable(
        f"the directories of {key} in {root} are deleted as fast as they are made",
        hint="is another program cleaning up in there?",
    )
