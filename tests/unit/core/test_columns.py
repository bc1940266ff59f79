"""Columns: what is nothing but zeros, and what is copied and what is not."""

from __future__ import annotations

from array import array

import pytest

from vmrun.core.blocks import ResultBlock, TaskBlock
from vmrun.core.columns import BlockError, column, column_view, is_zero, raw, zeros

#: A size that is compared at once, the largest such, and ones that are compared piece by piece.
SIZES = (0, 1, 4096, 64 * 1024, 64 * 1024 + 1, 300_001)


@pytest.mark.parametrize("size", SIZES)
def test_zeros_are_told_from_anything_else_wherever_it_is(size: int) -> None:
    assert is_zero(bytes(size))
    for at in {0, size // 2, size - 1, 64 * 1024}:
        if 0 <= at < size:
            other = bytearray(size)
            other[at] = 1
            assert not is_zero(other), f"byte {at} of {size}"


@pytest.mark.parametrize("count", [0, 3, 100_000])
def test_numbers_are_looked_at_as_bytes(count: int) -> None:
    numbers = zeros("q", count)
    assert list(numbers) == [0] * count
    assert is_zero(numbers)
    assert is_zero(memoryview(numbers))
    if count:
        numbers[-1] = -1
        assert not is_zero(numbers)
        # Not 0.0, and yet equal to it.
        assert not is_zero(array("d", [-0.0]))


@pytest.mark.parametrize("read", [column, column_view])
def test_a_column_is_read_back_as_it_was_written(read: object) -> None:
    assert callable(read)
    data = memoryview(bytes(raw(array("q", [1, -(2**63), 7]))) + b"rest")
    numbers, rest = read("q", 3, data)
    assert numbers.tolist() == [1, -(2**63), 7]
    assert bytes(rest) == b"rest"
    with pytest.raises(BlockError, match="cut short"):
        read("q", 4, data)


def test_numbers_that_are_handed_on_are_not_copied() -> None:
    sent = TaskBlock(5, array("Q"), b"", numbers=array("q", range(10)))
    data = bytearray(sent.encode())
    block = TaskBlock.decode(data)
    part = block.slice(7, 3)
    assert part.numbers is not None
    assert part.numbers.tolist() == [2, 3, 4]
    # What is written where it was read shows in the part, and in what would be sent of it.
    data[-8 * 10 + 3 * 8] = 99
    assert part.numbers.tolist() == [2, 99, 4]
    assert bytes(part.start()[1]) == array("q", [2, 99, 4]).tobytes()


def test_results_are_read_where_they_lie_too() -> None:
    sent = ResultBlock(
        0, bytes(3), zeros("Q", 3), b"", array("d"), array("f"),
        forms=b"\1\1\1", values=array("q", [4, 5, 6]), ended=array("d", [1.0, 2.0, 4.0]), began=0.5, epoch=100.0,
    )  # fmt: skip
    block = ResultBlock.decode(sent.encode())
    assert block == sent
    assert isinstance(block.values, memoryview)
    assert isinstance(block.ended, memoryview)
    assert block.timed().started.tolist() == [100.5, 101.0, 102.0]
    assert block.slice(1, 2).timed().seconds.tolist() == [1.0, 2.0]
    assert list(block.plain() or ()) == [4, 5, 6]
    assert ResultBlock.decode(block.encode()) == sent
