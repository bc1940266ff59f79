"""Parcels: an object and its buffers as one run of bytes, opened where it lies."""

from __future__ import annotations

import pickle

import pytest

from vmrun.core import parcels
from vmrun.core.blocks import PYTHON, BlockError
from vmrun.core.parcels import APART, PAGE, Parcel


def parcel_of(value: object) -> bytearray:
    buffers: list[memoryview] = []
    pickled = pickle.dumps(value, 5, buffer_callback=lambda buffer: buffers.append(buffer.raw()))
    first, *rest = parcels.lead(len(pickled), buffers)
    return bytearray(b"".join([first, pickled, *rest]))


def test_an_object_comes_back_on_the_very_bytes_of_its_parcel() -> None:
    large, small = bytearray(b"l" * APART), bytearray(b"s")
    data = parcel_of([pickle.PickleBuffer(large), "text", pickle.PickleBuffer(small), pickle.PickleBuffer(bytes(9))])
    parcel = Parcel.decode(data)
    assert parcel.python == PYTHON
    first, text, second, third = parcels.load(data)
    assert (bytes(first), text, bytes(second), bytes(third)) == (bytes(large), "text", b"s", bytes(9))
    data[data.index(b"llll")] = ord("x")
    assert bytes(first[:2]) == b"xl"
    assert not memoryview(first).readonly
    assert memoryview(third).readonly


def test_every_part_begins_on_a_page() -> None:
    data = parcel_of([pickle.PickleBuffer(bytearray(size)) for size in (1, PAGE - 1, PAGE, PAGE + 1)])
    whole = memoryview(data)
    for part in (Parcel.decode(whole).pickle, *Parcel.decode(whole).buffers):
        with memoryview(data) as view:
            offset = next(at for at in range(0, len(view), PAGE) if _same_place(view[at : at + 1], part))
        assert offset % PAGE == 0


def _same_place(one: memoryview, other: memoryview) -> bool:
    """Whether both begin at the same byte: what is written to one is seen in the other."""
    before = one[0]
    one[0] = before ^ 0xFF
    try:
        return other[0] != bytes([before])[0] and other[0] == before ^ 0xFF and len(other) > 0
    finally:
        one[0] = before


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"X" + data[1:], lambda _: b"", lambda _: b"VMP1"]
)
def test_what_is_not_a_parcel_is_refused(damage: object) -> None:
    data = bytes(parcel_of(pickle.PickleBuffer(bytearray(10))))
    with pytest.raises(BlockError):
        Parcel.decode(damage(data))  # type: ignore[operator]


@pytest.mark.parametrize(
    "head", [b"{}", b"[]", b'{"python":"3.11","pickle":-5,"buffers":[]}', b'{"python":"3.11","pickle":1,"buffers":[3]}']
)
def test_a_damaged_header_is_refused(head: bytes) -> None:
    with pytest.raises(BlockError):
        Parcel.decode(b"VMP1" + len(head).to_bytes(4, "little") + head + bytes(2 * PAGE))
