"""A store in which others do not stand still: something happens right before one object is read."""

from __future__ import annotations

from collections.abc import Callable

from vmrun.core.storage import BlobStore
from vmrun.store.counting import CountingStore


class Meanwhile(CountingStore):
    """Something else happens right before one object is read for the first time."""

    def __init__(self, inner: BlobStore, key: str, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self._key, self._act = key, act

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if key == self._key:
            self._key = ""
            self._act()
        return super().get(key, start, end)
