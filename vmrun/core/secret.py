"""Text that must not be shown: passwords, secret keys, tokens."""

from __future__ import annotations

import hmac
from typing import Never


class Secret:
    """A secret string that shows as `***` wherever it is printed, formatted or logged; `reveal()` gives the text.

    It is not a `str` and cannot be pickled or written as JSON, so that it goes nowhere by accident.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> Never:
        raise TypeError("a Secret is not pickled")
