"""A program of the user's own, given by its path: it travels with the job, as its only code."""

from __future__ import annotations

import os
from pathlib import Path

from vmrun.core.errors import UsageError
from vmrun.core.units import format_size

from .modules import BUNDLE_MAX_BYTES, BundleFile


def own_program(word: str) -> BundleFile | None:
    """The file that the first word of a command names by a relative path, such as `./simulate`.

    None for a bare name or an absolute path: those are programs of the machine's. Raises UsageError for a file that
    is not there, may not be executed, or is too large to travel with every submission.
    """
    if os.sep not in word or os.path.isabs(word):
        return None
    source = Path(word)
    if not source.is_file():
        raise UsageError(
            f"there is no program {word[:200]!r} here",
            hint="a bare name or an absolute path means a program that is on the machine",
        )
    if not os.access(source, os.X_OK):
        raise UsageError(f"{word[:200]} may not be executed", hint=f"`chmod +x {word[:200]}`, then submit again")
    size = source.stat().st_size
    if size > BUNDLE_MAX_BYTES:
        raise UsageError(
            f"{word[:200]} has {format_size(size)}, and {format_size(BUNDLE_MAX_BYTES)} is the most that travels",
            hint="have a script fetch it from where the machine can reach it",
        )
    return BundleFile(source.name, source)
