"""Bringing files home: what tasks wrote under `$VMRUN_OUTPUT`, into a directory of the user's, and nowhere else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vmrun.core import keys
from vmrun.core.errors import Corrupt, UsageError
from vmrun.core.records import FileRef
from vmrun.core.storage import BlobStore


def bring_home(blobs: BlobStore, job: str, files: list[FileRef], directory: str) -> Iterator[str]:
    """Write the files below `directory`; the path of each.

    Where several tasks wrote the same name, each one's goes to `task-<number>/<name>`. Raises Corrupt for a name
    that would leave the directory or bytes that are not what was signed, UsageError when it cannot be written.
    """
    for file in files:
        _check(file.path)
    counts: dict[str, int] = {}
    for file in files:
        counts[file.path] = counts.get(file.path, 0) + 1
    for file in files:
        relative = file.path if counts[file.path] == 1 else f"task-{file.task}/{file.path}"
        target = Path(directory, *PurePosixPath(relative).parts)
        try:
            _write(blobs, keys.output_file(job, file.sha256), file, target)
        except OSError as error:
            raise UsageError(
                f"cannot write {target}: {error.strerror or error}", hint="choose another directory with -o DIR"
            ) from error
        yield str(target)


def _check(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part in ("..", ".") or "\0" in part for part in parts):
        raise Corrupt(f"a task's file is named {path!r}, which would leave the directory; nothing was written")


def _write(blobs: BlobStore, key: str, file: FileRef, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}.tmp")
    digest = hashlib.sha256()
    try:
        with temporary.open("xb") as out:
            for piece in blobs.read(key):
                digest.update(piece)
                out.write(piece)
        if digest.hexdigest() != file.sha256:
            raise Corrupt(f"the stored file {file.path!r} of task {file.task} is not what the task wrote")
        temporary.chmod(file.mode & 0o777)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
