"""Pieces that are read as from a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.pieces import PieceReader


@given(
    st.lists(st.binary(max_size=20), max_size=10), st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=20)
)
def test_all_bytes_come_in_order_however_they_are_asked_for(pieces: list[bytes], asks: list[tuple[bool, int]]) -> None:
    whole, at = b"".join(pieces), 0
    reader = PieceReader(pieces)
    for into, size in asks:
        wanted = whole[at : at + size]
        if into:
            memory = bytearray(size)
            assert reader.readinto(memoryview(memory)) == len(wanted)
            assert memory == wanted + bytes(size - len(wanted))
        else:
            assert reader.read(size) == wanted
        at += len(wanted)
    assert reader.skip() == len(whole) - at
    assert reader.read(5) == b""


def test_what_a_piece_raises_comes_through() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"abc"
        raise KeyError("gone")

    reader = PieceReader(pieces())
    assert reader.read(3) == b"abc"
    with pytest.raises(KeyError):
        reader.skip()
