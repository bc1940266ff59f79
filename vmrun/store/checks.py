"""The form of keys and ranges, checked alike by every store before anything else happens."""

from __future__ import annotations

import re

from vmrun.core.errors import UsageError

_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,255}"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_PREFIX = re.compile(rf"(?:{_SEGMENT}/)*[A-Za-z0-9._-]{{0,255}}")

#: Longest key; the shortest limit among the object stores in use.
MAX_KEY = 1024
_HINT = "keys are segments of A-Z a-z 0-9 . _ - joined by single slashes; this is a defect of vmrun, please report it"


def is_key(text: str) -> bool:
    """Whether `text` has the form of a key."""
    return len(text) <= MAX_KEY and _KEY.fullmatch(text) is not None


def check_key(key: str) -> None:
    """Raises UsageError unless `key` has the form of a key, so that none leaves the store's root."""
    if len(key) > MAX_KEY or _KEY.fullmatch(key) is None:
        raise UsageError(f"{key[:120]!r} is not a key of the object store", hint=_HINT)


def check_prefix(prefix: str, what: str = "prefix") -> None:
    """Raises UsageError unless `prefix` is empty or how a key may begin."""
    if len(prefix) > MAX_KEY or _PREFIX.fullmatch(prefix) is None:
        raise UsageError(f"{prefix[:120]!r} is not a {what} of keys of the object store", hint=_HINT)


def check_range(start: int, end: int | None) -> None:
    """Raises UsageError for a range that begins before the object does or ends before it begins."""
    if start < 0 or (end is not None and end < start):
        raise UsageError(f"bytes {start} to {end} are not a range", hint="this is a defect of vmrun, please report it")
