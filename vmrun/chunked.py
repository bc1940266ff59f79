"""Several calls as one task, for a `chunksize` that the user asked for. Imported by workers too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def call_each(fn: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> list[T]:
    """`fn(*arguments)` for each tuple of arguments."""
    return [fn(*arguments) for arguments in calls]
