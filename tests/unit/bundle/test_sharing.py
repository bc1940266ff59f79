"""The shared object on its way to the store: streamed from where it lies, the same bytes for the same data."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from vmrun.bundle.sharing import PackedShared, pack_shared
from vmrun.core import parcels
from vmrun.core.errors import UsageError
from vmrun.store.files import CheckedPieces


def packed(value: object, directory: Path, name: str = "a") -> PackedShared:
    (directory / name).mkdir()
    return pack_shared(value, directory / name)


def test_the_same_data_are_the_same_bytes(tmp_path: Path) -> None:
    first = packed({"a": np.arange(100_000), "words": ["x"] * 100}, tmp_path)
    data = b"".join(first)
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (first.sha256, first.size)
    assert packed({"a": np.arange(100_000), "words": ["x"] * 100}, tmp_path, "b").sha256 == first.sha256
    assert packed({"a": np.arange(1, 100_001), "words": ["x"] * 100}, tmp_path, "c").sha256 != first.sha256
    back = parcels.load(bytearray(data))
    assert back["words"] == ["x"] * 100
    assert np.array_equal(back["a"], np.arange(100_000))


def test_large_buffers_are_not_copied(tmp_path: Path) -> None:
    array = np.ones(8_000_000)
    tracemalloc.start()
    try:
        for _ in packed({"array": array}, tmp_path):
            pass
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_what_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the shared object\['deep'\]\[1\] is a _thread.lock"):
        packed({"deep": [1, threading.Lock()]}, tmp_path)


def test_an_object_that_changes_meanwhile_is_not_stored(tmp_path: Path) -> None:
    array = np.zeros(2_000_000)
    found = packed(array, tmp_path)
    checked = CheckedPieces(found, found.sha256, "the array")
    assert b"".join(checked) == b"".join(found)
    array[1_999_999] = 1
    taken = []
    with pytest.raises(UsageError, match="the array changed"):
        for piece in checked:
            taken.append(piece)
    assert sum(map(len, taken)) < found.size
