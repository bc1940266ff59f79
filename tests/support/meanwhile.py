"""A store in which others do not stand still: something happens right before one object is read."""

from __future__ import annotations

from collections.abc import Callable

from vmrun.core.storage import BlobStore
from vmrun.store.counting import CountingStore


class Meanwhile(CountingStore):
    """Something else happens, once, right before one object is read for the first time, or the `reads`th."""

    def __init__(self, inner: BlobStore, key: str, act: Callable[[], object], reads: int = 1) -> None:
        super().__init__(inner)
        self._key, self._act, self._left = key, act, reads

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._left -= key == self._key
        if key == self._key and not self._left:
            self._key = ""
            self._act()
        return super().get(key, start, end)
