"""What all bodies of entries have in common."""

from __future__ import annotations

from typing import ClassVar


class Record:
    """Base of all entry bodies; `TYPE` is the word in the store."""

    TYPE: ClassVar[str]
