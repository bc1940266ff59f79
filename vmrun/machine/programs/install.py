"""Checks a pushed tar and unpacks it into its place, once. Arguments: the pushed file, its SHA-256, the place.

What is in place already stays: places are named by content.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile


def digest(path: str) -> str:
    """SHA-256 of a file."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def unpack(archive: str, directory: str) -> None:
    """All members, each below the directory, owned by root and readable by all."""
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        for member in members:
            parts = member.name.split("/")
            if not (member.isfile() or member.isdir()) or member.name.startswith("/") or ".." in parts:
                sys.exit(f"the archive has a member that is refused: {member.name[:200]!r}")
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        if hasattr(tarfile, "tar_filter"):
            tar.extractall(directory, members, filter="tar")
        else:
            tar.extractall(directory, members)  # noqa: S202 - members are checked above


def place(pushed: str, target: str) -> None:
    """Into place by one rename."""
    fresh = f"{target}.{os.getpid()}.part"
    try:
        os.mkdir(fresh)
        unpack(pushed, fresh)
        os.chmod(fresh, 0o755)  # noqa: S103 - jobs run as another user
        try:
            os.rename(fresh, target)
        except OSError:
            # Another call was faster.
            if not os.path.exists(target):
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def main(pushed: str, sha256: str, target: str) -> None:
    """Print whether this call installed it."""
    os.umask(0o022)
    fresh = not os.path.exists(target)
    if fresh:
        found = digest(pushed)
        if found != sha256:
            sys.exit(f"what was pushed has the SHA-256 {found}, not {sha256}")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        place(pushed, target)
    if os.path.exists(pushed):
        os.unlink(pushed)
    sys.stdout.write(json.dumps({"installed": fresh}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
