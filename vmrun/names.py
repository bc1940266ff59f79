"""What a user may call a job. A name is data: shown, never part of a key, a path, a shell command or a cloud's name.

So `../x`, blanks and emoji are fine; what could forge lines of a table or message is not, and neither is a novel.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from .core.errors import UsageError

#: Characters.
NAME_MAX = 200
#: Unicode categories that no name contains: control characters, halves of surrogate pairs, line and paragraph ends.
_REFUSED = ("Cc", "Cs", "Zl", "Zp")


def check_name(text: str, what: str = "--name") -> str:
    """`text` itself, if a job can be called so. Raises UsageError, naming `what`.

    Invisible characters that are part of emoji are accepted; whoever shows a name escapes what could mislead.
    """
    if not text.strip():
        raise UsageError(f"{what}: a job's name is not empty", hint="leave it out to have one made from the job")
    if len(text) > NAME_MAX:
        raise UsageError(
            f"{what}: {len(text)} characters are too long for a job's name", hint=f"use at most {NAME_MAX} characters"
        )
    if any(unicodedata.category(character) in _REFUSED for character in text):
        raise UsageError(
            f"{what}: {text[:60]!r} has a line break or another control character", hint="write the name on one line"
        )
    return text


def default_name(target: str | Callable[..., Any], argv: Sequence[str] = ()) -> str:
    """A name for a job whose user gave none: of its function, its script or its program. Always a valid one."""
    if callable(target):
        text = str(getattr(target, "__name__", type(target).__name__))
    elif target:
        path, _, function = target.partition("::")
        text = function or posixpath.basename(path).removesuffix(".py")
    else:
        text = posixpath.basename(argv[0]) if argv else ""
    kept = "".join("?" if unicodedata.category(character) in _REFUSED else character for character in text)
    return kept.strip()[:NAME_MAX] or "job"
